"""One server in several processes, each with a Python lock of its own: small queries wait for it more than for FAISS.

The kernel deals connections out among their sockets. Each process opens the indices, reads the lists and exchanges an
index by itself; what requests cost is counted together.
"""

import logging
import multiprocessing
import os
import signal
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from multiprocessing.context import SpawnProcess
from multiprocessing.queues import SimpleQueue

from spine.errors import ConfigError, FactoryError

SHARED_METRICS = "PROMETHEUS_MULTIPROC_DIR"
"""Where prometheus_client keeps what several processes count; it reads that as it is imported."""

_LOOK_S = 0.1
_AGAIN_S = 5.0  # until one that could not serve is begun again

_log = logging.getLogger("popfactory.server")

Work = Callable[[Callable[[], None]], None]
"""Serves until SIGTERM; calls what it is given once it does. A spawned process has to find it by its name."""

_News = SimpleQueue[tuple[int, str]]


def run_together(count: int, work: Work, started: Callable[[], None]) -> None:
    """Do `work` in so many processes until SIGTERM or Ctrl-C; for one that dies another takes its place.

    From the main thread alone.

    Args:
        count: Of processes.
        work: What each does.
        started: Called once, when all of them serve.

    Raises:
        ConfigError: One can't serve from the beginning, and why.
        KeyboardInterrupt: It was Ctrl-C.
    """
    stop, caught = threading.Event(), set[int]()

    def catch(number: int, _: object) -> None:
        caught.add(number)
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, catch)
    with _shared_metrics():
        together = _Together(count, work, started)
        try:
            while not stop.wait(_LOOK_S):
                together.look(stop)
        finally:
            together.end()
    if signal.SIGINT in caught:
        raise KeyboardInterrupt


class _Together:
    """The processes."""

    def __init__(self, count: int, work: Work, started: Callable[[], None]) -> None:
        self._context = multiprocessing.get_context("spawn")
        self._news: _News = self._context.SimpleQueue()
        self._work, self._started = work, started
        self._serving: set[int | None] = set()
        self._told = False
        self._processes = [self._begin() for _ in range(count)]

    def _begin(self) -> SpawnProcess:
        process = self._context.Process(target=_one, args=(self._work, self._news), name="server")
        process.start()
        return process

    def look(self, stop: threading.Event) -> None:
        """Hear what they say, replace those that died, and tell once when all serve.

        Raises:
            ConfigError: One can't serve from the beginning, and why.
        """
        # Looked at before what they say: one that says why it can't serve has said so by the time it is dead.
        dead = [place for place, process in enumerate(self._processes) if not process.is_alive()]
        while not self._news.empty():
            pid, problem = self._news.get()
            if problem and not self._told:
                raise ConfigError(problem)
            if problem:  # the others go on
                _log.error("%s", problem)
            else:
                self._serving.add(pid)
        for place in dead:
            ended = self._processes[place]
            if ended.pid not in self._serving:
                if not self._told:
                    raise ConfigError(f"a process ended with {ended.exitcode} before it could serve")
                stop.wait(_AGAIN_S)
            _log.error("a process ended with %s; another takes its place", ended.exitcode)
            self._processes[place] = self._begin()
        if not self._told and self._serving.issuperset(process.pid for process in self._processes):
            self._told = True
            self._started()

    def end(self) -> None:
        """Have them finish what is in flight, and wait for it."""
        for process in self._processes:
            process.terminate()
        for process in self._processes:
            process.join()


def orphaned() -> bool:
    """Whether the process that began this one is gone: nobody would end it then."""
    parent = multiprocessing.parent_process()
    return parent is not None and not parent.is_alive()


def _one(work: Work, news: _News) -> None:
    """A process."""
    with suppress(KeyboardInterrupt):  # Ctrl-C reaches all of them; the first one says so
        try:
            work(lambda: news.put((os.getpid(), "")))
        except FactoryError as error:
            news.put((os.getpid(), str(error)))


@contextmanager
def _shared_metrics() -> Iterator[None]:
    with tempfile.TemporaryDirectory(prefix="popfactory-metrics-") as folder:
        before = os.environ.get(SHARED_METRICS)
        os.environ[SHARED_METRICS] = folder  # processes inherit it
        try:
            yield
        finally:
            del os.environ[SHARED_METRICS]
            if before is not None:
                os.environ[SHARED_METRICS] = before
