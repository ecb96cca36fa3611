"""Worker processes that leave Ctrl-C to the process that started them."""

import contextlib
import signal
from collections.abc import Iterator
from multiprocessing import resource_tracker


@contextlib.contextmanager
def interrupts_held() -> Iterator[None]:
    """Start processes inside: they never hear of a SIGINT, not even while they start.

    A terminal sends Ctrl-C to every process of the group. A worker that heard it while it imports would
    print a traceback before it could say that it ignores it. A blocked signal stays blocked across
    fork and exec; ours comes when the block ends.
    """
    resource_tracker.ensure_running()  # its own start, part of the first process's, would unblock the signal
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
