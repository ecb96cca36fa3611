"""Pictures that wait to be brought in, host by host: one that is slow keeps nobody but its own from their turn."""

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from queue import SimpleQueue
from typing import Any

from spine.opt_out import root_of

Row = dict[str, Any]

_HERE = ""  # the host of what lies on this machine, or nowhere: no limit is kept for it


class HostQueue:
    """Hands out pictures, so many of a host at the same time; shared by the threads that bring them in."""

    def __init__(self, candidates: Iterable[Row], per_host: int) -> None:
        """Queue them all.

        Args:
            candidates: With image_path and url; of one host they keep their order.
            per_host: Of one host at the same time.
        """
        self._per_host = per_host
        self._changed = threading.Condition()
        self._waiting: dict[str, deque[Row]] = {}
        for candidate in candidates:
            self._waiting.setdefault(host_of(candidate), deque()).append(candidate)
        self._left = sum(map(len, self._waiting.values()))
        self._at_work = dict.fromkeys(self._waiting, 0)
        self._ready = deque(self._waiting)  # hosts with a picture that waits and a place that is free
        self._stopped = False

    def take(self) -> Row | None:
        """The next picture, as soon as its host has a place; None once there are no more."""
        with self._changed:
            self._changed.wait_for(lambda: self._ready or not self._left or self._stopped)
            if not self._left or self._stopped:
                return None
            host = self._ready.popleft()
            candidate = self._waiting[host].popleft()
            self._at_work[host] += 1
            if self._waiting[host] and self._has_place(host):
                self._ready.append(host)
            self._left -= 1
            if not self._left:
                self._changed.notify_all()
            return candidate

    def give_back(self, candidate: Row) -> None:
        """It is done: its host's place is free."""
        host = host_of(candidate)
        with self._changed:
            had_place = self._has_place(host)
            self._at_work[host] -= 1
            if self._waiting[host] and not had_place:
                self._ready.append(host)
                self._changed.notify()

    def stop(self) -> None:
        """Hand out nothing more."""
        with self._changed:
            self._stopped = True
            self._changed.notify_all()

    def _has_place(self, host: str) -> bool:
        return host == _HERE or self._at_work[host] < self._per_host


def asked_in_turn(
    candidates: Sequence[Row], per_host: int, concurrency: int, work: Callable[[Row], Row]
) -> Iterator[Row]:
    """What `work` makes of each picture, as they come; a slow host keeps nobody but those who wait for it.

    Args:
        candidates: With image_path and url.
        per_host: Of one host at the same time.
        concurrency: At the same time in all: threads.
        work: Called in these threads; what it raises ends all.
    """
    waiting = HostQueue(candidates, per_host)
    # A queue, not futures to wait for: looking through all that is at work took a third of the time.
    done: SimpleQueue[Row | Future[None]] = SimpleQueue()

    def ask() -> None:
        while (candidate := waiting.take()) is not None:
            done.put(work(candidate))
            waiting.give_back(candidate)

    threads = ThreadPoolExecutor(concurrency, thread_name_prefix="fetch")
    try:
        at_work = min(concurrency, len(candidates))
        for _ in range(at_work):
            threads.submit(ask).add_done_callback(done.put)
        while at_work:
            row = done.get()
            if isinstance(row, Future):
                row.result()  # raises what ended the thread before its time
                at_work -= 1
            else:
                yield row
    finally:
        waiting.stop()
        threads.shutdown()


def host_of(candidate: Row) -> str:
    """Who is asked for a picture; empty where nobody is."""
    if candidate["image_path"] is not None or candidate["url"] is None:
        return _HERE
    return root_of(candidate["url"]) or _HERE
