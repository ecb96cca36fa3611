"""Processes that open pictures: each answer is its asker's, whatever becomes of the others."""

import os
import signal
import threading
import time

import numpy as np
import pytest

from spine.errors import ConfigError
from spine.refused import Refused
from spine.workers import PictureWorkers

_prepared = 0  # of this process


def _prepare() -> None:
    global _prepared
    _prepared += 1


def _square(number: int) -> tuple[int, int, int]:
    return number * number, os.getpid(), _prepared


def _refuse(_: object) -> None:
    raise ConfigError("a list can't be read")


def _die(*_: object) -> None:
    os.kill(os.getpid(), signal.SIGSEGV)


def _sleep(seconds: float) -> None:
    time.sleep(seconds)


def _take(size_bytes: int) -> int:
    try:
        return int(np.ones(size_bytes, dtype=np.uint8).sum())
    except MemoryError:
        return -1


def test_each_answer_is_its_askers_and_workers_are_prepared_once():
    answers: dict[int, tuple[int, int, int]] = {}
    with PictureWorkers(2, prepare=_prepare) as workers:

        def ask(first: int) -> None:
            for number in range(first, 200, 8):
                answers[number] = workers.ask(str(number), _square, number)  # type: ignore[assignment]

        threads = [threading.Thread(target=ask, args=(first,)) for first in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    assert {number: answer[0] for number, answer in answers.items()} == {n: n * n for n in range(200)}
    assert len({pid for _, pid, _ in answers.values()} - {os.getpid()}) <= 2
    assert {prepared for _, _, prepared in answers.values()} == {1}


def test_no_process_starts_while_another_is_free():
    with PictureWorkers(4) as workers:
        pids = {workers.ask("n", _square, number)[1] for number in range(4)}  # type: ignore[index]

    assert len(pids) == 1


def test_what_the_work_raises_is_raised_to_who_asked_and_the_process_goes_on():
    with PictureWorkers(1) as workers:
        before = workers.ask("n", _square, 2)
        with pytest.raises(ConfigError, match="a list can't be read"):
            workers.ask("n", _refuse, 1)

        assert workers.ask("n", _square, 2) == before


def test_a_picture_that_ends_its_process_or_takes_too_long_is_refused_and_the_next_is_opened():
    with PictureWorkers(1, open_s=2) as workers:
        crashed = workers.ask("one.jpg", _die)
        late = workers.ask("two.jpg", _sleep, 60)
        after = workers.ask("three.jpg", _square, 3)

    assert isinstance(crashed, Refused)
    assert (crashed.reason, crashed.message.split(":")[0]) == ("decode_crashed", "one.jpg")
    assert isinstance(late, Refused)
    assert (late.reason, late.message.split(":")[0]) == ("decode_timeout", "two.jpg")
    assert not isinstance(after, Refused)
    assert after[0] == 9


def test_a_process_that_was_killed_while_it_waited_costs_no_picture():
    with PictureWorkers(1) as workers:
        _, pid, _ = workers.ask("n", _square, 1)  # type: ignore[misc]
        os.kill(pid, signal.SIGKILL)

        assert workers.ask("n", _square, 5)[0] == 25  # type: ignore[index]


def test_a_process_has_so_much_memory_and_no_more():
    with PictureWorkers(1) as workers:
        assert workers.ask("n", _take, 100_000_000) == 100_000_000
        assert workers.ask("n", _take, 5_000_000_000) == -1


def test_who_asks_once_they_have_ended_is_told_and_nobody_waits():
    workers = PictureWorkers(1)
    with workers:
        workers.ask("n", _square, 1)
    workers.close()

    with pytest.raises(RuntimeError, match="have ended"):
        workers.ask("n", _square, 1)
