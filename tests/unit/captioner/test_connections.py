"""Connections over true sockets, to servers that answer byte by byte what the test says."""

import asyncio
import contextlib
import json
import ssl
from pathlib import Path

import pytest
import uvloop

from captioner import connections
from captioner.answers import MAX_ANSWER_BYTES, Answered, BrokenOff, Unreachable
from captioner.connections import Connections, certificates

TLS = Path(__file__).parents[2] / "data" / "tls" / "loopback.pem"
"""A key of no worth, with a certificate for localhost."""

OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"
DONE = Answered(200, None, b"ok")


class Scripted:
    """A server that answers the n-th request of all with the n-th of `says`, the last of them from then on.

    Each is a list of pieces; None closes the connection.
    """

    def __init__(self, *says):
        self.says, self.requests, self.connections = says, [], 0

    async def __call__(self, reader, writer):
        self.connections += 1
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = int(head.lower().split(b"content-length:")[1].split(b"\r\n")[0])
                self.requests.append((head, await reader.readexactly(length)))
                for piece in self.says[min(len(self.requests), len(self.says)) - 1]:
                    if piece is None:
                        writer.close()
                        return
                    writer.write(piece)
                    await writer.drain()
                    await asyncio.sleep(0.001)  # so that pieces come as pieces


def asked(server, work, *, scheme="http", host="127.0.0.1", key="", tls=None):
    """What `work(connections)` returns, with the server running."""

    async def run():
        listening = await asyncio.start_server(server, "127.0.0.1", 0, ssl=tls)
        async with listening:
            port = listening.sockets[0].getsockname()[1]
            opened = Connections(f"{scheme}://{host}:{port}/v1", key)
            try:
                return await work(opened)
            finally:
                await opened.close()

    return uvloop.run(asyncio.wait_for(run(), 30))


async def once(opened):
    return await opened.post((b"{}",))


async def twice(opened):
    return [await opened.post((b"{}",)) for _ in range(2)]


def test_a_request_says_where_it_goes_what_it_is_and_how_long():
    server = Scripted([OK])
    pieces = (b'{"picture":"', b"x" * 300_000, '", "größe": 1}'.encode())

    assert asked(server, lambda opened: opened.post(pieces), key="sk-1") == DONE

    [(head, body)] = server.requests
    line, *lines = head.decode().strip().split("\r\n")
    headers = dict(each.split(": ") for each in lines)
    assert line == "POST /v1/chat/completions HTTP/1.1"
    assert headers["host"].startswith("127.0.0.1:") and headers["authorization"] == "Bearer sk-1"
    assert headers["content-type"] == "application/json" and headers["accept-encoding"] == "identity"
    assert body == b"".join(pieces) and json.loads(body)["größe"] == 1


def test_a_name_and_a_password_in_the_address_go_as_they_do_in_a_browser():
    server = Scripted([OK])

    asked(server, once, host="me:p%40ss@127.0.0.1")

    [(head, _)] = server.requests
    assert b"authorization: Basic bWU6cEBzcw==\r\n" in head, "base64 of me:p@ss"
    assert b"host: 127.0.0.1:" in head


@pytest.mark.parametrize(
    "pieces",
    [
        [OK],
        [OK[:20], OK[20:38], OK[38:]],
        [b"HTTP/1.1 100 Continue\r\n\r\n", OK],
        [b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1\r\no\r\n", b"1\r\nk\r\n0\r\n\r\n"],
        [b"HTTP/1.1 200 OK\r\n\r\no", b"k", None],
        [b"HTTP/1.0 200 OK\r\ncontent-length: 2\r\n\r\nok", None],
    ],
    ids=["whole", "in pieces", "after a word before", "in chunks", "until the end", "HTTP/1.0"],
)
def test_an_answer_is_read_in_every_form_that_it_can_have(pieces):
    assert asked(Scripted(pieces), twice) == [DONE, DONE]


def test_what_a_busy_server_says_is_handed_on():
    said = b"HTTP/1.1 429 Too Many Requests\r\nRetry-After: 7\r\ncontent-length: 4\r\n\r\nwait"

    assert asked(Scripted([said], [OK]), twice) == [Answered(429, "7", b"wait"), DONE]


@pytest.mark.parametrize(
    ("pieces", "said"),
    [
        ([None], "closed before"),
        ([b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nok", None], "closed before"),
        ([b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1\r\no\r\n", None], "closed before"),
        ([b"220 mail.test ESMTP\r\n"], "no HTTP"),
        ([b"HTTP/1.1 101 Switching\r\nconnection: upgrade\r\nupgrade: x\r\n\r\n"], "no HTTP"),
        ([b"HTTP/1.1 200 OK\r\n", *[b"x: " + b"y" * 60_000 + b"\r\n"] * 20], "headers without end"),
    ],
)
def test_a_broken_answer_is_told_as_one_and_the_next_goes_another_way(pieces, said):
    server = Scripted(pieces, [OK])

    async def work(opened):
        with pytest.raises(BrokenOff, match=said):
            await once(opened)
        return await once(opened)

    assert asked(server, work) == DONE
    assert server.connections == 2


def test_of_an_answer_without_end_no_more_is_read_than_any_caption_needs():
    server = Scripted([b"HTTP/1.1 200 OK\r\n\r\n", *[b"x" * 65_536] * 40], [OK])

    first, second = asked(server, twice)

    assert first.status == 200 and set(first.content) == {ord("x")}
    assert MAX_ANSWER_BYTES <= len(first.content) <= MAX_ANSWER_BYTES + (1 << 18)
    assert (second, server.connections) == (DONE, 2)


@pytest.mark.parametrize(
    ("first", "n"),
    [
        ([OK], 1),
        ([b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 2\r\n\r\nok"], 2),
        ([OK, None], 2),
        ([OK + b"HTTP/1.1 200 OK\r\n"], 2),
        ([OK, b"HTTP/1.1 200 OK\r\n"], 2),
    ],
    ids=["kept", "to be closed", "closed", "more than asked for", "more than asked for, later"],
)
def test_a_connection_is_used_again_only_where_it_is_as_it_was(first, n):
    server = Scripted(first, [OK])

    async def work(opened):
        answers = [await once(opened)]
        await asyncio.sleep(0.05)
        return [*answers, await once(opened)]

    assert asked(server, work) == [DONE, DONE]
    assert server.connections == n


def test_a_connection_that_was_idle_for_long_is_not_used_again(monkeypatch):
    monkeypatch.setattr(connections, "KEPT_OPEN_S", 0.0)
    server = Scripted([OK])

    assert asked(server, twice) == [DONE, DONE]
    assert server.connections == 2


def test_an_answer_that_was_given_up_is_no_answer_to_the_next():
    late = [b"HTTP/1.1 200 OK\r\n", *[b"x: y\r\n"] * 100, b"content-length: 4\r\n\r\nlate"]
    server = Scripted(late, [OK])

    async def work(opened):
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.02):
                await once(opened)
        return await once(opened)

    assert asked(server, work) == DONE
    assert server.connections == 2


def test_many_at_once_each_have_a_connection_and_later_ones_share_them():
    server = Scripted([OK])

    async def work(opened):
        for _ in range(3):
            assert await asyncio.gather(*(once(opened) for _ in range(40))) == [DONE] * 40
        return server.connections

    assert asked(server, work) == 40


def test_where_nobody_listens_it_is_said(monkeypatch):
    monkeypatch.setattr(connections, "CONNECT_S", 0.05)

    async def work(opened):
        opened._port = 9  # discard: nobody listens there
        with pytest.raises(Unreachable, match="refused"):
            await once(opened)
        opened._host = "192.0.2.1"  # set apart for documentation: nobody answers
        with pytest.raises(Unreachable):
            await once(opened)

    asked(Scripted([OK]), work)


@pytest.fixture
def trusted(monkeypatch):
    """Trust the test's own certificate, by the environment."""
    monkeypatch.setenv("SSL_CERT_FILE", str(TLS))
    certificates.cache_clear()
    yield
    certificates.cache_clear()


def secure():
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(TLS)
    return context


def test_over_tls_the_same_is_asked_and_answered(trusted):
    server = Scripted([OK])
    pieces = (b"[", b"1" * 300_000, b"]")

    async def work(opened):
        return [await opened.post(pieces) for _ in range(2)]

    assert asked(server, work, scheme="https", host="localhost", tls=secure()) == [DONE, DONE]
    assert [body for _, body in server.requests] == [b"".join(pieces)] * 2
    assert server.connections == 1


def test_a_server_whose_certificate_is_of_another_name_is_told_nothing(trusted):
    server = Scripted([OK])

    with pytest.raises(Unreachable, match=r"(?i)certificate"):
        asked(server, once, scheme="https", host="127.0.0.1", tls=secure(), key="sk-1")
    assert server.requests == []


def test_a_certificate_that_nobody_trusts_is_refused():
    certificates.cache_clear()
    server = Scripted([OK])

    with pytest.raises(Unreachable, match=r"(?i)certificate"):
        asked(server, once, scheme="https", host="localhost", tls=secure())
    assert server.requests == []
