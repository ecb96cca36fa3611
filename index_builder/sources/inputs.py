"""A source's inputs with their bytes, or where these lie: what only has an address is downloaded, in order.

Downloads run ahead of whoever takes the inputs, bounded in number and in bytes, and are kept in memory only.
Hosts are asked as `fetch` asks them: their reservations are heeded, lists come first, attempts are few.
"""

import threading
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import wait as wait_for
from dataclasses import dataclass, replace
from types import TracebackType

from index_builder.encoding.decoding import Refusal
from spine.entries import Entry
from spine.lists import ListsInForce
from spine.polite_web import PoliteWeb, public_web
from spine.refused import Refused
from spine.settings import FetchConfig
from spine.web import Web

_AHEAD = 1024  # inputs between the source and whoever takes them
_AHEAD_BYTES = 256_000_000  # downloaded and not taken, beyond which no further download begins


@dataclass(frozen=True, slots=True)
class Input:
    """One input of a source."""

    entry: Entry
    refusal: Refusal | None = None
    """Why it has no bytes."""


Bytes = str | bytes | None
"""A place, the bytes themselves, or None where there is neither."""


def local_inputs(found: Iterable[Entry], lists: ListsInForce) -> Iterator[tuple[Input, Bytes]]:
    """Inputs as they lie; one that only has an address is refused as not_local, and what a list names by its rule.

    Raises:
        ConfigError: A list can't be read.
    """
    for entry in found:
        refusal = _without_bytes(entry) or _listed(entry, lists)
        whole = entry if entry.content is None else replace(entry, content=None)  # bytes go on alone
        yield Input(whole, refusal), None if refusal is not None else (entry.content or entry.place)


def _without_bytes(entry: Entry) -> Refusal | None:
    if entry.problem is not None:
        return Refusal("unreadable", entry.problem)
    if entry.place is not None:
        return None
    if entry.url is not None:
        return Refusal("not_local", f"{entry.url}: only its address is known, and downloads are off")
    return Refusal("missing", "neither a picture nor an address")


def _listed(entry: Entry, lists: ListsInForce) -> Refusal | None:
    """What a list names by its id or address, wherever its bytes lie."""
    rule = lists.now().blocks(picture_id=entry.web_id, url=entry.url)
    return None if rule is None else Refusal(rule, f"{entry.name}: on a list")


class Downloads:
    """Downloads inputs that only have an address; a context manager that ends what is under way."""

    def __init__(self, config: FetchConfig, lists: ListsInForce, web: Web | None = None) -> None:
        """Nothing is asked yet.

        Args:
            config: The limits, and whether reservations are honoured.
            lists: Takedown and hash lists, asked of each address as they stand by then.
            web: The way to the network; None is the public web within the limits of [fetch].
        """
        self._own = web is None
        self._web = web if web is not None else public_web(config)
        self._stopped = threading.Event()
        self._polite = PoliteWeb(config, self._web, wait=self._pause)
        self._lists = lists
        self._threads = ThreadPoolExecutor(config.concurrency, thread_name_prefix="download")
        self._held = 0  # bytes downloaded and not taken
        self._lock = threading.Lock()

    def __enter__(self) -> "Downloads":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stopped.set()
        if self._own:
            self._web.close()  # what is under way breaks off
        self._threads.shutdown(wait=False, cancel_futures=True)

    def inputs(self, found: Iterable[Entry]) -> Iterator[tuple[Input, Bytes]]:
        """Each input in its order; ends early once this is closed."""
        source = iter(found)
        waiting: deque[tuple[Entry, Future[bytes | Refusal] | None]] = deque()
        while not self._stopped.is_set():
            while len(waiting) < _AHEAD and self._held < _AHEAD_BYTES:
                entry = next(source, None)
                if entry is None:
                    break
                asked = entry.problem is None and entry.place is None and entry.url is not None
                waiting.append((entry, self._threads.submit(self._ask, entry) if asked else None))
            if not waiting:
                return
            entry, future = waiting.popleft()
            if future is None:
                yield from local_inputs([entry], self._lists)
                continue
            while not future.done() and not self._stopped.is_set():
                wait_for([future], timeout=0.2)
            if self._stopped.is_set():
                return
            got = future.result()
            if isinstance(got, bytes):
                with self._lock:
                    self._held -= len(got)
                yield Input(entry), got
            else:
                yield Input(entry, got), None

    def _ask(self, entry: Entry) -> bytes | Refusal:
        assert entry.url is not None
        refusal = _listed(entry, self._lists)
        if refusal is not None:
            return refusal
        content = self._polite.ask(entry.url, self._lists.now).content
        if isinstance(content, Refused):
            return Refusal(content.reason, content.message)
        with self._lock:
            self._held += len(content)
        return content

    def _pause(self, seconds: float) -> None:
        self._stopped.wait(seconds)
