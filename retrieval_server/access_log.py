"""One line of JSON a request: who, what route, how it went. What was asked is nobody's business."""

import logging
import time

import orjson
from starlette.types import ASGIApp, Message, Receive, Scope, Send

_log = logging.getLogger("popfactory.access")


class AccessLog:
    """ASGI middleware that logs each answer, without query strings, bodies and headers."""

    def __init__(self, app: ASGIApp) -> None:
        """Wrap an application."""
        self._app = app

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
            _log.info("%s", orjson.dumps(line, default=str).decode())
