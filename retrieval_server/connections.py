"""Connections that can't be held open for nothing: deadlines, a limit on headers, and a limit on their number.

uvicorn alone waits without end for a request's headers and for a client that doesn't read its answer.
"""

import asyncio
import logging
from collections.abc import Callable
from typing import Any

import orjson
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

HEADERS_S = 10.0
"""From a connection's, or a request's, first byte to the end of its headers."""

IDLE_S = 75
"""Between requests."""

UNREAD_S = 30.0
"""For a client to go on reading its answer."""

MAX_HEADER_BYTES = 65_536
"""Request line and headers together, to the size of one read."""

MAX_CONNECTIONS = 512
"""At the same time; whoever comes then is told to come again."""

_log = logging.getLogger("popfactory.server")


class BoundedConnection(HttpToolsProtocol):
    """uvicorn's connection over httptools, with limits."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._deadline: asyncio.TimerHandle | None = None
        self._unread: asyncio.TimerHandle | None = None
        self._header_bytes = 0
        self._in_headers = True

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Take a place, or say that there is none."""
        super().connection_made(transport)
        if len(self.connections) > MAX_CONNECTIONS:
            words = "this server has as many connections as it takes; try again"
            self._refuse(503, "busy", words, b"retry-after: 1\r\n")
        else:
            self._expect_headers()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the deadlines."""
        self._headers_are_here()
        self._answer_is_read()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Read on; what comes outside a request has to become one in time."""
        if self.transport.is_closing():
            return
        if self._in_headers:
            self._header_bytes += len(data)
        super().data_received(data)
        if self.transport.is_closing():
            return
        if self._in_headers and self._header_bytes > MAX_HEADER_BYTES:
            self._refuse(
                431, "headers_too_large", f"the headers are larger than {MAX_HEADER_BYTES // 1024} KB"
            )
        elif self._deadline is None and not self._answering:
            self._expect_headers()

    def on_message_begin(self) -> None:
        """A request begins."""
        super().on_message_begin()
        self._in_headers = True
        if self._deadline is None:
            self._expect_headers()

    def on_headers_complete(self) -> None:
        """Its headers are here; its body has a deadline of its own."""
        self._in_headers, self._header_bytes = False, 0
        self._headers_are_here()
        super().on_headers_complete()

    def pause_writing(self) -> None:
        """The client is slower than the answer."""
        super().pause_writing()
        self._unread = self._after(UNREAD_S, self.transport.abort)

    def resume_writing(self) -> None:
        """It has caught up."""
        self._answer_is_read()
        super().resume_writing()

    def send_400_response(self, msg: str) -> None:
        """What is no HTTP is told so in JSON, as all else."""
        self._refuse(400, "bad_http", msg)

    @property
    def _answering(self) -> bool:
        cycle: RequestResponseCycle | None = self.cycle
        return cycle is not None and not cycle.response_complete

    def _expect_headers(self) -> None:
        words = f"the headers took longer than {HEADERS_S:g} s"
        self._deadline = self._after(HEADERS_S, lambda: self._refuse(408, "headers_too_slow", words))

    def _headers_are_here(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _answer_is_read(self) -> None:
        if self._unread is not None:
            self._unread.cancel()
            self._unread = None

    def _after(self, seconds: float, then: Callable[[], object]) -> asyncio.TimerHandle:
        return self.loop.call_later(seconds, then)

    def _refuse(self, status: int, code: str, words: str, more: bytes = b"") -> None:
        """Answer without the application, and hang up."""
        if self.transport.is_closing():
            return
        if not (self._answering and self.cycle.response_started):  # else an answer is on its way already
            body = orjson.dumps({"message": words, "code": code})
            head = b"content-type: application/json\r\ncontent-length: %d\r\nconnection: close\r\n" % len(
                body
            )
            self.transport.write(STATUS_LINE[status] + head + more + b"\r\n" + body)
            if self._answering:
                self.cycle.disconnected = True  # what the application may still say goes nowhere
        self.transport.close()
