"""Threads that search. Queries that wait at the same time and are alike are answered together by one of them."""

import asyncio
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from index_builder.numerics.faiss_library import load_faiss

MOST_TOGETHER = 8
"""Questions that one thread takes at once."""

SHORT_S = 0.003
"""Questions that take less CPU are short: half of that is Python's, of which one thread runs at a time."""

SHORT_THREADS = 2
"""That are at short questions at once, or half of all: more only wait for each other, with fewer questions each."""

_KINDS = 1_000  # whose times are known

T = TypeVar("T")
Question = TypeVar("Question")
Answer = TypeVar("Answer")


@dataclass(slots=True)
class _Waiting(Generic[Question, Answer]):
    kind: object
    most: int
    question: Question
    answered: "asyncio.Future[Answer]"


class SearchThreads(Generic[Question, Answer]):
    """A few threads, each with one FAISS thread. For one event loop."""

    def __init__(self, threads: int, answer: Callable[[Sequence[Question]], Sequence[Answer]]) -> None:
        """Get ready.

        Args:
            threads: How many; 0 for one a core, but one of three and more, which the event loop needs.
            answer: Answers questions of the same kind, each as if it were alone. An error of several is taken for that
                of one: each is then answered by itself.
        """
        cores = os.cpu_count() or 1
        self._threads = threads or min(cores, max(2, cores - 1))
        self._at_short_most = max(SHORT_THREADS, self._threads // 2)
        self._answer = answer
        self._pool = ThreadPoolExecutor(self._threads, "search", initializer=_one_faiss_thread)
        self._waiting: deque[_Waiting[Question, Answer]] = deque()
        self._seconds: dict[object, float] = {}  # of CPU that a question of a kind takes
        self._at_short = 0
        self._closing = False
        self._lock = threading.Lock()

    async def ask(self, kind: object, question: Question, most: int = MOST_TOGETHER) -> Answer:
        """The answer to a question, asked together with those of the same kind that wait beside it, `most` at once."""
        waiting = _Waiting[Question, Answer](kind, most, question, asyncio.get_running_loop().create_future())
        with self._lock:
            self._waiting.append(waiting)
        self._pool.submit(self._work)  # which may find that another thread has taken it along
        return await waiting.answered

    async def run(self, work: Callable[[], T]) -> T:
        """What a piece of work gives, done by one of the threads."""
        return await asyncio.get_running_loop().run_in_executor(self._pool, work)

    def close(self) -> None:
        """Let what runs end."""
        with self._lock:
            self._closing = True
        self._pool.shutdown(wait=True, cancel_futures=True)

    def _work(self) -> None:
        """Answer some of what waits, if no others must, and see to it that the rest is looked at."""
        with self._lock:
            short, taken = self._take()
            if not taken:
                return
            self._at_short += short
            self._go_on()
        start = time.thread_time()
        outcomes = self._outcomes([each.question for each in taken])
        seconds = (time.thread_time() - start) / len(taken)
        with self._lock:
            self._at_short -= short
            self._learn(taken[0].kind, seconds)
            self._go_on()
        answered = [each.answered for each in taken]
        answered[0].get_loop().call_soon_threadsafe(_tell, answered, outcomes)

    def _go_on(self) -> None:
        """Have a thread look at what waits, after the other work that the threads have."""
        if self._waiting and not self._closing:
            self._pool.submit(self._work)

    def _take(self) -> tuple[bool, list[_Waiting[Question, Answer]]]:
        """Whether they are short, and the one that waits longest with those of the same kind right behind it.

        As many as are one thread's share of all; of short ones as many as may be.
        """
        taken: list[_Waiting[Question, Answer]] = []
        while self._waiting and self._waiting[0].answered.cancelled():  # who asked has gone
            self._waiting.popleft()
        if not self._waiting:
            return False, taken
        kind, most = self._waiting[0].kind, self._waiting[0].most
        short = self._seconds.get(kind, SHORT_S) < SHORT_S
        if short and self._at_short >= self._at_short_most:
            return False, taken
        share = MOST_TOGETHER if short else -(-len(self._waiting) // self._threads)
        while (
            self._waiting and self._waiting[0].kind == kind and len(taken) < min(share, most, MOST_TOGETHER)
        ):
            waiting = self._waiting.popleft()
            if not waiting.answered.cancelled():
                taken.append(waiting)
        return short, taken

    def _learn(self, kind: object, seconds: float) -> None:
        if len(self._seconds) >= _KINDS:
            self._seconds.clear()
        self._seconds[kind] = 0.8 * self._seconds.get(kind, seconds) + 0.2 * seconds

    def _outcomes(self, questions: Sequence[Question]) -> list[Any]:
        """An answer or an error of each."""
        try:
            return [*self._answer(questions)]
        except Exception as error:  # noqa: BLE001 - whoever asked is told
            if len(questions) == 1:
                return [error]
        return [outcome for question in questions for outcome in self._outcomes([question])]


def _tell(answered: "Sequence[asyncio.Future[Any]]", outcomes: Sequence[Any]) -> None:
    for future, outcome in zip(answered, outcomes, strict=True):
        if future.done():  # who asked has gone
            continue
        if isinstance(outcome, Exception):
            future.set_exception(outcome)
        else:
            future.set_result(outcome)


def _one_faiss_thread() -> None:
    load_faiss().omp_set_num_threads(1)  # holds for the calling thread only
