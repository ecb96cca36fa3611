"""Worker processes: Ctrl-C is left to who started them, and a picture that kills one costs that picture only."""

import contextlib
import ctypes
import multiprocessing
import os
import queue
import resource
import signal
import threading
import traceback
from collections.abc import Callable, Iterator
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, Self, TypeVar

from spine.refused import Refused

OPEN_S = 60
"""Seconds for reading and opening one picture; then its process is ended."""

MEMORY_BYTES = 3_000_000_000
"""Address space a process may add to what it starts with; 50 megapixels as floats need a third of it."""

_KEPT_BYTES = 64_000_000  # freed memory that a process keeps for its next picture
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _LARGEST_MMAP_THRESHOLD = -1, -3, 32 << 20  # of glibc's malloc.h

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
    """Worker processes that open pictures in limited time and memory; asked from many threads.

    Each has a pipe of its own, and who asks writes to it and reads from it: handed over by threads in between,
    as `concurrent.futures` does it, the processes waited for half of their time. Use as a context manager.
    """

    def __init__(
        self, workers: int = 0, open_s: float = OPEN_S, prepare: Callable[[], object] | None = None
    ) -> None:
        """Start nothing yet.

        Args:
            workers: Processes; 0 is one a core.
            open_s: Seconds for one picture; then its process is ended.
            prepare: Called once in each process before its first picture; can be pickled.
        """
        self._workers, self._open_s, self._prepare = workers or os.cpu_count() or 1, open_s, prepare
        self._closed = False
        # Last in, first out: no process starts while another is free.
        self._free: queue.LifoQueue[_Worker | None] = queue.LifoQueue()
        for _ in range(self._workers):
            self._free.put(None)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the processes, once each has done what it is at; who waits for one is told."""
        if self._closed:
            return
        self._closed = True
        for worker in [self._free.get() for _ in range(self._workers)]:
            if worker is not None:
                worker.end()
            self._free.put(None)

    def ask(self, name: str, work: Callable[..., _Result], *arguments: object) -> _Result | Refused:
        """Have a worker do it; decode_crashed or decode_timeout where it ended its process.

        Args:
            name: Of the picture, for the message.
            work: A top-level function; what it raises is raised here.
            arguments: What it is called with.
        """
        worker = self._free.get()
        try:
            if self._closed:
                raise RuntimeError("the processes that open pictures have ended")
            # Twice: where memory is short the system ends any process, not the one to blame.
            for _ in range(2):
                worker = worker or _Worker(self._open_s, self._prepare)
                try:
                    error, result = worker.ask(work, arguments)
                except (EOFError, OSError):
                    in_time, worker = worker.end() != -signal.SIGALRM, None
                    if not in_time:
                        return Refused(
                            "decode_timeout", f"{name}: took longer than {self._open_s:g} s to open"
                        )
                else:
                    if error is not None:
                        raise error
                    return result  # type: ignore[no-any-return]  # what `work` returned
            return Refused("decode_crashed", f"{name}: opening it ended the process that tried")
        finally:
            self._free.put(worker)


class _Worker:
    """One process."""

    def __init__(self, open_s: float, prepare: Callable[[], object] | None) -> None:
        # Never fork: a thread of the parent may hold a lock that the child would wait for.
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(
            target=_serve, args=(theirs, open_s, prepare), name="pictures", daemon=True
        )
        with interrupts_held():
            self._process.start()
        theirs.close()

    def ask(self, work: Callable[..., object], arguments: tuple[object, ...]) -> Any:
        """What was raised, or None, and what was returned.

        Raises:
            EOFError, OSError: The process has ended.
        """
        try:
            self._pipe.send((work, arguments))
            return self._pipe.recv()
        except (EOFError, OSError):
            raise
        except BaseException:  # an answer left in the pipe would be taken for that of the next picture
            self._pipe.close()
            raise

    def end(self) -> int | None:
        """End it, and say with which exit code it ended."""
        self._pipe.close()
        self._process.kill()
        self._process.join()
        return self._process.exitcode


def _serve(pipe: Connection, open_s: float, prepare: Callable[[], object] | None) -> None:
    """Work in, results out, until the other side is gone; in a process of its own."""
    limit_memory()
    _keep_memory()
    # The alarm's default ends the process, also inside a decoder written in C.
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    with contextlib.suppress(EOFError, OSError):
        if prepare is not None:
            prepare()
        while True:
            work, arguments = pipe.recv()
            signal.setitimer(signal.ITIMER_REAL, open_s)
            answer: tuple[Exception | None, object]
            try:
                answer = (None, work(*arguments))
            except Exception as error:  # noqa: BLE001  # raised again where it was asked for
                error.add_note(traceback.format_exc())
                answer = (error, None)
            finally:
                signal.setitimer(signal.ITIMER_REAL, 0)
            pipe.send(answer)


def limit_memory() -> None:
    """Hold this process to MEMORY_BYTES more than it has; nothing where the system can't."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[0])
    except (OSError, ValueError, IndexError):  # not Linux
        return
    limit = pages * resource.getpagesize() + MEMORY_BYTES
    _, highest = resource.getrlimit(resource.RLIMIT_AS)
    if highest == resource.RLIM_INFINITY or limit < highest:
        resource.setrlimit(resource.RLIMIT_AS, (limit, highest))


def _keep_memory() -> None:
    """Let this process keep freed memory: to give it back and get it again took a third of the time of a picture."""
    with contextlib.suppress(AttributeError, OSError):  # another C library than glibc
        malloc_options = ctypes.CDLL(None).mallopt
        malloc_options(_M_MMAP_THRESHOLD, _LARGEST_MMAP_THRESHOLD)
        malloc_options(_M_TRIM_THRESHOLD, _KEPT_BYTES)


def follow_parent() -> None:
    """End with the parent, however it ends."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_end_with, args=(parent,), name="parent", daemon=True).start()


def _end_with(parent: BaseProcess) -> None:
    parent.join()
    os._exit(1)
