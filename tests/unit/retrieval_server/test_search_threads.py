import asyncio
import threading
import time

import faiss
import pytest

from retrieval_server import search_threads
from retrieval_server.search_threads import MOST_TOGETHER, SHORT_S, SHORT_THREADS, SearchThreads


class Asked:
    """Answers whole numbers by ten times as much, the first when told to, and writes down what came together."""

    def __init__(self):
        self.together, self.go = [], threading.Event()

    def __call__(self, numbers):
        self.together.append(list(numbers))
        if len(self.together) == 1:
            self.go.wait(30)
        if any(number < 0 for number in numbers):
            raise ValueError(f"below 0 among {len(numbers)}")
        return [10 * number for number in numbers]


async def begun(searches, questions, asked):
    """Tasks that ask; the first is at work before the others come."""
    (kind, number), *others = questions
    tasks = [asyncio.create_task(searches.ask(kind, number))]
    while not asked.together:
        await asyncio.sleep(0.001)
    tasks += [asyncio.create_task(searches.ask(kind, number)) for kind, number in others]
    await asyncio.sleep(0.02)
    return tasks


def answered(threads, questions, asked):
    """What each question got."""

    async def ask():
        searches = SearchThreads(threads, asked)
        tasks = await begun(searches, questions, asked)
        asked.go.set()
        outcomes = await asyncio.gather(*tasks, return_exceptions=True)
        searches.close()
        return outcomes

    return asyncio.run(ask())


def test_questions_that_wait_are_answered_together_where_they_are_alike():
    asked = Asked()

    outcomes = answered(1, [("a", 1), ("a", 2), ("a", 3), ("b", 4), ("a", 5), ("a", 6)], asked)

    assert outcomes == [10, 20, 30, 40, 50, 60]
    assert asked.together == [[1], [2, 3], [4], [5, 6]]


def test_no_more_than_so_many_are_taken_at_once():
    asked = Asked()

    outcomes = answered(1, [("a", number) for number in range(30)], asked)

    assert outcomes == [10 * number for number in range(30)]
    assert max(map(len, asked.together)) == MOST_TOGETHER


def test_large_questions_are_taken_a_few_at_a_time():
    asked = Asked()

    async def ask():
        searches = SearchThreads(1, asked)
        first = asyncio.create_task(searches.ask("a", 0, 3))
        while not asked.together:
            await asyncio.sleep(0.001)
        others = [asyncio.create_task(searches.ask("a", number, 3)) for number in range(1, 8)]
        await asyncio.sleep(0.02)
        asked.go.set()
        outcomes = await asyncio.gather(first, *others)
        searches.close()
        return outcomes

    assert asyncio.run(ask()) == [10 * number for number in range(8)]
    assert asked.together == [[0], [1, 2, 3], [4, 5, 6], [7]]


def test_threads_share_what_waits():
    asked = Asked()

    outcomes = answered(3, [("a", number) for number in range(40)], asked)

    assert outcomes == [10 * number for number in range(40)]
    assert sorted(number for numbers in asked.together for number in numbers) == list(range(40))


def test_an_error_reaches_the_one_it_belongs_to():
    asked = Asked()

    outcomes = answered(1, [("a", 0), ("a", 1), ("a", -2), ("a", 3)], asked)

    assert [outcomes[i] for i in (0, 1, 3)] == [0, 10, 30]
    assert isinstance(outcomes[2], ValueError)
    assert str(outcomes[2]) == "below 0 among 1"
    assert asked.together == [[0], [1, -2, 3], [1], [-2], [3]]


def test_who_has_gone_is_not_answered_and_the_others_are():
    asked = Asked()

    async def ask():
        searches = SearchThreads(1, asked)
        tasks = await begun(searches, [("a", number) for number in range(4)], asked)
        tasks[0].cancel()
        tasks[2].cancel()
        await asyncio.sleep(0.01)
        asked.go.set()
        outcomes = await asyncio.gather(*tasks, return_exceptions=True)
        searches.close()
        return outcomes

    gone, first, also_gone, last = asyncio.run(ask())

    assert (first, last) == (10, 30)
    assert isinstance(gone, asyncio.CancelledError)
    assert isinstance(also_gone, asyncio.CancelledError)
    assert asked.together == [[0], [1, 3]]


def test_a_thread_has_one_faiss_thread_and_work_of_other_kinds_goes_there_too():
    async def run():
        searches = SearchThreads(2, lambda questions: questions)
        found = await asyncio.gather(*(searches.run(faiss.omp_get_max_threads) for _ in range(4)))
        with pytest.raises(ZeroDivisionError):
            await searches.run(lambda: 1 // 0)
        searches.close()
        return found

    found = asyncio.run(run())

    assert found == [1, 1, 1, 1]


class Counted:
    """Answers after a while, for so much CPU a question; counts how many threads are at it."""

    def __init__(self, cpu_s):
        self.cpu_s, self.lock, self.at_work, self.most, self.together = cpu_s, threading.Lock(), 0, 0, []

    def __call__(self, numbers):
        with self.lock:
            self.at_work += 1
            self.most = max(self.most, self.at_work)
            self.together.append(len(numbers))
        end = time.thread_time() + self.cpu_s * len(numbers)
        while time.thread_time() < end:
            pass
        time.sleep(0.02)
        with self.lock:
            self.at_work -= 1
        return numbers


def asked_twice(counted):
    """Sixty questions of a kind, after three that tell how long they take; others of another kind come with them."""

    async def ask():
        searches = SearchThreads(4, counted)
        for number in range(3):
            await searches.ask("a", number)
        counted.together.clear()
        counted.most = 0
        found = await asyncio.gather(*(searches.ask("a", number) for number in range(60)))
        searches.close()
        return found

    assert asyncio.run(ask()) == list(range(60))
    assert sum(counted.together) == 60


def test_two_threads_take_short_questions_and_as_many_at_once_as_may_be():
    counted = Counted(0)

    asked_twice(counted)

    assert counted.most == SHORT_THREADS
    assert max(counted.together) == MOST_TOGETHER and len(counted.together) < 14


def test_all_threads_take_long_questions():
    counted = Counted(2 * SHORT_S)

    asked_twice(counted)

    assert counted.most == 4


def test_a_question_behind_short_ones_is_answered_and_so_are_those_behind_it():
    counted = Counted(0)

    async def ask():
        searches = SearchThreads(3, counted)
        for kind in ("a", "b"):
            await searches.ask(kind, 0)
        kinds = ["a"] * 20 + ["b"] * 3 + ["a"] * 20
        found = await asyncio.gather(*(searches.ask(kind, number) for number, kind in enumerate(kinds)))
        searches.close()
        return found

    assert asyncio.run(asyncio.wait_for(ask(), 30)) == list(range(43))
    assert counted.most == SHORT_THREADS


@pytest.mark.parametrize("cpu_s", [0, SHORT_S])
def test_other_work_has_its_turn_while_questions_never_end(cpu_s):
    counted = Counted(cpu_s)

    async def ask():
        searches, goes_on = SearchThreads(1, counted), True

        async def keep_asking():
            while goes_on:
                await searches.ask("a", 0)

        clients = [asyncio.create_task(keep_asking()) for _ in range(20)]
        await asyncio.sleep(0.1)
        done = await asyncio.wait_for(searches.run(lambda: "done"), 10)
        waiting = sum(not client.done() for client in clients)
        goes_on = False
        await asyncio.gather(*clients)
        searches.close()
        return done, waiting

    assert asyncio.run(ask()) == ("done", 20)


def test_times_of_kinds_are_not_kept_for_ever(monkeypatch):
    monkeypatch.setattr(search_threads, "_KINDS", 5)

    async def ask():
        searches = SearchThreads(2, list)
        for kind in range(40):
            assert await searches.ask(kind, kind) == kind
        searches.close()
        return searches

    assert len(asyncio.run(ask())._seconds) <= 5
