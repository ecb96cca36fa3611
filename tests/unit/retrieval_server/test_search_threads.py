import asyncio
import threading

import faiss
import pytest

from retrieval_server.search_threads import MOST_TOGETHER, SearchThreads


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
