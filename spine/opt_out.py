"""What hosts reserve: whether a picture may be taken, and the words that say so.

Four ways to say it are read: robots.txt before an address is asked, X-Robots-Tag and TDM-Reservation in its
answer, and then the host's /.well-known/tdmrep.json. The directives are those that img2dataset honours, so
that a dataset made here leaves out what one made with it does.

Sources: RFC 9309 (robots.txt); rom1504/img2dataset, README, "Opt-out directives"; W3C Community Group,
"TDM Reservation Protocol", 2024.
"""

import json
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from typing import Generic, TypeVar
from urllib.parse import urlsplit

from spine.errors import WebError
from spine.robots import Robots, parse_robots
from spine.web import ROBOTS_TOKEN, WebResponse

T = TypeVar("T")

DIRECTIVES = frozenset({"noai", "noimageai", "noindex", "noimageindex"})
"""Of X-Robots-Tag: each keeps a picture out."""

UNREACHABLE = frozenset({"dns", "connect", "tls"})
"""Reasons for which a host that gives no robots.txt would give no picture either."""

_WITH_VALUE = frozenset({"unavailable_after", "max-snippet", "max-image-preview", "max-video-preview"})
_NO_RULES = frozenset({"gone", "too_many_redirects", "bad_url", "not_public"})
_KEPT_HOSTS = 50_000  # hosts whose robots.txt is remembered


def reserved_by_headers(headers: Mapping[str, str]) -> str | None:
    """The header that keeps a picture out, such as "x-robots-tag: noai"; None where none does.

    Args:
        headers: As `spine.web` gives them.
    """
    for line in headers.get("x-robots-tag", "").splitlines():
        directive = _directive(line)
        if directive is not None:
            return f"x-robots-tag: {directive}"
    # A comma where the header came twice: one reservation is enough.
    if "1" in (part.strip() for part in headers.get("tdm-reservation", "").split(",")):
        return "tdm-reservation: 1"
    return None


def _directive(line: str) -> str | None:
    """The first directive of one X-Robots-Tag that keeps us out."""
    for_us = True
    for part in line.lower().split(","):
        name, colon, rest = part.strip().partition(":")
        if colon and name.strip() not in _WITH_VALUE:
            for_us = name.strip() in (ROBOTS_TOKEN, "*")
            name = rest.strip()
        if for_us and name in DIRECTIVES:
            return name
    return None


class _ByHost(Generic[T]):
    """What each host says, asked for once; the hosts asked longest ago are forgotten."""

    def __init__(self, read: Callable[[str], T]) -> None:
        self._read = read
        self._lock = threading.Lock()
        self._known: dict[str, Future[T]] = {}

    def of(self, root: str) -> T:
        """What this host says; whoever asks meanwhile waits for the same answer."""
        with self._lock:
            found = self._known.get(root)
            asks = found is None
            if found is None:
                if len(self._known) >= _KEPT_HOSTS:
                    self._known.pop(next(iter(self._known)))
                found = self._known[root] = Future()
        if asks:
            try:
                found.set_result(self._read(root))
            except BaseException as error:
                found.set_exception(error)  # those who wait are told too
                raise
        return found.result()


class RobotsByHost:
    """The robots.txt of each host, asked for once; may be asked from many threads."""

    def __init__(self, ask: Callable[[str], WebResponse]) -> None:
        """Nothing is asked yet.

        Args:
            ask: Gets an address, with whatever retries; raises WebError.
        """
        self._hosts = _ByHost(lambda root: _robots(ask, root))

    def forbids(self, url: str) -> str | None:
        """The rule of its host's robots.txt that keeps us from an address, None where none does.

        A missing robots.txt forbids nothing.

        Raises:
            WebError: It can't be had now; whether the address may be asked nobody knows.
        """
        root = root_of(url)
        rule = None if root is None else self._hosts.of(root).forbids(url)
        return None if rule is None else f"robots.txt: {rule}"

    def delay_s(self, url: str) -> float:
        """Seconds that its host's robots.txt wants between two requests, 0 where it says nothing of it.

        Raises:
            WebError: As `forbids`.
        """
        root = root_of(url)
        return 0.0 if root is None else self._hosts.of(root).crawl_delay_s


class TdmByHost:
    """The /.well-known/tdmrep.json of each host, asked for once; may be asked from many threads."""

    def __init__(self, ask: Callable[[str], WebResponse]) -> None:
        """Nothing is asked yet.

        Args:
            ask: As RobotsByHost's.
        """
        self._hosts = _ByHost(lambda root: _tdm_locations(ask, root))

    def reserves(self, url: str) -> str | None:
        """The location in its host's tdmrep.json that reserves an address, None where none does.

        Raises:
            WebError: It can't be had now.
        """
        root = root_of(url)
        if root is None:
            return None
        robots = Robots(tuple((False, location) for location in self._hosts.of(root)))
        rule = robots.forbids(url)
        return None if rule is None else f"tdmrep.json: {rule.removeprefix('Disallow: ')}"


def root_of(url: str) -> str | None:
    """Scheme and host of an address, None where it is none: who asks it will be told."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return None
    if parts.scheme not in ("http", "https") or not parts.netloc or "@" in parts.netloc:
        return None
    return f"{parts.scheme}://{parts.netloc.lower()}"


def _robots(ask: Callable[[str], WebResponse], root: str) -> Robots:
    content = _file_of(ask, f"{root}/robots.txt")
    return Robots() if content is None else parse_robots(content, ROBOTS_TOKEN)


def _tdm_locations(ask: Callable[[str], WebResponse], root: str) -> tuple[str, ...]:
    """The locations that are reserved, as patterns like those of robots.txt."""
    content = _file_of(ask, f"{root}/.well-known/tdmrep.json")
    try:
        entries = json.loads(content or b"[]")
    except (ValueError, RecursionError):
        return ()  # no such file: a page that says "not found", for instance
    return tuple(
        entry["location"]
        for entry in (entries if isinstance(entries, list) else [])
        if isinstance(entry, dict)
        and isinstance(entry.get("location"), str)
        and entry.get("tdm-reservation") in (1, "1")
    )


def _file_of(ask: Callable[[str], WebResponse], url: str) -> bytes | None:
    """A host's file, None where it says that it has none.

    Raises:
        WebError: Nobody knows.
    """
    try:
        return ask(url).content
    except WebError as error:
        said_no = error.status is not None and 400 <= error.status < 500 and error.status != 429
        if error.reason in _NO_RULES or (error.reason == "http_error" and said_no):
            return None
        raise
