"""Who may ask for what: the checks in front of every page and route, and the headers behind every reply.

Pure ASGI, since Starlette's BaseHTTPMiddleware breaks streamed replies.
"""

import ipaddress
import time
from collections.abc import Sequence
from http.cookies import CookieError, SimpleCookie
from urllib.parse import parse_qs, urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ui.tokens import Token, find_by_cookie, find_by_secret

POLICY = (
    "default-src 'self'; img-src 'self' data: blob:; connect-src 'self'; "
    "script-src 'self' 'unsafe-inline' 'unsafe-eval'; style-src 'self' 'unsafe-inline'; "
    "font-src 'self' data:; worker-src 'self' blob:; object-src 'none'; base-uri 'self'; frame-ancestors 'none'"
)
"""Guards privacy (no address but ours is ever contacted), not against scripts: Gradio needs both unsafe words."""

WRITE_HEADER = "x-popfactory"
"""A header of our own on every write: a form on another site can't send one."""

_GRADIO_ALLOWED = frozenset({"/gradio_api/queue/join", "/gradio_api/queue/data"})
_COOKIE = "popfactory"
_TRIES_A_MINUTE = 10
_MAX_FORM_BYTES = 4096


class SecurityHeaders:
    """Add the policy to every reply."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers["Content-Security-Policy"] = POLICY
                headers["X-Content-Type-Options"] = "nosniff"
                headers["Referrer-Policy"] = "no-referrer"
            await send(message)

        await self._app(scope, receive, with_headers if scope["type"] == "http" else send)


class Guard:
    """Let a request through only from our own pages, and with the token where there is one.

    - Without a token, only requests to a loopback name: another site whose name was pointed here
      (DNS rebinding) has another Host.
    - Under /gradio_api only what our pages use: the rest can read files and ask other servers.
    - A write needs JSON, our own header, and no foreign Origin.
    - With tokens, every path but /login needs the cookie that /login gives for one; one that reads can't write.
      `request.state.curator` is the token's name then, None without tokens; `roles` are all names and scopes.
    """

    def __init__(self, app: ASGIApp, *, tokens: Sequence[Token] = ()) -> None:
        self._app = app
        self._tokens = tuple(tokens)
        self._tries: list[float] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, or refuse it."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
        elif scope["type"] == "http":
            refusal = await self._answer(scope, receive)
            await (refusal or self._app)(scope, receive, send)
        else:  # our pages open no websocket
            await send({"type": "websocket.close"})

    async def _answer(self, scope: Scope, receive: Receive) -> Response | None:
        """Our own answer, None to let the request through."""
        headers = Headers(scope=scope)
        base = str(scope.get("root_path", ""))
        path = str(scope["path"]).removeprefix(base) or "/"
        if not self._tokens and not is_loopback(_host_name(headers.get("host", ""))):
            return _refuse(403, "without a token the board answers under localhost and 127.0.0.1 only")
        if path.startswith("/gradio_api") and path not in _GRADIO_ALLOWED:
            return _refuse(404, "not here")
        # Not /login: under our referrer policy a form says "null" for its origin, and a token is no secret of ours.
        if scope["method"] not in ("GET", "HEAD") and path != "/login" and _foreign(headers):
            return _refuse(403, "another site's page may not write here")
        state = scope.setdefault("state", {})
        state["curator"], state["may_write"] = None, True
        state["roles"] = [{"name": each.name, "scope": each.scope} for each in self._tokens]
        if self._tokens:
            if path == "/login":
                return await self._login(scope, receive, base)
            token = find_by_cookie(self._tokens, _cookie(headers))
            if token is None:
                wants_page = "text/html" in headers.get("accept", "")
                return (
                    RedirectResponse(f"{base}/login", 303)
                    if wants_page
                    else _refuse(401, f"log in at {base}/login")
                )
            state["curator"], state["may_write"] = token.name, token.scope == "write"
        if path.startswith("/api/") and scope["method"] not in ("GET", "HEAD"):
            if not state["may_write"]:
                return _refuse(403, "this token reads only; ask for one that writes")
            if WRITE_HEADER not in headers:
                return _refuse(403, f"a write needs the header {WRITE_HEADER}")
            if headers.get("content-type", "").split(";")[0].strip() != "application/json":
                return _refuse(415, "a write needs Content-Type: application/json")
        return None

    async def _login(self, scope: Scope, receive: Receive, base: str) -> Response:
        if scope["method"] != "POST":
            return HTMLResponse(_LOGIN_PAGE.replace("WORD", ""))
        now = time.monotonic()
        self._tries = [tried for tried in self._tries if now - tried < 60]
        if len(self._tries) >= _TRIES_A_MINUTE:
            return HTMLResponse(_LOGIN_PAGE.replace("WORD", "Too many tries; wait a minute."), 429)
        given = parse_qs((await _body(receive)).decode("utf-8", "replace")).get("token", [""])[0]
        token = find_by_secret(self._tokens, given)
        if token is None:
            self._tries.append(now)
            return HTMLResponse(_LOGIN_PAGE.replace("WORD", "That is not the token."), 403)
        reply = RedirectResponse(f"{base}/", 303)
        secure = scope.get("scheme") == "https"
        reply.set_cookie(
            _COOKIE,
            token.cookie(),
            httponly=True,
            samesite="lax",
            secure=secure,
            path=f"{base}/",
            max_age=30 * 86_400,
        )
        return reply


def _cookie(headers: Headers) -> str:
    try:
        morsel = SimpleCookie(headers.get("cookie", "")).get(_COOKIE)
    except CookieError:
        return ""
    return morsel.value if morsel is not None else ""


def is_loopback(host: str) -> bool:
    """Whether an address to listen on can be reached from this machine only."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _host_name(host: str) -> str:
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""


def _foreign(headers: Headers) -> bool:
    """Whether a request says that it comes from another site's page."""
    origin = headers.get("origin")
    if headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none"):
        return True
    return origin is not None and urlsplit(origin).netloc != headers.get("host", "")


def _refuse(status: int, message: str) -> Response:
    return JSONResponse({"error": message}, status)


async def _body(receive: Receive) -> bytes:
    content = b""
    while len(content) <= _MAX_FORM_BYTES:
        message = await receive()
        content += message.get("body", b"")
        if not message.get("more_body"):
            break
    return content[:_MAX_FORM_BYTES]


_LOGIN_PAGE = """<!doctype html><html lang="en"><meta charset="utf-8"><title>popfactory</title>
<meta name="viewport" content="width=device-width"><meta name="color-scheme" content="light dark">
<link rel="icon" href="data:,">
<style>body{font:16px/1.5 system-ui,sans-serif;max-width:22rem;margin:15vh auto;padding:0 1rem}
input,button{font:inherit;width:100%;padding:.5rem;margin-top:.5rem;box-sizing:border-box}</style>
<h1>popfactory</h1><form method="post"><label>Token of this board
<input type="password" name="token" autocomplete="current-password" autofocus required></label>
<button>Open</button><p role="alert">WORD</p></form></html>"""
