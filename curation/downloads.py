"""One picture from the web: blocked, fetched with retries, opened, stored by the hash of its content."""

import hashlib
import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from curation.opening import SUFFIXES, Opened, Openers, Refused
from spine.errors import DataError, WebError
from spine.lists import BlockLists
from spine.publish import publish_bytes
from spine.run import Run
from spine.settings import FetchConfig
from spine.sizes import format_size, parse_size
from spine.web import Web

ATTEMPTS = 3
"""Times an address is asked where it might answer later."""

_LATER = frozenset({"timeout", "connect", "broken_reply", "dns"})
_LATER_STATUS = frozenset({408, 425, 429, 500, 502, 503, 504})
_FIRST_WAIT_S = 0.5
_LONGEST_WAIT_S = 30.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Download:
    """What became of one address."""

    outcome: Opened | Refused
    path: Path | None = None
    """Where it is stored."""
    http_status: int | None = None
    attempts: int


class DiskBudget:
    """Bytes that may still be stored; safe to share between threads."""

    def __init__(self, config: FetchConfig, folder: Path) -> None:
        self._budget, self._folder = parse_size(config.disk_budget), folder
        self._lock = threading.Lock()
        self._used = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())

    def take(self, size_bytes: int) -> None:
        """Count bytes about to be stored.

        Raises:
            DataError: They would go over the budget; what is stored stays, and fetch can go on.
        """
        with self._lock:
            if self._used + size_bytes > self._budget:
                raise DataError(
                    f"{self._folder}: {format_size(self._used)} stored, [fetch] disk_budget is "
                    f"{format_size(self._budget)}; raise it, or set [fetch] max_side_px, and fetch again"
                )
            self._used += size_bytes


class Downloader:
    """Brings in pictures by their addresses; may be asked from many threads."""

    def __init__(
        self,
        run: Run,
        config: FetchConfig,
        lists: BlockLists,
        web: Web,
        openers: Openers,
        wait: Callable[[float], None] = time.sleep,
    ) -> None:
        self._run, self._config, self._lists = run, config, lists
        self._web, self._openers, self._wait = web, openers, wait
        self._budget = DiskBudget(config, run.images)

    def download(self, url: str) -> Download:
        """Fetch, check, open and store one picture.

        A hash list is asked before the picture is opened or stored: a hit leaves its hash and nothing else.
        """
        attempt = 1
        while True:
            try:
                response = self._web.fetch(url)
                break
            except WebError as error:
                if attempt >= ATTEMPTS or not _worth_another(error):
                    refused = Refused(error.reason, str(error))
                    return Download(outcome=refused, http_status=error.status, attempts=attempt)
                self._wait(_pause_s(attempt, error))
                attempt += 1
        sha256 = hashlib.sha256(response.content).hexdigest()
        rule = self._lists.blocks(url=response.url, sha256=sha256)
        if rule is not None:
            refused = Refused(rule, "on a list", sha256)
            return Download(outcome=refused, http_status=response.status, attempts=attempt)
        outcome = self._openers.content(url, response.content, self._config.max_side_px)
        if isinstance(outcome, Refused):
            return Download(outcome=outcome, http_status=response.status, attempts=attempt)
        path = self._store(outcome, response.content)
        return Download(outcome=outcome, path=path, http_status=response.status, attempts=attempt)

    def _store(self, opened: Opened, content: bytes) -> Path:
        path = self._run.original(opened.sha256, SUFFIXES[opened.format])
        if not path.is_file():
            self._budget.take(opened.size_bytes)
            publish_bytes(path, content if opened.content is None else opened.content)
        return path


def _worth_another(error: WebError) -> bool:
    return error.reason in _LATER or error.status in _LATER_STATUS


def _pause_s(attempt: int, error: WebError) -> float:
    """Seconds before the next attempt: as asked for, else longer each time, spread so that many don't come at once."""
    if error.retry_after_s is not None:
        return min(error.retry_after_s, _LONGEST_WAIT_S)
    return float(_FIRST_WAIT_S * 2 ** (attempt - 1)) * random.uniform(0.5, 1.5)
