"""The queue that hands out pictures host by host."""

import random
import threading
import time
from collections import Counter

from curation.host_queue import HostQueue


def candidates(counts: dict[str, int]) -> list[dict]:
    rows = [
        {"id": f"{host}/{number}", "url": f"http://{host}/{number}", "image_path": None}
        for host, count in counts.items()
        for number in range(count)
    ]
    return rows


def test_each_picture_is_handed_out_once_and_never_more_of_a_host_than_may_be():
    rows = candidates({"a": 60, "b": 5, "c": 1}) + [
        {"id": f"here {number}", "url": None, "image_path": "/x.png"} for number in range(20)
    ]
    queue, lock = HostQueue(rows, per_host=3), threading.Lock()
    at_work, most, seen = Counter(), Counter(), []
    chance = random.Random(0)

    def work() -> None:
        while (row := queue.take()) is not None:
            host = row["id"].partition("/")[0]
            with lock:
                at_work[host] += 1
                most[host] = max(most[host], at_work[host])
                seen.append(row["id"])
                pause_s = chance.random() / 500
            time.sleep(pause_s)
            with lock:
                at_work[host] -= 1
            queue.give_back(row)

    threads = [threading.Thread(target=work) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)

    assert sorted(seen) == sorted(row["id"] for row in rows)
    assert max(most[host] for host in "abc") <= 3


def test_a_host_without_a_free_place_keeps_only_its_own_waiting():
    queue = HostQueue(candidates({"slow": 100, "other": 2}), per_host=2)

    taken = [queue.take() for _ in range(4)]

    assert Counter(row["url"].split("/")[2] for row in taken if row) == {"slow": 2, "other": 2}
    waiter: list[dict | None] = []
    thread = threading.Thread(target=lambda: waiter.append(queue.take()))
    thread.start()
    queue.give_back(next(row for row in taken if row and "slow" in row["url"]))
    thread.join(30)
    assert waiter and waiter[0] and waiter[0]["url"] == "http://slow/2"


def test_a_stopped_queue_hands_out_nothing_more():
    queue = HostQueue(candidates({"a": 3}), per_host=1)
    queue.take()
    answers: list[dict | None] = []
    thread = threading.Thread(target=lambda: answers.append(queue.take()))
    thread.start()
    queue.stop()
    thread.join(30)
    assert answers == [None]
