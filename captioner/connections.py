"""Connections to one caption server: HTTP/1.1 in as few steps as there are.

A client for all of the web takes a millisecond of Python for an answer and the request after it. Of hundreds in flight
many answers come at once, and each would wait for those before it while its place at the server stands empty. Here a
request is written where it is made, of pieces that are there already, and its answer is read by httptools.
"""

import asyncio
import base64
import functools
import ssl
import time
from collections.abc import Sequence
from typing import cast
from urllib.parse import unquote

import httptools
import httpx

from captioner.answers import MAX_ANSWER_BYTES, Answered, BrokenOff, Unreachable

CONNECT_S = 10.0
"""Seconds until a server that takes no connection counts as one that can't be reached."""

KEPT_OPEN_S = 4.0
"""An idle connection is used again so long: many servers close theirs after five seconds."""

_CONNECTING = 8  # connections that are opened at the same time: some servers let few wait
_HEAD_BYTES = 1 << 16


class Connections:
    """The connections to one server, as many as requests go at the same time; used by one event loop."""

    def __init__(self, endpoint: str, key: str = "") -> None:
        """Open none yet.

        Args:
            endpoint: Its address up to and without /chat/completions.
            key: Sent as a bearer token; empty sends none.
        """
        url = httpx.URL(endpoint)
        secure = url.scheme == "https"
        self._host, self._port = url.raw_host.decode("ascii"), url.port or (443 if secure else 80)
        self._tls = certificates() if secure else None
        self._head = _head(url, key)
        self._idle: list[_Connection] = []
        self._open: set[_Connection] = set()
        self._connecting = asyncio.Semaphore(_CONNECTING)

    async def post(self, body: Sequence[bytes]) -> Answered:
        """Ask for a chat completion.

        Args:
            body: The request's JSON, in pieces.

        Raises:
            Unreachable: No connection comes about.
            BrokenOff: The connection ends before the answer does, or what comes is no HTTP.
        """
        connection = self._kept_open() or await self._connected()
        try:
            return await connection.ask([b"%s%d\r\n\r\n" % (self._head, sum(map(len, body))), *body])
        finally:
            if connection.usable:
                self._idle.append(connection)
            else:
                self._drop(connection)

    async def close(self) -> None:
        """Close them all, whatever they wait for."""
        for connection in list(self._open):
            self._drop(connection)

    def _kept_open(self) -> "_Connection | None":
        """The one that was used last, or None where none can be used any more."""
        while self._idle:
            connection = self._idle.pop()
            if connection.usable and time.monotonic() - connection.idle_since < KEPT_OPEN_S:
                return connection
            self._drop(connection)
        return None

    async def _connected(self) -> "_Connection":
        try:
            async with self._connecting, asyncio.timeout(CONNECT_S):
                _, connection = await asyncio.get_running_loop().create_connection(
                    _Connection,
                    self._host,
                    self._port,
                    ssl=self._tls,
                    server_hostname=self._host if self._tls is not None else None,
                )
        except OSError as error:  # a TimeoutError too, which says nothing
            raise Unreachable(str(error) or f"no connection within {CONNECT_S:.0f} s") from None
        self._open.add(connection)
        return connection

    def _drop(self, connection: "_Connection") -> None:
        self._open.discard(connection)
        connection.abort()


class _Connection(asyncio.Protocol):
    """One connection, and the answer that it waits for; the methods on_... are httptools'."""

    def __init__(self) -> None:
        self.usable = True
        """Whether another request may be sent on it."""
        self.idle_since = 0.0
        """When its last answer was whole, of time.monotonic."""
        self._transport: asyncio.Transport | None = None
        self._waiting: asyncio.Future[Answered] | None = None
        self._retry_after: str | None = None
        self._parser = httptools.HttpResponseParser(self)  # one for all answers: each with its own is a ring
        self._reset()

    async def ask(self, request: Sequence[bytes]) -> Answered:
        """Send a request and wait for its answer.

        Raises:
            BrokenOff: There won't be one.
        """
        assert self._transport is not None and self._waiting is None
        self._reset()
        self._waiting = asyncio.get_running_loop().create_future()
        try:
            self._transport.writelines(request)
            return await self._waiting
        except BaseException:  # what is given up may still be answered, to nobody
            self.usable = False
            raise
        finally:
            self._waiting, self.idle_since = None, time.monotonic()

    def abort(self) -> None:
        """Close it at once."""
        self.usable = False
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """It is open."""
        self._transport = cast(asyncio.Transport, transport)  # uvloop's are none by their class
        self._transport.set_write_buffer_limits(
            high=0
        )  # a request is written now, not when the loop comes round

    def connection_lost(self, error: Exception | None) -> None:
        """It is closed; where no length was told, that is the answer's end."""
        self.usable = False
        if self._begun and not self._bounded and error is None:
            self._finish()
        else:
            self._fail(str(error) if error else "closed before its answer was whole")

    def data_received(self, data: bytes) -> None:
        """A piece of an answer."""
        self._bytes += len(data)
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            self.usable = False
            self._fail(f"no HTTP: {error}")
        if self._bytes > MAX_ANSWER_BYTES + _HEAD_BYTES:
            self.abort()
            if self._begun:
                self._finish()
            else:
                self._fail("headers without end")

    def on_message_begin(self) -> None:
        """An answer begins; one that nobody asked for spoils the connection."""
        if self._waiting is None or self._waiting.done():
            self.usable = False

    def on_header(self, name: bytes, value: bytes) -> None:
        """A header."""
        match name.lower():
            case b"content-length" | b"transfer-encoding":
                self._bounded = True
            case b"retry-after":
                self._retry_after = value.decode("latin-1")

    def on_headers_complete(self) -> None:
        """The body begins."""
        self._status = self._parser.get_status_code()
        self._begun = True

    def on_body(self, body: bytes) -> None:
        """A piece of the body; what is beyond any caption's need is left out."""
        if len(self._content) < MAX_ANSWER_BYTES:
            self._content += body

    def on_message_complete(self) -> None:
        """The answer is whole, or said that another follows."""
        if 100 <= self._status < 200:
            self._reset()
            return
        self.usable = self.usable and self._parser.should_keep_alive()
        self._finish()

    def _reset(self) -> None:
        self._begun = self._bounded = False
        self._status = self._bytes = 0
        self._retry_after = None
        self._content = bytearray()

    def _finish(self) -> None:
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_result(Answered(self._status, self._retry_after, bytes(self._content)))

    def _fail(self, why: str) -> None:
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_exception(BrokenOff(why))


@functools.cache
def certificates() -> ssl.SSLContext:
    """Who is trusted, as httpx has it: certifi's list, or what SSL_CERT_FILE and SSL_CERT_DIR name."""
    return httpx.create_ssl_context()  # reading them takes longer than all else of a connection


def request_headers(key: str) -> dict[str, str]:
    """What each request says of itself, but for its length and the server's name."""
    headers = {
        "user-agent": "popfactory",
        "accept": "application/json",
        "accept-encoding": "identity",  # without it a server may compress as it likes
        "content-type": "application/json",
    }
    return headers | ({"authorization": f"Bearer {key}"} if key else {})


def _head(url: httpx.URL, key: str) -> bytes:
    """A request up to the number of its bytes."""
    headers = {"host": url.netloc.decode("ascii"), **request_headers(key)}
    if url.userinfo and not key:
        headers["authorization"] = "Basic " + base64.b64encode(unquote(url.userinfo).encode()).decode("ascii")
    target = url.raw_path.decode("ascii")
    lines = [f"POST {target}/chat/completions HTTP/1.1"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "content-length: "]).encode("ascii")
