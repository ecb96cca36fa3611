"""What hosts reserve: whether a picture may be taken, and the words that say so.

Three ways to say it are read: robots.txt before an address is asked, X-Robots-Tag and TDM-Reservation in
its answer. The directives are those that img2dataset honours, so that a dataset made here leaves out
what one made with it does.

Sources: RFC 9309 (robots.txt); rom1504/img2dataset, README, "Opt-out directives"; W3C Community Group,
"TDM Reservation Protocol", 2024.
"""

import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from urllib.parse import urlsplit

from spine.errors import WebError
from spine.robots import Robots, parse_robots
from spine.web import ROBOTS_TOKEN, WebResponse

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


class RobotsByHost:
    """The robots.txt of each host, asked for once; may be asked from many threads."""

    def __init__(self, ask: Callable[[str], WebResponse]) -> None:
        """Nothing is asked yet.

        Args:
            ask: Gets an address, with whatever retries; raises WebError.
        """
        self._ask = ask
        self._lock = threading.Lock()
        self._known: dict[str, Future[Robots]] = {}

    def forbids(self, url: str) -> str | None:
        """The rule of its host's robots.txt that keeps us from an address, None where none does.

        A missing robots.txt forbids nothing.

        Raises:
            WebError: It can't be had now; whether the address may be asked nobody knows.
        """
        try:
            parts = urlsplit(url)
            root = f"{parts.scheme}://{parts.netloc.lower()}"
        except ValueError:
            return None  # no address: who asks it will be told
        if parts.scheme not in ("http", "https") or not parts.netloc or "@" in parts.netloc:
            return None
        rule = self._of(root).forbids(url)
        return None if rule is None else f"robots.txt: {rule}"

    def _of(self, root: str) -> Robots:
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

    def _read(self, root: str) -> Robots:
        try:
            response = self._ask(f"{root}/robots.txt")
        except WebError as error:
            said_no = error.status is not None and 400 <= error.status < 500 and error.status != 429
            if error.reason in _NO_RULES or (error.reason == "http_error" and said_no):
                return Robots()
            raise
        return parse_robots(response.content, ROBOTS_TOKEN)
