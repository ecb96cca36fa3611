"""Asking an address for a picture: reservations are heeded, retries wait, lists come before any opening."""

import hashlib
import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from spine.errors import WebError
from spine.lists import BlockLists
from spine.opt_out import UNREACHABLE, RobotsByHost, TdmByHost, reserved_by_headers, root_of
from spine.refused import Refused, md5_of
from spine.robots import MAX_BYTES as ROBOTS_BYTES
from spine.settings import FetchConfig
from spine.web import Web, WebResponse, user_agent

ATTEMPTS = 3
"""Times an address is asked where it might answer later."""

LATER = frozenset({"timeout", "connect", "dns", "broken_reply", "robots_unknown"})
"""Reasons for which an address may answer another time."""

LONGEST_DELAY_S = 10.0
"""A Crawl-delay above this counts as this."""

NOTHING_RESERVED = "none"
"""As opt_out: its host was asked, and reserves nothing."""

_LATER_STATUS = frozenset({408, 425, 429, 500, 502, 503, 504})
_FIRST_WAIT_S = 0.5
_LONGEST_WAIT_S = 30.0


def public_web(config: FetchConfig) -> Web:
    """The way to the public network within the limits of [fetch]."""
    return Web(
        timeout_s=config.timeout_s,
        max_bytes=config.max_bytes,
        connections=config.concurrency,
        per_host=config.per_host,
        agent=user_agent(config.contact),
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class Reply:
    """What one address gave, before anything of it was opened."""

    content: bytes | Refused
    """Its bytes, or why they may not be used."""
    http_status: int | None = None
    attempts: int
    opt_out: str | None = None
    """What its host reserves; NOTHING_RESERVED; None where nobody looked."""


class PoliteWeb:
    """Asks addresses for pictures; may be used from many threads."""

    def __init__(
        self,
        config: FetchConfig,
        web: Web,
        *,
        attempts: int = ATTEMPTS,
        wait: Callable[[float], None] = time.sleep,
    ) -> None:
        """Nothing is asked yet.

        Args:
            config: Whether reservations are honoured.
            web: The way to the network.
            attempts: Times an address is asked where it might answer later.
            wait: Told the seconds between two attempts.
        """
        self._config, self._web, self._attempts, self._wait = config, web, attempts, wait
        self._robots = RobotsByHost(lambda url: self._get(url, ROBOTS_BYTES)[0])
        self._tdm = TdmByHost(lambda url: self._get(url, ROBOTS_BYTES)[0])
        self._turns = _Turns(wait)

    def ask(self, url: str, lists: Callable[[], BlockLists]) -> Reply:
        """What an address gives.

        What its host reserves is heeded before anything is used, and by robots.txt before it is asked. The
        hash lists are asked before anybody opens it: a hit leaves its hashes and nothing else.

        Args:
            url: The address.
            lists: Gives those in force once the answer is there.

        Raises:
            ConfigError: `lists` can't read one.
        """
        forbidden, words = self._forbidden(url)
        if forbidden is not None:
            return Reply(content=forbidden, attempts=0, opt_out=words)
        try:
            self._await_turn(url)
            response, attempts = self._get(url)
        except _GaveUp as error:
            gave_up = Refused(error.reason, str(error))
            return Reply(content=gave_up, http_status=error.status, attempts=error.attempts)
        refused, reserved = self._reserved(url, response)
        return Reply(
            content=refused or _listed(response, lists()) or response.content,
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
        if refused is None:
            refused, words = self._reserved_by_file(response)
        return refused, words if refused is not None else NOTHING_RESERVED

    def _reserved_by_file(self, response: WebResponse) -> tuple[Refused | None, str | None]:
        """The same by the host's tdmrep.json; asked for only where the host gave something."""
        try:
            words = self._tdm.reserves(response.url)
        except WebError as error:
            return Refused("robots_unknown", str(error)), None
        return (None, None) if words is None else (_opted_out(words), words)

    def _await_turn(self, url: str) -> None:
        """Leave the host the time between two requests that it asks for."""
        if self._config.honour_opt_out:
            self._turns.wait_for(root_of(url), min(self._robots.delay_s(url), LONGEST_DELAY_S))

    def _get(self, url: str, max_bytes: int | None = None) -> tuple[WebResponse, int]:
        """What an address gives, and how often it was asked.

        Raises:
            _GaveUp: It gave nothing, and won't or didn't at the last attempt.
        """
        attempt = 1
        while True:
            try:
                return self._web.fetch(url, max_bytes=max_bytes), attempt
            except WebError as error:
                if attempt >= self._attempts or not may_answer_later(error.reason, error.status):
                    raise _GaveUp(error, attempt) from None
                self._wait(_pause_s(attempt, error))
                attempt += 1


class _Turns:
    """When each host may be asked again."""

    def __init__(self, wait: Callable[[float], None]) -> None:
        self._wait, self._lock = wait, threading.Lock()
        self._next: dict[str | None, float] = {}

    def wait_for(self, host: str | None, delay_s: float) -> None:
        """Wait for this host's next turn, and take it."""
        if not delay_s:
            return
        with self._lock:
            now = time.monotonic()
            turn = max(now, self._next.get(host, now))
            self._next[host] = turn + delay_s
        if turn > now:
            self._wait(turn - now)


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


def listed_content(content: bytes, lists: BlockLists, url: str | None = None) -> Refused | None:
    """Why bytes may not even be opened: the lists name them, or the address that gave them."""
    sha256, md5 = hashlib.sha256(content).hexdigest(), md5_of(content)
    rule = lists.blocks(url=url, sha256=sha256, md5=md5)
    return None if rule is None else Refused(rule, "on a list", sha256, md5)


def listed_look(content: bytes, pdq: str | None) -> Refused:
    """As listed_content, for bytes whose look a list names."""
    sha256, md5 = hashlib.sha256(content).hexdigest(), md5_of(content)
    return Refused("hash_block", "on a list by its look", sha256, md5, pdq)


def _listed(response: WebResponse, lists: BlockLists) -> Refused | None:
    return listed_content(response.content, lists, response.url)


def _opted_out(words: str) -> Refused:
    return Refused("opted_out", f"its host reserves it: {words}")


def _pause_s(attempt: int, error: WebError) -> float:
    """Seconds before the next attempt: as asked for, else longer each time, spread so that many don't come at once."""
    if error.retry_after_s is not None:
        return min(error.retry_after_s, _LONGEST_WAIT_S)
    return float(_FIRST_WAIT_S * 2 ** (attempt - 1)) * random.uniform(0.5, 1.5)
