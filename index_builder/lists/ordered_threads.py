"""`map` by several threads, with results in order."""

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Given = TypeVar("Given")
Made = TypeVar("Made")

AHEAD = 8
"""Items handed out before the first result is taken."""


def mapped_in_order(
    function: Callable[[Given], Made],
    items: Iterator[Given],
    threads: int,
    prepare: Callable[[], None] | None = None,
    ahead: int = AHEAD,
) -> Iterator[Made]:
    """`map`, by several threads; results in the order of the items.

    Of up to `ahead` threads, however many there are, item i is asked for when i - ahead results have been taken: what
    an item is made from doesn't depend on how fast the threads are. Each new thread calls `prepare` first.
    """
    if threads <= 1:
        made: deque[Made] = deque()
        for item in items:
            made.append(function(item))
            if len(made) >= ahead:
                yield made.popleft()
        yield from made
        return
    waiting: deque[Future[Made]] = deque()
    with ThreadPoolExecutor(threads, thread_name_prefix="lists", initializer=prepare) as workers:
        try:
            for item in items:
                waiting.append(workers.submit(function, item))
                if len(waiting) >= max(ahead, threads):
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()
