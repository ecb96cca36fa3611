"""Who may ask: a token where one is set, and only by the server's own names on the loopback.

A browser page of a foreign site can point its own name at 127.0.0.1 (DNS rebinding); its requests then
carry that name as Host and are refused.
"""

import hashlib
import hmac
from collections.abc import Collection

import orjson
from starlette.types import ASGIApp, Message, Receive, Scope, Send

LOOPBACK = ("127.0.0.1", "localhost", "::1")
"""Names and addresses of this machine to itself."""

OPEN_PATHS = ("/live", "/ready")
"""Probes, answered without a token."""


class Guard:
    """ASGI middleware: 403 for a foreign Host, 401 without the token."""

    def __init__(self, app: ASGIApp, *, token: str = "", hosts: Collection[str] = ()) -> None:
        """Wrap an application.

        Args:
            app: What is guarded.
            token: Bearer token to ask for; empty asks for none.
            hosts: Host names to answer, without ports; empty answers any.
        """
        self._app = app
        self._token = hashlib.sha256(token.encode()).digest() if token else b""
        self._hosts = frozenset(host.lower() for host in hosts)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or refuse it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = dict(scope["headers"])
        if self._hosts and _host_name(headers.get(b"host", b"")) not in self._hosts:
            words = "this server is not asked by that name; its operator can add it to the allowed hosts"
            await _refuse(send, 403, "unknown_host", words)
        elif self._token and scope["path"] not in OPEN_PATHS and not self._allowed(headers):
            await _refuse(send, 401, "unauthorized", "a bearer token is needed: Authorization: Bearer TOKEN")
        else:
            await self._app(scope, receive, _with_nosniff(send))

    def _allowed(self, headers: dict[bytes, bytes]) -> bool:
        kind, _, given = headers.get(b"authorization", b"").partition(b" ")
        # Hashes have one length, so that the comparison's time tells nothing of the token's.
        right = hmac.compare_digest(hashlib.sha256(given.strip()).digest(), self._token)
        return kind.lower() == b"bearer" and right


def _host_name(host: bytes) -> str:
    name = host.decode("latin-1").strip().lower()
    if name.startswith("["):
        return name[1:].partition("]")[0]
    return name.partition(":")[0]


def _with_nosniff(send: Send) -> Send:
    async def sending(message: Message) -> None:
        if message["type"] == "http.response.start":
            message["headers"] = [*message.get("headers", []), (b"x-content-type-options", b"nosniff")]
        await send(message)

    return sending


async def _refuse(send: Send, status: int, code: str, words: str) -> None:
    body = orjson.dumps({"message": words, "code": code})
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    if status == 401:
        headers.append((b"www-authenticate", b"Bearer"))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
