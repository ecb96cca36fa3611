"""The one way to the network for addresses that come from data: public hosts only, pinned, bounded.

A host name is resolved once; every address it has must be public, and the connection goes to such an
address and to no other, so that a name which answers differently the second time gains nothing. Each
redirect is a new address and is checked anew. Host, SNI and certificate stay the name's own; HTTP/2 is spoken with
hosts that offer it. No proxy, cookie or
password is ever used. A total deadline covers look-up, connecting, TLS, headers and body, however
slowly they drip. Addresses from settings (a caption server, a retrieval server) don't come here.
"""

import contextlib
import ipaddress
import ssl
import threading
import time
import zlib
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any

import httpcore
import httpx

from spine.errors import WebError
from spine.pinned import CONNECT_S, Clock, NoAddress, NotPublic, PinnedBackend
from spine.replies import NO_HTTP, Reply

REFUSALS: dict[str, str] = {
    "bad_url": "not an http or https address on an allowed port",
    "not_public": "its host is not on the public network",
    "dns": "its host name has no address",
    "connect": "no connection to its host",
    "tls": "its host's certificate or encryption failed",
    "timeout": "took longer than allowed",
    "too_many_redirects": "sent on from address to address",
    "too_many_bytes": "larger than allowed",
    "gone": "the host says it is not there (404, 410)",
    "http_error": "the host answered with an error",
    "broken_reply": "the reply broke off or was no HTTP",
}
"""Why an address gave nothing; `WebError.reason` is one of these."""

KEPT_HEADERS = ("content-type", "etag", "last-modified", "x-robots-tag", "tdm-reservation")
"""Reply headers worth passing on."""

MAX_REDIRECTS = 3
"""Times an address may send us on."""

_REDIRECTS = (301, 302, 303, 307, 308)
_POOLS = 32
_IDLE = 8  # connections of a pool that may stand idle, for 5 seconds
ROBOTS_TOKEN = "popfactory"
"""How robots.txt and X-Robots-Tag name us."""


def user_agent(contact: str = "") -> str:
    """What we call ourselves to hosts: our name, what we do and whom to ask.

    Args:
        contact: An address or mail, ASCII; empty names nobody.
    """
    whom = f"; contact: {contact}" if contact else ""
    return f"{ROBOTS_TOKEN} (dataset curation; fetches listed pictures once{whom})"


@dataclass(frozen=True, slots=True)
class WebResponse:
    """What an address gave."""

    content: bytes
    """The body, decoded."""
    url: str
    """The address that answered, after redirects."""
    status: int
    headers: dict[str, str]
    """Those of KEPT_HEADERS that came, names in lower case; repeated ones joined by a comma, X-Robots-Tag's
    by a line break, since each may name the agent that it is for."""


class Web:
    """A bounded client for public addresses; safe to share between threads.

    Use as a context manager, or call `close`.
    """

    def __init__(
        self,
        *,
        timeout_s: float = 10.0,
        max_bytes: int = 20_000_000,
        connections: int = 64,
        per_host: int = 4,
        ports: Collection[int] = (80, 443),
        allow: Sequence[str] = (),
        tls: ssl.SSLContext | None = None,
        agent: str | None = None,
    ) -> None:
        """Set the limits; nothing is connected yet.

        Args:
            timeout_s: Seconds for one `fetch` from the look-up to the last byte, redirects included,
                waiting for a free place at the host not.
            max_bytes: Size of a body at most, as sent and as decoded.
            connections: Connections at the same time.
            per_host: Requests at the same time to one host.
            ports: Ports an address may name.
            allow: Networks that are let through though not public, such as "127.0.0.0/8" for a server
                of one's own. Never from data.
            tls: Certificates to trust; None is the usual set.
            agent: What we call ourselves; None is `user_agent()`.
        """
        limits = (timeout_s, max_bytes, connections, per_host, tuple(ports), tuple(allow), tls, agent)
        self._remade: dict[str, Any] = dict(zip(_LIMITS, limits, strict=True))
        self._timeout_s, self._max_bytes, self._ports = timeout_s, max_bytes, frozenset(ports)
        self._clock = Clock()
        self._backend = PinnedBackend(
            self._clock, [ipaddress.ip_network(each) for each in allow], connections
        )
        trusted = tls or httpx.create_ssl_context()
        # Several pools, each for its share of the places at hosts. A pool looks through all its connections under
        # one lock for every request, and of 64 threads nearly all were found waiting for it. And with HTTP/2 it would
        # have requests of several threads share a connection, whose state no lock guards: a place of its own has one.
        self._pools = [
            httpcore.ConnectionPool(
                ssl_context=trusted,
                max_connections=connections,
                http2=True,
                max_keepalive_connections=max(_IDLE, connections // _POOLS),
                keepalive_expiry=5.0,
                network_backend=self._backend,
            )
            for _ in range(max(_POOLS, per_host))
        ]
        self._free = threading.BoundedSemaphore(connections)
        self._hosts = _Places(per_host)
        self._agent = (agent or user_agent()).encode("ascii")

    def __reduce__(self) -> "tuple[Callable[..., Web], tuple[dict[str, Any]]]":
        """In another process: a client of its own within the same limits."""
        return _remade, (self._remade,)

    def __enter__(self) -> "Web":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close every connection."""
        for pool in self._pools:
            pool.close()
        self._backend.close()

    def fetch(self, url: str, *, max_bytes: int | None = None, timeout_s: float | None = None) -> WebResponse:
        """Get one address, following redirects. Retries are the caller's.

        Args:
            url: From data: anything.
            max_bytes: Instead of the client's own limit.
            timeout_s: Instead of the client's own limit.

        Raises:
            WebError: With a reason of REFUSALS, and the reply's status where there was one.
        """
        limit = self._max_bytes if max_bytes is None else max_bytes
        left_s = self._timeout_s if timeout_s is None else timeout_s
        here = self._parse(url)
        for _ in range(MAX_REDIRECTS + 1):
            # The place at one host is given back before the next hop asks for its own: two requests
            # that send each other's hosts on would otherwise wait for each other.
            with self._hosts.place(here.host) as place, self._free:
                started = time.monotonic()
                self._clock.start(left_s)
                reply = self._get(here, limit, place)
                left_s -= time.monotonic() - started
            if isinstance(reply, WebResponse):
                return reply
            here = self._parse(reply, base=here)
        raise WebError("too_many_redirects", f"{url}: sent on more than {MAX_REDIRECTS} times")

    def _parse(self, text: str, base: httpx.URL | None = None) -> httpx.URL:
        try:
            url = httpx.URL(text) if base is None else base.join(text)
            port = url.port or {"http": 80, "https": 443}.get(url.scheme)
        except (httpx.InvalidURL, ValueError, TypeError) as error:
            raise WebError("bad_url", f"{text!r}: no address ({error})") from None
        if url.scheme not in ("http", "https") or not url.raw_host or b"%" in url.raw_host:
            raise WebError("bad_url", f"{text!r}: not an http or https address")
        if url.userinfo:
            raise WebError("bad_url", f"{text!r}: carries a user name or password")
        if port not in self._ports:
            raise WebError("bad_url", f"{text!r}: port {port}, allowed are {sorted(self._ports)}")
        return url

    def _get(self, url: httpx.URL, limit: int, place: int) -> WebResponse | str:
        """The reply, or where it sends us; asked from this place at the host."""
        request = httpcore.Request(
            "GET",
            httpcore.URL(scheme=url.raw_scheme, host=url.raw_host, port=url.port, target=url.raw_path),
            headers=[
                (b"Host", url.netloc),
                (b"User-Agent", self._agent),
                (b"Accept", b"image/*,*/*;q=0.5"),
                (b"Accept-Encoding", b"identity"),
            ],
            extensions={"timeout": {"pool": self._clock.left_s(), "connect": CONNECT_S}},
        )
        with _as_web_error(url), contextlib.closing(Reply(self._ask(request, place))) as reply:
            if not 200 <= reply.status < 300:
                reply.read_out()
            if reply.status in _REDIRECTS and "location" in reply.headers:
                return reply.headers["location"]
            reply.check_status(url)
            body = reply.body(url, limit)
            kept = {name: reply.headers[name] for name in KEPT_HEADERS if name in reply.headers}
            return WebResponse(body, str(url), reply.status, kept)

    def _ask(self, request: httpcore.Request, place: int) -> httpcore.Response:
        """The reply's head. An idle connection that the host closed meanwhile says nothing of the address."""
        pool = self._pools[(zlib.crc32(request.url.host) + place) % len(self._pools)]
        while True:
            self._clock.forget_connecting()
            try:
                return pool.handle_request(request)
            except (httpcore.NetworkError, httpcore.ProtocolError):
                if self._clock.connected:
                    raise


_LIMITS = ("timeout_s", "max_bytes", "connections", "per_host", "ports", "allow", "tls", "agent")


def _remade(limits: dict[str, Any]) -> Web:
    return Web(**limits)


class _Places:
    """So many at the same time to each host; holds nothing of hosts that nobody asks."""

    def __init__(self, per_host: int) -> None:
        self._per_host, self._changed = per_host, threading.Condition()
        self._taken: dict[str, set[int]] = {}

    @contextlib.contextmanager
    def place(self, host: str) -> Iterator[int]:
        """Wait for a place at the host, and give it back at the end; its number, the lowest that is free."""
        with self._changed:
            self._changed.wait_for(lambda: len(self._taken.get(host, ())) < self._per_host)
            taken = self._taken.setdefault(host, set())
            number = next(each for each in range(self._per_host) if each not in taken)
            taken.add(number)
        try:
            yield number
        finally:
            with self._changed:
                self._taken[host].discard(number)
                if not self._taken[host]:
                    del self._taken[host]
                self._changed.notify_all()


@contextlib.contextmanager
def _as_web_error(url: httpx.URL) -> Iterator[None]:
    try:
        yield
    except NotPublic as error:
        raise WebError("not_public", f"{url}: {error}, no public address") from None
    except NoAddress as error:
        raise WebError("dns", f"{url}: {error}") from None
    except (httpcore.ConnectError, httpcore.ConnectTimeout) as error:
        raise WebError("connect", f"{url}: {str(error) or 'no connection in time'}") from None
    except ssl.SSLError as error:
        raise WebError("tls", f"{url}: {error}") from None
    except httpcore.TimeoutException:
        raise WebError("timeout", f"{url}: took longer than allowed") from None
    except (httpcore.NetworkError, *NO_HTTP) as error:
        raise WebError("broken_reply", f"{url}: {error}") from None
