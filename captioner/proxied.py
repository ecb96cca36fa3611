"""A caption server behind a proxy that the environment names: asked through httpx, which knows proxies."""

import urllib.request
from collections.abc import Sequence

import httpx

from captioner.answers import MAX_ANSWER_BYTES, Answered, BrokenOff, Unreachable
from captioner.connections import CONNECT_S, certificates, request_headers

_HERE = ("127.0.0.1", "localhost", "::1")


def needs_proxy(endpoint: str) -> bool:
    """Whether the environment (HTTPS_PROXY, NO_PROXY and so on) puts a proxy in front of an endpoint.

    None is in front of this machine.
    """
    url = httpx.URL(endpoint)
    if url.host in _HERE or urllib.request.proxy_bypass(url.host):
        return False
    proxies = urllib.request.getproxies()
    return bool(proxies.get(url.scheme) or proxies.get("all"))


class ProxiedConnections:
    """As `captioner.connections.Connections`; each request takes a millisecond more."""

    def __init__(self, endpoint: str, key: str, in_flight: int) -> None:
        """Open none yet.

        Args:
            endpoint: Its address up to and without /chat/completions.
            key: Sent as a bearer token; empty sends none.
            in_flight: Connections at most.
        """
        self._address = f"{endpoint}/chat/completions"
        self._client = httpx.AsyncClient(
            verify=certificates(),
            timeout=httpx.Timeout(None, connect=CONNECT_S),  # who asks holds the clock
            headers=request_headers(key),
            limits=httpx.Limits(max_connections=in_flight, max_keepalive_connections=in_flight),
        )

    async def post(self, body: Sequence[bytes]) -> Answered:
        """Ask for a chat completion; see `captioner.connections.Connections.post`."""
        try:
            async with self._client.stream("POST", self._address, content=b"".join(body)) as response:
                content = await _bounded_body(response)
                return Answered(response.status_code, response.headers.get("retry-after"), content)
        except (httpx.ConnectError, httpx.ConnectTimeout, httpx.ProxyError) as error:
            raise Unreachable(str(error)) from None
        except httpx.HTTPError as error:
            raise BrokenOff(f"{type(error).__name__}: {error}") from None

    async def close(self) -> None:
        """Close them all."""
        await self._client.aclose()


async def _bounded_body(response: httpx.Response) -> bytes:
    """An answer's body, cut off behind what any caption needs."""
    content = bytearray()
    async for chunk in response.aiter_bytes():
        content += chunk
        if len(content) > MAX_ANSWER_BYTES:
            break
    return bytes(content)
