import subprocess
import sys

import pytest

_DROPPED = """
import os, signal, time, weakref
from popfactory.interruption import heed_interrupts
heed_interrupts()

class Thing: pass

thing = Thing()
reference = weakref.ref(thing, lambda _: os.kill(os.getpid(), signal.{sign}))
try:
    del thing  # the exception of the signal rises in the callback, where Python drops it
    time.sleep(10)
    print("lost")
except KeyboardInterrupt:
    print("heeded")
"""


@pytest.mark.parametrize("sign", ["SIGINT", "SIGTERM"])
def test_an_interrupt_that_python_drops_comes_again(sign):
    done = subprocess.run(
        [sys.executable, "-c", _DROPPED.format(sign=sign)], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.stdout.strip(), done.stderr) == ("heeded", "")
