"""Attempts: how long is waited between two, and which answers are worth another."""

import http.server
import threading
from collections.abc import Iterator
from typing import ClassVar

import pytest

from spine.lists import BlockLists
from spine.polite_web import ATTEMPTS, PoliteWeb, may_answer_later
from spine.settings import FetchConfig, ListsConfig
from spine.web import Web


class _Site(http.server.BaseHTTPRequestHandler):
    answers: ClassVar[list[tuple[int, str | None]]] = []

    def do_GET(self) -> None:
        status, wait = _Site.answers.pop(0) if _Site.answers else (200, None)
        self.send_response(status)
        if wait is not None:
            self.send_header("Retry-After", wait)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Nothing."""


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Site)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}/picture"
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize(
    ("answers", "waits", "status"),
    [
        ([(503, None), (503, None)], [(0.25, 0.75), (0.5, 1.5)], 200),
        ([(429, "7"), (503, "9999")], [(7, 7), (30, 30)], 200),
        ([(503, None)] * 9, [(0.25, 0.75), (0.5, 1.5)], 503),
        ([(404, None)], [], 404),
        ([(403, None)], [], 403),
        ([(500, "soon")], [(0.25, 0.75)], 200),
    ],
)
def test_attempts_wait_longer_each_time_or_as_asked_for_and_end(address, tmp_path, answers, waits, status):
    _Site.answers = list(answers)
    waited: list[float] = []
    lists = BlockLists.load(ListsConfig(), tmp_path)
    with Web(ports={int(address.split(":")[2].split("/")[0])}, allow=("127.0.0.0/8",), timeout_s=5) as web:
        polite = PoliteWeb(FetchConfig(honour_opt_out=False), web, wait=waited.append)

        reply = polite.ask(address, lambda: lists)

    assert len(waited) == len(waits)
    assert all(low <= each <= high for each, (low, high) in zip(waited, waits, strict=True))
    assert (reply.http_status, reply.attempts) == (status, min(len(waits) + 1, ATTEMPTS))


def test_what_may_answer_another_time_is_told_apart():
    assert all(may_answer_later(reason, None) for reason in ("timeout", "connect", "dns", "broken_reply"))
    assert not any(may_answer_later(reason, None) for reason in ("gone", "not_an_image", "opted_out", None))
    assert [may_answer_later("http_error", status) for status in (403, 429, 500, 503)] == [
        False,
        True,
        True,
        True,
    ]
