"""Ctrl-C and SIGTERM stop the work in one way, at whatever moment they come."""

import os
import signal
import sys
import threading
from typing import Any

_AGAIN_S = 0.05


def heed_interrupts() -> None:
    """Have SIGINT and SIGTERM raise KeyboardInterrupt, also where a shell started us with SIGINT ignored.

    Python drops an exception that is raised inside a weak reference's callback or a finaliser, which a
    Ctrl-C during a long import often is. Then the signal is sent once more, and nothing is printed.
    """
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    sys.unraisablehook = _again


def _again(dropped: Any) -> None:
    if dropped.exc_type is not None and issubclass(dropped.exc_type, KeyboardInterrupt):
        timer = threading.Timer(_AGAIN_S, os.kill, (os.getpid(), signal.SIGINT))
        timer.daemon = True
        timer.start()
    else:
        sys.__unraisablehook__(dropped)
