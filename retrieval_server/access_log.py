"""One line of JSON a request: who, what route, how it went. What was asked is nobody's business."""

import asyncio
import logging
import time

import orjson
from starlette.types import ASGIApp, Message, Receive, Scope, Send

_log = logging.getLogger("popfactory.access")

WRITE_S = 0.1
"""Seconds that a line waits for others: written one by one they take as long as a query's way through JSON."""


class AccessLines:
    """Lines to be written. For the event loop alone."""

    def __init__(self) -> None:
        self._lines: list[bytes] = []

    def add(self, line: bytes) -> None:
        """Write a line within WRITE_S."""
        if not self._lines:
            asyncio.get_running_loop().call_later(WRITE_S, self.write)
        self._lines.append(line)

    def write(self) -> None:
        """Write what waits, as one record of the log."""
        if self._lines:
            lines, self._lines = self._lines, []
            _log.info("%s", b"\n".join(lines).decode())


class AccessLog:
    """ASGI middleware that logs each answer, without query strings, bodies and headers."""

    def __init__(self, app: ASGIApp, *, lines: AccessLines) -> None:
        """Wrap an application; `lines` takes what is to be written."""
        self._app = app
        self._lines = lines

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on; log what comes of it."""
        if scope["type"] != "http" or not _log.isEnabledFor(logging.INFO):
            await self._app(scope, receive, send)
            return
        start = time.perf_counter()
        status, size_bytes = 500, 0

        async def sending(message: Message) -> None:
            nonlocal status, size_bytes
            if message["type"] == "http.response.start":
                status = message["status"]
            else:
                size_bytes += len(message.get("body", b""))
            await send(message)

        try:
            await self._app(scope, receive, sending)
        finally:
            client = scope.get("client")
            line = {
                "client": client[0] if client else None,
                "method": scope["method"],
                "path": scope["path"][:200],
                "status": status,
                "bytes": size_bytes,
                "ms": round((time.perf_counter() - start) * 1000, 1),
            }
            self._lines.add(orjson.dumps(line, default=str))
