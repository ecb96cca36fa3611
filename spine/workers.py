"""Worker processes: Ctrl-C is left to who started them, and a picture that kills one costs that picture only."""

import contextlib
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import resource_tracker
from multiprocessing.process import BaseProcess
from typing import Self, TypeVar

from spine.refused import Refused

OPEN_S = 60
"""Seconds for reading and opening one picture; then its process is ended."""

_Result = TypeVar("_Result")


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


class PictureWorkers:
    """Worker processes that open pictures in limited time; asked from many threads. Use as a context manager."""

    def __init__(
        self, workers: int = 0, open_s: int = OPEN_S, prepare: Callable[[], object] | None = None
    ) -> None:
        """Start nothing yet.

        Args:
            workers: Processes; 0 is one a core.
            open_s: Seconds for one picture; then its process is ended.
            prepare: Called once in each process before its first picture; can be pickled.
        """
        self._workers, self._open_s, self._prepare = workers or os.cpu_count() or 1, open_s, prepare
        self._lock = threading.Lock()
        self._pool: ProcessPoolExecutor | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the processes."""
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)

    def ask(self, name: str, work: Callable[..., _Result], *arguments: object) -> _Result | Refused:
        """Have a worker do it; decode_crashed or decode_timeout where it ended its process.

        Args:
            name: Of the picture, for the message.
            work: A top-level function.
            arguments: What it is called with.
        """
        with self._lock:
            if self._pool is None:
                self._pool = _pool(self._workers, self._prepare)
            pool = self._pool
        try:
            # A submit starts a process while there are fewer than may be: only then is there one to keep out.
            started = len(getattr(pool, "_processes", None) or ()) >= self._workers
            with contextlib.nullcontext() if started else interrupts_held():
                opened = pool.submit(_within_time, self._open_s, work, *arguments)
            return opened.result()
        except BrokenProcessPool:
            # Some picture ended its worker, and all that were being opened are lost with the pool.
            # Each of them is tried once more by itself, so that only the one to blame is refused.
            with self._lock:
                if self._pool is pool:
                    self._pool = None
                    pool.shutdown(wait=False, cancel_futures=True)
                return self._alone(name, work, *arguments)

    def _alone(self, name: str, work: Callable[..., _Result], *arguments: object) -> _Result | Refused:
        with _pool(1, self._prepare) as pool:
            started = time.monotonic()
            try:
                with interrupts_held():
                    opened = pool.submit(_within_time, self._open_s, work, *arguments)
                return opened.result()
            except BrokenProcessPool:
                if time.monotonic() - started >= self._open_s:
                    return Refused("decode_timeout", f"{name}: took longer than {self._open_s} s to open")
                return Refused("decode_crashed", f"{name}: opening it ended the process that tried")


def _pool(workers: int, prepare: Callable[[], object] | None) -> ProcessPoolExecutor:
    # Never fork: a thread of the parent may hold a lock that the child would wait for.
    return ProcessPoolExecutor(
        workers, mp_context=multiprocessing.get_context("spawn"), initializer=_begin, initargs=(prepare,)
    )


def _begin(prepare: Callable[[], object] | None) -> None:
    follow_parent()
    if prepare is not None:
        prepare()


def follow_parent() -> None:
    """End with the parent: a worker's own queue would never tell of a kill -9."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_end_with, args=(parent,), name="parent", daemon=True).start()


def _end_with(parent: BaseProcess) -> None:
    parent.join()
    os._exit(1)


def _within_time(seconds: int, work: Callable[..., _Result], *arguments: object) -> _Result:
    # The alarm's default ends the process, also inside a decoder written in C.
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.alarm(seconds)
    try:
        return work(*arguments)
    finally:
        signal.alarm(0)
