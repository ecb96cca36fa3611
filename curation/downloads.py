"""One picture from the web: reserved or blocked, fetched with retries, opened, stored by the hash of its content."""

import hashlib
import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from curation.opening import SUFFIXES, Opened, Openers, Refused, md5_of
from curation.opt_out import UNREACHABLE, RobotsByHost, reserved_by_headers
from curation.robots import MAX_BYTES as ROBOTS_BYTES
from spine.errors import DataError, WebError
from spine.lists import BlockLists
from spine.publish import publish_bytes
from spine.run import Run
from spine.settings import FetchConfig
from spine.sizes import format_size, parse_size
from spine.web import Web, WebResponse

ATTEMPTS = 3
"""Times an address is asked where it might answer later."""

LATER = frozenset({"timeout", "connect", "dns", "broken_reply", "robots_unknown"})
"""Reasons for which an address may answer another time."""

NOTHING_RESERVED = "none"
"""As opt_out: its host was asked, and reserves nothing."""

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
    opt_out: str | None = None
    """What its host reserves; NOTHING_RESERVED; None where nobody looked."""


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
        self._robots = RobotsByHost(lambda url: self._ask(url, ROBOTS_BYTES)[0])

    def download(self, url: str) -> Download:
        """Fetch, check, open and store one picture.

        What its host reserves is heeded before anything is stored, and by robots.txt before it is asked. A
        hash list is asked before the picture is opened or stored: a hit leaves its hashes and nothing else.
        """
        forbidden, words = self._forbidden(url)
        if forbidden is not None:
            return Download(outcome=forbidden, attempts=0, opt_out=words)
        try:
            response, attempts = self._ask(url)
        except _GaveUp as error:
            gave_up = Refused(error.reason, str(error))
            return Download(outcome=gave_up, http_status=error.status, attempts=error.attempts)
        refused, reserved = self._reserved(url, response)
        outcome: Opened | Refused = self._opened(url, response) if refused is None else refused
        return Download(
            outcome=outcome,
            path=None if isinstance(outcome, Refused) else self._store(outcome, response.content),
            http_status=response.status,
            attempts=attempts,
            opt_out=reserved,
        )

    def _forbidden(self, url: str) -> tuple[Refused | None, str | None]:
        """Why robots.txt keeps us from an address, and what it says; nothing where it doesn't."""
        if not self._config.honour_opt_out:
            return None, None
        try:
            rule = self._robots.forbids(url)
        except WebError as error:
            reason = error.reason if error.reason in UNREACHABLE else "robots_unknown"
            return Refused(reason, str(error)), None
        return (None, None) if rule is None else (_opted_out(rule), rule)

    def _reserved(self, url: str, response: WebResponse) -> tuple[Refused | None, str | None]:
        """Why an answer may not be used, and what its host reserves: by its headers, or where it sent us to."""
        words = reserved_by_headers(response.headers)
        if not self._config.honour_opt_out:
            return None, words
        if words is not None:
            return _opted_out(words), words
        refused, words = self._forbidden(response.url) if response.url != url else (None, None)
        return refused, words if refused is not None else NOTHING_RESERVED

    def _ask(self, url: str, max_bytes: int | None = None) -> tuple[WebResponse, int]:
        """What an address gives, and how often it was asked.

        Raises:
            _GaveUp: It gave nothing, and won't or didn't at the last attempt.
        """
        attempt = 1
        while True:
            try:
                return self._web.fetch(url, max_bytes=max_bytes), attempt
            except WebError as error:
                if attempt >= ATTEMPTS or not may_answer_later(error.reason, error.status):
                    raise _GaveUp(error, attempt) from None
                self._wait(_pause_s(attempt, error))
                attempt += 1

    def _opened(self, url: str, response: WebResponse) -> Opened | Refused:
        sha256, md5 = hashlib.sha256(response.content).hexdigest(), md5_of(response.content)
        rule = self._lists.blocks(url=response.url, sha256=sha256, md5=md5)
        if rule is not None:
            return Refused(rule, "on a list", sha256, md5)
        outcome = self._openers.content(url, response.content, self._config.max_side_px)
        if isinstance(outcome, Opened) and self._lists.blocks(pdq=outcome.pdq) is not None:
            return Refused("hash_block", "on a list by its look", sha256, md5, outcome.pdq)
        return outcome

    def _store(self, opened: Opened, content: bytes) -> Path:
        path = self._run.original(opened.sha256, SUFFIXES[opened.format])
        if not path.is_file():
            self._budget.take(opened.size_bytes)
            publish_bytes(path, content if opened.content is None else opened.content)
        return path


class _GaveUp(WebError):
    """An address that gave nothing, and how often it was asked."""

    def __init__(self, error: WebError, attempts: int) -> None:
        super().__init__(error.reason, str(error), retry_after_s=error.retry_after_s, status=error.status)
        self.attempts = attempts


def may_answer_later(reason: str | None, status: int | None) -> bool:
    """Whether an address that gave nothing may be worth another try.

    Args:
        reason: Why it gave nothing; None if it gave a picture.
        status: Its HTTP status, None where there was no answer.
    """
    return reason in LATER or (reason == "http_error" and status in _LATER_STATUS)


def _opted_out(words: str) -> Refused:
    return Refused("opted_out", f"its host reserves it: {words}")


def _pause_s(attempt: int, error: WebError) -> float:
    """Seconds before the next attempt: as asked for, else longer each time, spread so that many don't come at once."""
    if error.retry_after_s is not None:
        return min(error.retry_after_s, _LONGEST_WAIT_S)
    return float(_FIRST_WAIT_S * 2 ** (attempt - 1)) * random.uniform(0.5, 1.5)
