"""A day at the board, shortened: its process holds no more at the end than near the beginning."""

import json
import urllib.request
from pathlib import Path

import pytest

from tests.e2e.board_server import Server, free_port
from tests.unit.ui.planted import CENTROIDS, plant


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    made = Server(plant(tmp_path_factory.mktemp("board-memory") / "run"), free_port())
    made.start()
    yield made
    made.kill()


def test_memory_stays_flat_while_a_curator_opens_looks_and_decides(server):
    held = [_hour(server, number) for number in range(6)]

    # The first hours fill caches that have a bound.
    assert held[-1] - held[2] < 6_000_000, held


def _hour(server: Server, number: int) -> int:
    """The deeds of an hour; afterwards the bytes that the process holds."""
    for step in range(60):
        centroid = step % CENTROIDS
        answer = _get(server, f"/api/neighbours?centroid={centroid}")
        for row in answer["rows"][step % 20 :: 20]:
            if row["state"] == "ready":
                _get(server, f"/thumb/{row['sha256']}.blurred.webp")
        event = {
            "seq": number * 60 + step + 1,
            "action": ["keep", "clear"][step % 2],
            "ids": [answer["rows"][0]["id"]],
        }
        sent = {"client": "hours", "curator": "ada", "events": [event | {"centroid_id": str(centroid)}]}
        _get(server, "/api/decisions", sent)
        _get(server, f"/api/news?since={answer['last_event']}&client=hours&curator=ada&centroid={centroid}")
        if step % 20 == 0:
            _get(server, "/api/centroids")
    status = Path(f"/proc/{server.process.pid}/status").read_text()
    return next(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("RssAnon:"))


def _get(server: Server, path: str, sent: object = None):
    headers = {"Content-Type": "application/json", "X-Popfactory": "1"}
    content = None if sent is None else json.dumps(sent).encode()
    with urllib.request.urlopen(urllib.request.Request(server.address + path, content, headers)) as reply:
        read = reply.read()
    return json.loads(read) if reply.headers["Content-Type"] == "application/json" else read
