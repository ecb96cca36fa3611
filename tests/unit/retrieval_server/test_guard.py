import asyncio

import httpx
import pytest
from starlette.responses import PlainTextResponse

from retrieval_server.guard import LOOPBACK, Guard
from retrieval_server.serving import is_loopback, serve
from retrieval_server.settings import ServerSettings
from spine.errors import ConfigError


def status(path: str = "/", *, token: str = "", hosts: tuple[str, ...] = (), **headers: str) -> int:
    async def ask() -> int:
        app = Guard(PlainTextResponse("behind"), token=token, hosts=hosts)
        transport = httpx.ASGITransport(app=app)
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:1234") as client:
            return (await client.get(path, headers=headers)).status_code

    return asyncio.run(ask())


@pytest.mark.parametrize("host", ["127.0.0.1:1234", "LOCALHOST", "localhost:80", "[::1]:1234"])
def test_the_loopbacks_own_names_are_answered(host):
    assert status(hosts=LOOPBACK, Host=host) == 200


@pytest.mark.parametrize(
    "host",
    ["evil.example", "evil.example:1234", "127.0.0.1.evil.example", "localhost.evil.example", "", "[::2]"],
)
def test_a_foreign_name_is_refused(host):
    assert status(hosts=LOOPBACK, Host=host) == 403


@pytest.mark.parametrize(
    "given", ["", "Bearer", "Bearer wrong", "Basic right", "right", "Bearer right right"]
)
def test_without_the_token_nothing_is_answered_but_the_probes(given):
    assert status(token="right", Authorization=given) == 401
    assert status("/live", token="right", Authorization=given) == 200


def test_the_token_lets_in():
    assert status(token="right", Authorization="Bearer right") == 200
    assert status(token="right", authorization="bearer right") == 200


@pytest.mark.parametrize("host", ["127.0.0.1", "127.3.2.1", "::1", "localhost"])
def test_loopback_addresses_are_known(host):
    assert is_loopback(host)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.0.1", "example.org", "", "::ffff:8.8.8.8"])
def test_an_address_that_others_reach_needs_a_token(host):
    assert not is_loopback(host)
    with pytest.raises(ConfigError, match="set a token"):
        serve(ServerSettings(indices=()), host=host)
