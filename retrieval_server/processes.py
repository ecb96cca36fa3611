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
    context = multiprocessing.get_context("spawn")
    news: _News = context.SimpleQueue()
    stop, caught = threading.Event(), set[int]()

    def catch(number: int, _: object) -> None:
        caught.add(number)
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, catch)

    def begin() -> SpawnProcess:
        process = context.Process(target=_one, args=(work, news), name="server")
        process.start()
        return process

    with _shared_metrics():
        processes = [begin() for _ in range(count)]
        serving: set[int | None] = set()
        told = False
        try:
            while not stop.wait(_LOOK_S):
                dead = [place for place, process in enumerate(processes) if not process.is_alive()]
                while not news.empty():
                    pid, problem = news.get()
                    if problem and not told:
                        raise ConfigError(problem)
                    if problem:  # the others go on
                        _log.error("%s", problem)
                    else:
                        serving.add(pid)
                for place in dead:
                    ended = processes[place]
                    if ended.pid not in serving:
                        if not told:
                            raise ConfigError(f"a process ended with {ended.exitcode} before it could serve")
                        stop.wait(_AGAIN_S)
                    _log.error("a process ended with %s; another takes its place", ended.exitcode)
                    processes[place] = begin()
                if not told and serving.issuperset(process.pid for process in processes):
                    told = True
                    started()
        finally:
            for process in processes:
                process.terminate()
            for process in processes:
                process.join()
    if signal.SIGINT in caught:
        raise KeyboardInterrupt


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
