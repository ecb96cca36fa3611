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
        [sys.executable, "-c", _DROPPED.format(sign=sign)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.stdout.strip(), done.stderr) == ("heeded", "")


_TWICE = """
import os, signal
from popfactory import cli

class Last:
    def __del__(self, kill=os.kill, number=os.getpid(), sign=signal.SIGINT):
        kill(number, sign)  # the second one, when the interpreter has taken its handlers down

last = Last()

@cli.cli.command("stopped")
def stopped():
    os.kill(os.getpid(), signal.SIGINT)

cli.main()
"""


def test_a_second_interrupt_changes_neither_the_exit_code_nor_what_is_said():
    done = subprocess.run(
        [sys.executable, "-c", _TWICE, "stopped"], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 130
    assert done.stderr.strip() == (
        "popfactory: stopped; what is finished stays, and the same command goes on from there"
    )
