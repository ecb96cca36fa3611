"""HTTP/2 over real TLS on loopback: the pin, the names and the limits are those of HTTP/1.1."""

import socket
import ssl
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import RequestReceived
from h2.exceptions import ProtocolError

from spine.errors import WebError
from spine.web import Web

KEY = Path(__file__).parents[2] / "data" / "tls" / "loopback.pem"
"""A key of no worth, with a certificate for localhost and pictures.test."""

Answer = Callable[[H2Connection, int], None]


class Server:
    """Speaks what it offers, writes down who came, and answers by path."""

    def __init__(self, offers: str = "h2") -> None:
        self.offers, self.answers = offers, dict[str, Answer]()
        self.connections: list[str | None] = []  # the names asked for by SNI
        self.requests: list[tuple[int, dict[str, str]]] = []  # the connection's number, and the headers
        self.open, self.most_open = Counter[int](), 0
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(KEY)
        self._context.set_alpn_protocols([offers])
        self._context.sni_callback = lambda _, name, __: self.connections.append(name)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def url(self, path: str, host: str = "localhost") -> str:
        return f"https://{host}:{self.port}{path}"

    def close(self) -> None:
        self._listener.close()

    def _accept(self) -> None:
        number = 0
        while True:
            try:
                plain, _ = self._listener.accept()
            except OSError:
                return
            number += 1
            threading.Thread(target=self._serve, args=(plain, number), daemon=True).start()

    def _serve(self, plain: socket.socket, number: int) -> None:
        try:
            with self._context.wrap_socket(plain, server_side=True) as secure:
                if self.offers == "h2":
                    self._speak(secure, number)
                else:
                    secure.recv(65536)
                    secure.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nold")
        except OSError:  # the client went away, which is what some tests are about
            return

    def _speak(self, secure: ssl.SSLSocket, number: int) -> None:
        # Nothing is checked of what is sent: some answers are wrong on purpose.
        loose = {"validate_outbound_headers": False, "normalize_outbound_headers": False}
        connection = H2Connection(H2Configuration(client_side=False, header_encoding="utf-8", **loose))
        connection.initiate_connection()
        secure.sendall(connection.data_to_send())
        while got := secure.recv(65536):
            try:
                events = connection.receive_data(got)
            except ProtocolError:
                return
            for event in events:
                if isinstance(event, RequestReceived):
                    headers = dict(event.headers)
                    self.requests.append((number, headers))
                    self.open[number] += 1
                    self.most_open = max(self.most_open, self.open[number])
                    self.answers[headers[":path"]](connection, event.stream_id)
                    self.open[number] -= 1
            secure.sendall(connection.data_to_send())


def body(content: bytes, *headers: tuple[str, str], status: str = "200") -> Answer:
    """An answer, its content in frames as large as may be."""

    def answer(connection: H2Connection, stream: int) -> None:
        length = ("content-length", str(len(content)))
        connection.send_headers(stream, [(":status", status), length, *headers])
        for start in range(0, len(content), 16_384):
            connection.send_data(stream, content[start : start + 16_384])
        connection.end_stream(stream)

    return answer


@pytest.fixture
def server() -> Iterator[Server]:
    one = Server()
    yield one
    one.close()


def client(server: Server, **limits: object) -> Web:
    trusted = ssl.create_default_context(cafile=str(KEY))
    given = {"timeout_s": 5, "max_bytes": 100_000, "allow": ("127.0.0.0/8",), "per_host": 4} | limits
    return Web(ports={server.port}, tls=trusted, **given)  # type: ignore[arg-type]


def test_a_host_that_offers_http2_is_spoken_to_so_by_its_own_name_on_the_address_that_was_checked(
    server, monkeypatch
):
    asked: list[str] = []

    def look_up(host: str, port: int, *_: object, **__: object) -> list[tuple[object, ...]]:
        asked.append(host)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port))]

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    server.answers["/a"] = body(b"picture", ("x-robots-tag", "noai"), ("set-cookie", "a=b"))
    with client(server) as web:
        url = server.url("/a", "pictures.test")
        replies = [web.fetch(url), web.fetch(url)]

    assert [reply.content for reply in replies] == [b"picture", b"picture"]
    assert replies[0].headers == {"x-robots-tag": "noai"}
    assert server.connections == ["pictures.test"]
    assert asked.count("pictures.test") == 1
    for _, headers in server.requests:
        assert headers[":authority"] == f"pictures.test:{server.port}"
        assert not {"cookie", "authorization"} & set(headers)


def test_a_certificate_of_another_name_and_an_address_that_is_not_public_are_refused(server, monkeypatch):
    server.answers["/a"] = body(b"picture")
    with client(server) as web, pytest.raises(WebError) as other_name:
        web.fetch(server.url("/a", "127.0.0.1"))
    with client(server, allow=()) as web, pytest.raises(WebError) as not_public:
        web.fetch(server.url("/a"))

    assert (other_name.value.reason, not_public.value.reason) == ("tls", "not_public")
    assert server.requests == []


def test_a_host_without_http2_is_asked_as_ever():
    server = Server(offers="http/1.1")
    with client(server) as web:
        assert web.fetch(server.url("/a")).content == b"old"
    server.close()


def test_many_at_once_get_each_their_own_and_share_no_connection(server):
    contents = {f"/{number}": bytes([number]) * (number * 1_000) for number in range(64)}
    server.answers = {path: body(content) for path, content in contents.items()}
    got: dict[str, bytes] = {}
    with client(server) as web:

        def ask(first: int) -> None:
            for number in range(first, 64, 8):
                got[f"/{number}"] = web.fetch(server.url(f"/{number}")).content

        threads = [threading.Thread(target=ask, args=(first,)) for first in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    assert got == contents
    assert len(server.connections) <= 4
    assert server.most_open == 1


def test_a_reply_that_is_left_unread_costs_its_connection_and_no_other_request(server):
    server.answers["/huge"] = body(b"x" * 1_000_000)
    server.answers["/unsaid"] = lambda connection, stream: _endless(connection, stream, 2_000_000)
    server.answers["/gone"] = body(b"not here", status="404")
    server.answers["/a"] = body(b"picture")
    reasons = []
    with client(server) as web:
        for path in ("/huge", "/a", "/unsaid", "/a", "/gone", "/a"):
            try:
                reasons.append(web.fetch(server.url(path)).content.decode())
            except WebError as error:
                reasons.append(error.reason)

    assert reasons == ["too_many_bytes", "picture", "too_many_bytes", "picture", "gone", "picture"]
    # A short page that says "gone" is read.
    assert [number for number, _ in server.requests] == [1, 2, 2, 3, 3, 3]


def _endless(connection: H2Connection, stream: int, size: int) -> None:
    connection.send_headers(stream, [(":status", "200")])
    for _ in range(size // 16_000):
        connection.send_data(stream, b"x" * 16_000)


def _false_length(connection: H2Connection, stream: int) -> None:
    connection.send_headers(stream, [(":status", "200"), ("content-length", "50")])
    connection.send_data(stream, b"short", end_stream=True)


WRONG: dict[str, Answer] = {
    "/status": body(b"x", status="no number"),
    "/reset": lambda connection, stream: connection.reset_stream(stream),
    "/goaway": lambda connection, stream: connection.close_connection(error_code=1, last_stream_id=0),
    "/length": _false_length,
}


@pytest.mark.parametrize("path", WRONG)
def test_what_is_no_http2_is_a_broken_reply_and_the_next_request_is_answered(server, path):
    server.answers |= WRONG | {"/a": body(b"picture")}
    with client(server) as web:
        with pytest.raises(WebError) as broken:
            web.fetch(server.url(path))
        assert web.fetch(server.url("/a")).content == b"picture"

    assert broken.value.reason == "broken_reply"


def test_the_deadline_covers_a_host_that_says_nothing_more(server):
    server.answers["/silent"] = lambda connection, stream: None
    server.answers["/a"] = body(b"picture")
    with client(server, timeout_s=1) as web:
        with pytest.raises(WebError) as silent:
            web.fetch(server.url("/silent"))
        assert web.fetch(server.url("/a")).content == b"picture"

    assert silent.value.reason == "timeout"
