"""Threads that search. Queries that wait at the same time and are alike are answered together by one of them."""

import asyncio
import os
import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from index_builder.numerics.faiss_library import load_faiss

MOST_TOGETHER = 8
"""Questions that one thread takes at once."""

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
        self._answer = answer
        self._pool = ThreadPoolExecutor(self._threads, "search", initializer=_one_faiss_thread)
        self._waiting: deque[_Waiting[Question, Answer]] = deque()
        self._lock = threading.Lock()

    async def ask(self, kind: object, question: Question, most: int = MOST_TOGETHER) -> Answer:
        """The answer to a question, asked together with those of the same kind that wait beside it, `most` at once."""
        loop = asyncio.get_running_loop()
        waiting = _Waiting[Question, Answer](kind, most, question, loop.create_future())
        with self._lock:
            self._waiting.append(waiting)
        self._pool.submit(self._work, loop)  # which may find that another thread has taken it along
        return await waiting.answered

    async def run(self, work: Callable[[], T]) -> T:
        """What a piece of work gives, done by one of the threads."""
        return await asyncio.get_running_loop().run_in_executor(self._pool, work)

    def close(self) -> None:
        """Let what runs end."""
        self._pool.shutdown(wait=True, cancel_futures=True)

    def _work(self, loop: asyncio.AbstractEventLoop) -> None:
        taken = self._take()
        if taken:
            outcomes = self._outcomes([each.question for each in taken])
            loop.call_soon_threadsafe(_tell, [each.answered for each in taken], outcomes)

    def _take(self) -> list[_Waiting[Question, Answer]]:
        """The one that waits longest, and of the same kind those right behind it: one thread's share of all."""
        with self._lock:
            share = min(MOST_TOGETHER, -(-len(self._waiting) // self._threads))
            taken: list[_Waiting[Question, Answer]] = []
            while self._waiting and len(taken) < share:
                if taken and (self._waiting[0].kind != taken[0].kind or len(taken) >= taken[0].most):
                    break
                waiting = self._waiting.popleft()
                if not waiting.answered.cancelled():  # who asked may have gone
                    taken.append(waiting)
            return taken

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
