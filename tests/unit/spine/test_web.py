"""Web over real sockets: what it refuses, what it bounds, and that nothing private is ever reached."""

import copy
import gzip
import http.server
import ipaddress
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import ClassVar

import pytest

from spine import pinned
from spine.errors import WebError
from spine.pinned import is_public
from spine.web import REFUSALS, Web

LOOPBACK = ("127.0.0.0/8", "::1/128")


class Canary:
    """A server that counts who comes, and answers by path with the bytes it was given."""

    def __init__(self) -> None:
        self.hits: list[bytes] = []
        self.answers: dict[bytes, Callable[[socket.socket], None]] = {}
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._serve, daemon=True).start()

    def url(self, path: str, host: str = "127.0.0.1") -> str:
        return f"http://{host}:{self.port}{path}"

    def give(self, path: str, reply: bytes) -> str:
        self.answers[path.encode()] = lambda connection: connection.sendall(reply)
        return self.url(path)

    def close(self) -> None:
        self._listener.close()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._answer, args=(connection,), daemon=True).start()

    def _answer(self, connection: socket.socket) -> None:
        with connection:
            try:
                request = b""
                while b"\r\n\r\n" not in request:
                    got = connection.recv(65536)
                    if not got:
                        return
                    request += got
                self.hits.append(request)
                answer = self.answers.get(request.split(b" ")[1])
                if answer is not None:
                    answer(connection)
            except OSError:  # the client went away, which is what some tests are about
                return


def reply(body: bytes, *headers: str, status: str = "200 OK", length: int | None = None) -> bytes:
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body) if length is None else length}", *headers]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def redirect(location: str, status: str = "302 Found") -> bytes:
    return reply(b"", f"Location: {location}", status=status)


@pytest.fixture
def canary() -> Iterator[Canary]:
    server = Canary()
    yield server
    server.close()


@pytest.fixture
def web(canary: Canary) -> Iterator[Web]:
    """A client that may reach loopback on the canary's port: explicit, never the default."""
    with Web(timeout_s=5, max_bytes=10_000, ports={canary.port}, allow=LOOPBACK) as client:
        yield client


def refused(web: Web, url: str, **limits: float) -> WebError:
    with pytest.raises(WebError) as caught:
        web.fetch(url, **limits)
    assert caught.value.reason in REFUSALS
    return caught.value


def test_fetch_gives_body_status_and_the_kept_headers_only(web, canary):
    canary.give("/a", reply(b"picture", "Content-Type: image/png", "X-Robots-Tag: noai", "Set-Cookie: a=b"))

    response = web.fetch(canary.url("/a"))

    assert response.content == b"picture"
    assert (response.status, response.url) == (200, canary.url("/a"))
    assert response.headers == {"content-type": "image/png", "x-robots-tag": "noai"}


def test_a_request_carries_the_name_as_host_and_neither_cookie_nor_password(web, canary):
    canary.give("/a", reply(b"1", "Set-Cookie: session=secret"))

    web.fetch(canary.url("/a", "localhost"))
    web.fetch(canary.url("/a", "localhost"))

    for request in canary.hits:
        assert f"host: localhost:{canary.port}".encode() in request.lower()
        assert b"cookie" not in request.lower()
        assert b"authorization" not in request.lower()


SPELLINGS = (
    "127.0.0.1",
    "2130706433",
    "0x7f000001",
    "0x7f.0.0.1",
    "0177.0.0.1",
    "017700000001",
    "127.1",
    "127.0.1",
    "0",
    "0.0.0.0",
    "[::]",
    "[::1]",
    "[::ffff:127.0.0.1]",
    "[::ffff:7f00:1]",
    "[0:0:0:0:0:ffff:127.0.0.1]",
    "[::127.0.0.1]",
    "[64:ff9b::7f00:1]",
    "[2002:7f00:1::]",
    "127。0。0。1",
    "127.0.0.1。",
    "①②⑦.⓪.⓪.①",
    "１２７.0.0.1",
    "localhost",
    "LOCALHOST",
    "localhost.",
    "127.0.0.1.",
    "%31%32%37.0.0.1",
    "[fe80::1%25lo]",
    "127.0.0.1%00.example.org",
)


@pytest.mark.parametrize("host", SPELLINGS)
def test_no_spelling_of_loopback_reaches_a_server_there(canary, host):
    with Web(timeout_s=3, ports={canary.port}) as web:
        error = refused(web, canary.url("/secret", host))

    assert error.reason in ("not_public", "bad_url", "dns")
    assert canary.hits == []


@pytest.mark.parametrize("host", SPELLINGS)
def test_no_redirect_leads_to_loopback(canary, host):
    """The first hop is let through by its own address; where it sends us on to is checked anew."""
    canary.give("/start", redirect(canary.url("/secret", host)))
    first = f"127.0.0.2:{canary.port}"
    gate = socket.create_server(("127.0.0.2", canary.port))
    threading.Thread(target=_forward_once, args=(gate, canary), daemon=True).start()
    with gate, Web(timeout_s=3, ports={canary.port}, allow=("127.0.0.2/32",)) as web:
        error = refused(web, f"http://{first}/start")

    assert error.reason in ("not_public", "bad_url", "dns")
    assert canary.hits == []


def _forward_once(gate: socket.socket, canary: Canary) -> None:
    connection, _ = gate.accept()
    with connection:
        connection.recv(65536)
        canary.answers[b"/start"](connection)


@pytest.mark.parametrize(
    "url",
    [
        "file:///etc/hostname",
        "ftp://127.0.0.1/",
        "gopher://127.0.0.1:70/",
        "data:text/plain,hello",
        "//example.org/a",
        "http://",
        "http:///a",
        "",
        "http://user:word@example.org/",
        "http://example.org:22/",
        "https://example.org:8443/",
        "http://exa mple.org/",
        "http://example.org:99999/",
        "http://[::1/",
        "\x00http://example.org/",
        "http://example.org/\r\nX: y",
    ],
)
def test_what_is_no_plain_web_address_is_refused_before_any_look_up(monkeypatch, url):
    asked = []
    monkeypatch.setattr(socket, "getaddrinfo", lambda *args, **kwargs: asked.append(args))
    with Web() as web:
        assert refused(web, url).reason == "bad_url"
    assert asked == []


def test_a_name_that_changes_its_answer_gains_nothing(monkeypatch, canary):
    """DNS rebinding: public when asked first, loopback afterwards. The checked address is the one connected to."""
    answers = iter(["192.0.2.1", "127.0.0.1", "127.0.0.1"])
    monkeypatch.setattr(pinned, "is_public", lambda address: str(address) == "192.0.2.1")
    monkeypatch.setattr(
        socket,
        "getaddrinfo",
        lambda host, port, **kwargs: [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (next(answers), port))],
    )
    connected = []

    def connect(address, *args, **kwargs):
        connected.append(address[0])
        raise ConnectionRefusedError("planted")

    monkeypatch.setattr(socket, "create_connection", connect)
    with Web(timeout_s=2, ports={canary.port}) as web:
        assert refused(web, f"http://rebind.example:{canary.port}/").reason == "connect"
        assert refused(web, f"http://rebind.example:{canary.port}/").reason == "not_public"
    assert connected == ["192.0.2.1"]
    assert canary.hits == []


def _answering(monkeypatch, answers: list[str]) -> list[str]:
    """Names are looked up here: each time the next of these addresses; gives the names that were."""
    asked: list[str] = []
    plain = socket.getaddrinfo

    def look_up(host, port, *args, **kwargs):
        if host[0].isdigit():  # the connecting itself
            return plain(host, port, *args, **kwargs)
        asked.append(host)
        address = answers[min(len(asked), len(answers)) - 1]
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port))]

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    return asked


def test_a_name_is_looked_up_once_a_minute_however_many_connections_it_takes(monkeypatch, canary):
    asked = _answering(monkeypatch, ["127.0.0.1"])
    now = time.monotonic()
    canary.give("/a", reply(b"1", "Connection: close"))
    with Web(ports={canary.port}, allow=LOOPBACK) as web:
        for _ in range(3):
            web.fetch(canary.url("/a", "one.example"))
        web.fetch(canary.url("/a", "two.example"))
        assert asked == ["one.example", "two.example"]
        monkeypatch.setattr(pinned, "KNOWN_S", 0.0)
        monkeypatch.setattr(time, "monotonic", lambda: now + 120)
        web.fetch(canary.url("/a", "one.example"))

    assert asked == ["one.example", "two.example", "one.example"]
    assert len(canary.hits) == 5


def test_a_remembered_address_is_checked_at_every_use(monkeypatch, canary):
    asked = _answering(monkeypatch, ["127.0.0.1"])
    canary.give("/a", reply(b"1", "Connection: close"))
    with Web(ports={canary.port}, allow=LOOPBACK) as web:
        web.fetch(canary.url("/a", "one.example"))
        web._backend._allow = []

        assert refused(web, canary.url("/a", "one.example")).reason == "not_public"
    assert (len(asked), len(canary.hits)) == (1, 1)


def test_a_name_whose_addresses_gave_no_connection_is_looked_up_anew(monkeypatch, canary):
    asked = _answering(monkeypatch, ["127.0.0.9", "127.0.0.1"])
    canary.give("/a", reply(b"moved"))
    with Web(ports={canary.port}, allow=LOOPBACK) as web:
        assert refused(web, canary.url("/a", "one.example")).reason == "connect"

        assert web.fetch(canary.url("/a", "one.example")).content == b"moved"
    assert asked == ["one.example"] * 2


def test_only_so_many_names_are_remembered(monkeypatch, canary):
    asked = _answering(monkeypatch, ["127.0.0.1"])
    monkeypatch.setattr(pinned, "KNOWN_HOSTS", 2)
    canary.give("/a", reply(b"1", "Connection: close"))
    with Web(ports={canary.port}, allow=LOOPBACK) as web:
        for name in ("a", "b", "c", "c", "b", "a"):
            web.fetch(canary.url("/a", f"{name}.example"))

    assert "".join(name[0] for name in asked) == "abca"


def test_a_name_with_one_private_address_among_public_ones_is_refused(monkeypatch, canary):
    found = [
        (socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, canary.port))
        for address in ("93.184.216.34", "127.0.0.1")
    ]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *args, **kwargs: found)
    with Web(ports={canary.port}) as web:
        assert refused(web, f"http://mixed.example:{canary.port}/").reason == "not_public"
    assert canary.hits == []


@pytest.mark.parametrize(
    ("text", "public"),
    [
        ("93.184.216.34", True),
        ("2606:4700::1111", True),
        ("10.0.0.1", False),
        ("100.64.0.1", False),
        ("169.254.169.254", False),
        ("172.16.0.1", False),
        ("192.168.0.1", False),
        ("224.0.0.1", False),
        ("240.0.0.1", False),
        ("255.255.255.255", False),
        ("::ffff:169.254.169.254", False),
        ("::ffff:93.184.216.34", True),
        ("64:ff9b::a9fe:a9fe", False),
        ("64:ff9b::5db8:d822", True),
        ("64:ff9b:1::7f00:1", False),
        ("2002:7f00:1::", False),
        ("2002:a9fe:a9fe::1", False),
        ("2001:0:7f00:1::", False),
        ("::7f00:1", False),
        ("fc00::1", False),
        ("fe80::1", False),
        ("ff0e::1", False),
        ("::", False),
    ],
)
def test_is_public_sees_through_every_form_of_an_address(text, public):
    assert is_public(ipaddress.ip_address(text)) is public


def test_redirects_are_followed_three_times_and_no_more(web, canary):
    canary.give("/end", reply(b"there"))
    for number in range(4):
        target = "/end" if number == 0 else f"/{number - 1}"  # /3 -> /2 -> /1 -> /0 -> /end
        canary.give(f"/{number}", redirect(target))

    response = web.fetch(canary.url("/2"))

    assert (response.content, response.url) == (b"there", canary.url("/end"))
    assert refused(web, canary.url("/3")).reason == "too_many_redirects"


def test_an_idle_connection_that_the_server_closed_costs_nothing(web, canary):
    """The server takes a second request on a connection and closes it without a word, as one that timed out does."""

    def answer_once(connection: socket.socket) -> None:
        connection.sendall(reply(b"here"))
        connection.recv(65536)

    canary.answers[b"/a"] = answer_once

    assert [web.fetch(canary.url("/a")).content for _ in range(5)] == [b"here"] * 5


class _Lasting(http.server.BaseHTTPRequestHandler):
    """Keeps its connections; dead links with a page of so many bytes, and one that sends on."""

    protocol_version = "HTTP/1.1"
    connections: ClassVar[int] = 0

    def setup(self) -> None:
        _Lasting.connections += 1
        super().setup()

    def do_GET(self) -> None:
        size = int(self.path.rpartition("/")[2] or 0)
        self.send_response({"/d": 404, "/m": 302}.get(self.path[:2], 200))
        self.send_header("Content-Length", str(size))
        self.send_header("Location", "/here/3")
        self.end_headers()
        self.wfile.write(b"x" * size)

    def log_message(self, *_: object) -> None:
        """Quiet."""


def test_dead_links_and_redirects_leave_the_connection_for_the_next_unless_they_say_much():
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Lasting)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    port = server.server_address[1]
    with Web(ports={port}, allow=LOOPBACK, timeout_s=2) as client:
        for path in ("dead/0", "dead/9000", "moved/50", "here/7", "dead/0"):
            if path.startswith("dead"):
                assert refused(client, f"http://127.0.0.1:{port}/{path}").reason == "gone"
            else:
                assert client.fetch(f"http://127.0.0.1:{port}/{path}").content
        assert _Lasting.connections == 1
        assert refused(client, f"http://127.0.0.1:{port}/dead/90000").reason == "gone"
        client.fetch(f"http://127.0.0.1:{port}/here/7")
        assert _Lasting.connections == 2
    server.shutdown()
    server.server_close()


def test_a_client_in_another_process_has_the_same_limits(canary):
    url = canary.give("/ok", reply(b"x" * 100))
    with Web(ports={canary.port}, allow=LOOPBACK, max_bytes=50) as first:
        with copy.copy(first) as other:
            assert refused(other, url).reason == "too_many_bytes"
            assert other.fetch(url, max_bytes=100).content == b"x" * 100
            assert refused(other, canary.url("/ok", "10.0.0.1")).reason == "not_public"


def test_a_body_over_the_limit_is_refused_by_header_and_by_count(web, canary):
    canary.give("/said", reply(b"", length=10_001))
    canary.give("/unsaid", b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n" + b"x" * 10_001)
    canary.give("/exact", reply(b"x" * 10_000))

    assert refused(web, canary.url("/said")).reason == "too_many_bytes"
    assert refused(web, canary.url("/unsaid")).reason == "too_many_bytes"
    assert len(web.fetch(canary.url("/exact")).content) == 10_000


def test_a_compressed_bomb_stops_at_the_limit_and_honest_compression_is_undone(web, canary):
    canary.give("/bomb", reply(gzip.compress(bytes(5_000_000)), "Content-Encoding: gzip"))
    canary.give("/fair", reply(gzip.compress(b"picture"), "Content-Encoding: gzip"))
    canary.give("/cut", reply(gzip.compress(b"picture")[:-9], "Content-Encoding: gzip"))
    canary.give("/odd", reply(b"?", "Content-Encoding: br"))

    assert refused(web, canary.url("/bomb")).reason == "too_many_bytes"
    assert web.fetch(canary.url("/fair")).content == b"picture"
    assert refused(web, canary.url("/cut")).reason == "broken_reply"
    assert refused(web, canary.url("/odd")).reason == "broken_reply"


def test_a_false_length_and_a_reply_that_is_no_http_are_broken_replies(web, canary):
    canary.give("/short", reply(b"half", length=4_000))
    canary.give("/smtp", b"220 mail.example ESMTP\r\n")
    canary.give("/nothing", b"")

    for path in ("/short", "/smtp", "/nothing"):
        assert refused(web, canary.url(path)).reason == "broken_reply"


@pytest.mark.parametrize("part", ["headers", "body", "silence"])
def test_the_deadline_covers_a_server_that_drips(web, canary, part):
    stop = threading.Event()

    def drip(connection: socket.socket) -> None:
        if part == "body":
            connection.sendall(reply(b"", length=5_000))
        while not stop.wait(0.05):
            if part != "silence":
                connection.sendall(b"x")

    canary.answers[b"/drip"] = drip
    started = time.monotonic()
    error = refused(web, canary.url("/drip"), timeout_s=0.6)
    stop.set()

    assert error.reason == "timeout"
    assert time.monotonic() - started < 30  # without a total deadline it would drip on for minutes


def test_gone_and_errors_carry_their_status_and_the_wait_they_ask_for(web, canary):
    for status in (404, 410, 403, 500):
        canary.give(f"/{status}", reply(b"", status=f"{status} No"))
    canary.give("/503", reply(b"", "Retry-After: 7", status="503 Busy"))

    for status in (404, 410):
        error = refused(web, canary.url(f"/{status}"))
        assert (error.reason, error.status) == ("gone", status)
    for status in (403, 500):
        error = refused(web, canary.url(f"/{status}"))
        assert (error.reason, error.status, error.retry_after_s) == ("http_error", status, None)
    assert refused(web, canary.url("/503")).retry_after_s == 7


def test_a_closed_port_and_an_unknown_name_have_reasons_of_their_own():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    with Web(timeout_s=5, ports={port}, allow=LOOPBACK) as web:
        assert refused(web, f"http://127.0.0.1:{port}/").reason == "connect"
        assert refused(web, f"http://nothing.invalid:{port}/").reason == "dns"


def test_tls_to_a_server_that_speaks_plain_text_is_refused_and_a_silent_one_times_out(canary):
    with socket.create_server(("127.0.0.1", 0)) as plain:
        port = plain.getsockname()[1]
        threading.Thread(target=_say_hello_once, args=(plain,), daemon=True).start()
        with Web(timeout_s=5, ports={port, canary.port}, allow=LOOPBACK) as web:
            assert refused(web, f"https://127.0.0.1:{port}/").reason == "tls"
            assert refused(web, f"https://127.0.0.1:{canary.port}/", timeout_s=0.5).reason == "timeout"


def _say_hello_once(listener: socket.socket) -> None:
    connection, _ = listener.accept()
    with connection:
        connection.sendall(b"220 hello\r\n")
        connection.recv(65536)


def test_no_proxy_of_the_environment_is_used(monkeypatch, web, canary):
    with socket.create_server(("127.0.0.1", 0)) as proxy:
        address = f"http://127.0.0.1:{proxy.getsockname()[1]}"
        for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
            monkeypatch.setenv(name, address)
        canary.give("/a", reply(b"direct"))
        assert web.fetch(canary.url("/a")).content == b"direct"


@pytest.mark.parametrize("hosts", [1, 12])
def test_no_more_than_may_be_run_at_once_at_a_host_and_in_all_and_all_are_answered(
    monkeypatch, canary, hosts
):
    _answering(monkeypatch, ["127.0.0.1"])
    limits = {"per_host": 2} if hosts == 1 else {"connections": 2}
    running, most, lock = [0], [0], threading.Lock()

    def slowly(connection: socket.socket) -> None:
        with lock:
            running[0] += 1
            most[0] = max(most[0], running[0])
        time.sleep(0.05)
        with lock:
            running[0] -= 1
        connection.sendall(reply(b"ok", "Connection: close"))

    canary.answers[b"/slow"] = slowly
    bodies = []
    with Web(timeout_s=10, ports={canary.port}, allow=LOOPBACK, **limits) as web:

        def ask(number: int) -> None:
            bodies.append(web.fetch(canary.url("/slow", f"{'abcdefghijkl'[number % hosts]}.example")).content)

        threads = [threading.Thread(target=ask, args=(number,)) for number in range(12)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    assert bodies == [b"ok"] * 12
    assert most[0] == 2
