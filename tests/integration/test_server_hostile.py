"""Requests that mean no good, over real sockets: each is answered with 4xx, or answered, and the server goes on."""

import json
import logging
import re
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from retrieval_server import connections
from retrieval_server.settings import IndexSettings, ServerSettings
from tests.integration.server_index import draw_pool, running, write_index

POOL = draw_pool(200)
GOOD = {"embedding_input": POOL.vectors[0].tolist(), "num_images": 3}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_index(tmp_path_factory.mktemp("hostile") / "i", POOL)


@pytest.fixture(scope="module")
def address(folder: Path) -> Iterator[str]:
    with running(ServerSettings(indices=(IndexSettings(name="pool", folder=folder),))) as address:
        yield address


def connect(address: str) -> socket.socket:
    host, port = address.removeprefix("http://").split(":")
    return socket.create_connection((host, int(port)), timeout=30)


def sent(address: str, content: bytes) -> bytes:
    """What comes back until the server hangs up, or has answered."""
    answer = b""
    with connect(address) as connection:
        connection.sendall(content)
        while not complete(answer):
            received = connection.recv(65536)
            if not received:
                break
            answer += received
    return answer


def complete(answer: bytes) -> bool:
    head, end, body = answer.partition(b"\r\n\r\n")
    length = re.search(rb"(?i)content-length: (\d+)", head)
    return bool(end) and length is not None and len(body) >= int(length[1])


def post(body: bytes, *headers: bytes, route: bytes = b"/knn-service") -> bytes:
    lines = [b"POST " + route + b" HTTP/1.1", b"Host: localhost", *headers]
    if not any(header.lower().startswith((b"content-length", b"transfer-encoding")) for header in headers):
        lines.append(b"Content-Length: %d" % len(body))
    return b"\r\n".join(lines) + b"\r\n\r\n" + body


BODY = json.dumps(GOOD).encode()
CHUNKED = b"Transfer-Encoding: chunked"
DEEP = b"[" * 100_000 + b"]" * 100_000

HOSTILE = {
    "no HTTP": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
    "no version": b"GET /\r\n\r\n",
    "no host": b"GET /live HTTP/1.1\r\n\r\n",
    "two hosts": b"GET /live HTTP/1.1\r\nHost: localhost\r\nHost: evil.example\r\n\r\n",
    "a foreign host with ours as user": b"GET /live HTTP/1.1\r\nHost: localhost@evil.example\r\n\r\n",
    "an absolute address": b"GET http://evil.example/live HTTP/1.1\r\nHost: evil.example\r\n\r\n",
    "connect": b"CONNECT 127.0.0.1:22 HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "trace": b"TRACE / HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "an unknown method": b"BREW /knn-service HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "out of the root": b"GET /../../etc/passwd HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "out of the root, encoded": b"GET /%2e%2e/%2e%2e/etc/passwd HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "NUL in the path": b"GET /docs%00.html HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "a path of bytes": b"GET /\xff\xfe HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "a path of half a character": b"GET /%ff%fe%c3 HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "NUL in a header": b"GET /live HTTP/1.1\r\nHost: localhost\r\nX: a\x00b\r\n\r\n",
    "a header with a space": b"GET /live HTTP/1.1\r\nHost: localhost\r\nX Y: a\r\n\r\n",
    "a folded header": b"GET /live HTTP/1.1\r\nHost: localhost\r\nX: a\r\n b\r\n\r\n",
    "headers without end": b"GET /live HTTP/1.1\r\nHost: localhost\r\n" + b"X: " + b"a" * 300_000,
    "many headers": b"GET /live HTTP/1.1\r\nHost: localhost\r\n" + b"X: a\r\n" * 60_000,
    "a long path": b"GET /" + b"a" * 300_000,
    "two lengths": post(BODY, b"Content-Length: 5", b"Content-Length: 500"),
    "a negative length": post(BODY, b"Content-Length: -5"),
    "a length of words": post(BODY, b"Content-Length: many"),
    "a length of 40 digits": post(BODY, b"Content-Length: " + b"9" * 40),
    "a length and chunks": post(b"0\r\n\r\n", b"Content-Length: 5", CHUNKED),
    "chunks of no size": post(b"zz\r\n{}\r\n0\r\n\r\n", CHUNKED),
    "a chunk of 2^64": post(b"1" + b"0" * 16 + b"\r\n{}", CHUNKED),
    "chunks in disguise": post(b"0\r\n\r\n", b"Transfer-Encoding: xchunked"),
    "gzip that nobody asked for": post(BODY, b"Content-Encoding: gzip"),
    "a wrong expectation": post(BODY, b"Expect: the impossible"),
    "a websocket": b"GET /knn-service HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: x3JJHMbDL1EzLkh9GBhXDw==\r\nSec-WebSocket-Version: 13\r\n\r\n",
    "ranges": b"GET /openapi.json HTTP/1.1\r\nHost: localhost\r\nRange: bytes="
    + b"0-1," * 500
    + b"0-1\r\n\r\n",
    "a depth of 100,000": post(DEEP),
    "a depth of 100,000 in an embedding": post(b'{"num_images": 1, "embedding_input": ' + DEEP + b"}"),
    "a number of a million digits": post(b'{"num_images": ' + b"9" * 1_000_000 + b"}"),
    "half a character": post(b'{"text": "\\ud800", "num_images": 1}'),
    "no UTF-8": post(b'{"text": "\xff", "num_images": 1}'),
    "a key a million times": post(b"{" + b'"text": "a", ' * 200_000 + b'"num_images": 1}'),
    "a million ids": post(b'{"ids": [' + b"1," * 1_000_000 + b"1]}", route=b"/metadata"),
    "a parameter a thousand times": post(b"", route=b"/knn-batch?k=1&" + b"columns=a&" * 1_000),
    "a parameter of bytes": post(b"", route=b"/knn-batch?k=%ff%00"),
    "a name that is a format": post(json.dumps(GOOD | {"indice_name": "{0}%s\r\nX: y"}).encode()),
    "a picture that is a bomb of base64": post(b'{"num_images": 1, "image": "' + b"A" * 8_000_000 + b'"}'),
    "form data": post(b"text=a&num_images=1", b"Content-Type: application/x-www-form-urlencoded"),
    "no body": post(b""),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_request_is_refused_or_harmless(address, name):
    answer = sent(address, HOSTILE[name])
    status = int(answer.split(b" ", 2)[1])
    assert status == 200 or 400 <= status < 500, answer[:300]
    assert b"Traceback" not in answer and b"/tmp" not in answer and b"root:" not in answer
    if status != 200:
        body = json.loads(answer.partition(b"\r\n\r\n")[2])
        assert body["message"] and body["code"]
    assert len(httpx.post(f"{address}/knn-service", json=GOOD).json()) == 3


def test_headers_that_drip_are_cut_off_and_keep_nobody_waiting(address, monkeypatch):
    monkeypatch.setattr(connections, "HEADERS_S", 1.0)
    slow = [connect(address) for _ in range(100)]
    for number, connection in enumerate(slow):
        connection.sendall(b"POST /knn-service HTTP/1.1\r\nHost: loc"[: number % 40])
    assert httpx.get(f"{address}/live").status_code == 200
    for number, connection in enumerate(slow):
        answer = connection.recv(1000)
        assert answer.startswith(b"HTTP/1.1 408 ") and b"headers_too_slow" in answer, number
        connection.close()


def test_a_connection_kept_open_may_ask_again_after_a_while_but_not_drip(address, monkeypatch):
    monkeypatch.setattr(connections, "HEADERS_S", 1.0)
    get = b"GET /live HTTP/1.1\r\nHost: localhost\r\n\r\n"
    with connect(address) as connection:
        for _ in range(2):
            connection.sendall(get)
            answer = b""
            while not answer.endswith(b"}"):  # it may come in parts
                answer += connection.recv(1000)
            assert answer.startswith(b"HTTP/1.1 200 ")
            time.sleep(1.2)  # idle is not slow
        connection.sendall(get[:10])
        assert connection.recv(1000).startswith(b"HTTP/1.1 408 ")
        assert connection.recv(1000) == b""


def test_connections_over_the_limit_are_told_to_come_again(address, monkeypatch):
    monkeypatch.setattr(connections, "MAX_CONNECTIONS", 5)
    held = [connect(address) for _ in range(5)]
    time.sleep(0.2)  # until the server has taken them
    with connect(address) as connection:
        answer = connection.recv(1000)
    for each in held:
        each.close()
    assert answer.startswith(b"HTTP/1.1 503 ") and b"retry-after: 1" in answer and b'"busy"' in answer


def test_a_client_that_does_not_read_its_answer_is_dropped(address, monkeypatch):
    monkeypatch.setattr(connections, "UNREAD_S", 0.3)
    ask = post(json.dumps({"ids": [1, 2, 3] * 3000, "indice_name": "pool"}).encode(), route=b"/metadata")
    with connect(address) as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.sendall(ask * 20)
        with pytest.raises(OSError):
            for _ in range(100):  # the server hangs up on us
                time.sleep(0.1)
                connection.sendall(ask)
    assert httpx.get(f"{address}/live").status_code == 200


def test_bodies_together_are_bounded(folder: Path):
    settings = ServerSettings(indices=(IndexSettings(name="pool", folder=folder),), waiting_bytes=50_000)
    with running(settings) as address:
        large = httpx.post(f"{address}/knn-service", content=b" " * 60_000)
        assert (large.status_code, large.headers["retry-after"]) == (503, "1")
        with connect(address) as slow:
            slow.sendall(post(b" " * 49_900, b"Content-Length: 60000"))
            deadline = time.monotonic() + 30
            while httpx.post(f"{address}/knn-service", json=GOOD, timeout=30).status_code == 200:
                assert time.monotonic() < deadline, "what comes in was never counted"
        deadline = time.monotonic() + 30
        while httpx.post(f"{address}/knn-service", json=GOOD, timeout=30).status_code == 503:
            assert time.monotonic() < deadline, "what was held was never given back"


def test_the_access_log_says_what_happened_and_not_what_was_asked(address, caplog):
    with caplog.at_level(logging.INFO, "popfactory.access"):
        httpx.post(f"{address}/knn-service?secret=1", json=GOOD | {"text": "a secret"})
        httpx.get(f"{address}/nowhere")
        deadline = time.monotonic() + 10
        while "/nowhere" not in caplog.text:  # lines are written together, a moment later
            assert time.monotonic() < deadline, "the line never came"
            time.sleep(0.01)
    written = [record.message for record in caplog.records if record.name == "popfactory.access"]
    lines = [json.loads(line) for text in written for line in text.splitlines()]
    assert [(line["method"], line["path"], line["status"]) for line in lines] == [
        ("POST", "/knn-service", 400),
        ("GET", "/nowhere", 404),
    ]
    assert lines[0]["client"] == "127.0.0.1" and lines[0]["ms"] >= 0 and lines[0]["bytes"] > 10
    assert "secret" not in caplog.text


def test_a_flood_is_answered_or_told_to_come_again(folder: Path):
    settings = ServerSettings(indices=(IndexSettings(name="pool", folder=folder),), waiting=4)
    statuses: list[int] = []
    with running(settings) as address, httpx.Client(base_url=address, timeout=60) as client:
        body = GOOD | {"num_result_ids": 200, "deduplicate": True}
        threads = [
            threading.Thread(
                target=lambda: statuses.extend(
                    client.post("/knn-service", json=body).status_code for _ in range(10)
                )
            )
            for _ in range(16)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(statuses) == 160 and set(statuses) <= {200, 503} and 200 in statuses
        assert client.post("/knn-service", json=body).status_code == 200
