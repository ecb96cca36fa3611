"""Lists that change while pictures are being fetched: in effect at once, in every process, and for what came before."""

import http.server
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import pytest

from curation.fetched_images import fetch
from curation.opening import Opened, Openers
from spine.errors import ConfigError, FactoryError
from spine.lists import LOOK_EVERY_S, ListsInForce
from spine.manifest import find_manifest
from spine.publish import sha256_of
from spine.refused import Refused
from spine.run import Run
from spine.settings import Config
from spine.table_files import read_parts
from spine.tables import IMAGES
from spine.web import Web
from tests.integration.curation_runs import (
    CONFIG,
    Planted,
    by_address,
    local,
    numbered_picture,
    plant,
    with_lists,
)

HOSTS = ("127.0.0.1", "127.0.0.2")
TURN = 2  # the picture of each host in whose answer the lists change


class _Turning(http.server.BaseHTTPRequestHandler):
    """A web of two hosts: once both are asked for their picture TURN, the lists change before either is given."""

    protocol_version = "HTTP/1.1"
    asked: ClassVar[Counter[str]] = Counter()
    both: ClassVar[threading.Barrier]

    def do_GET(self) -> None:
        host = self.headers["Host"].partition(":")[0]
        _Turning.asked[host + self.path] += 1
        if self.path == f"/p/{TURN}":
            _Turning.both.wait(30)
        wanted = self.path.startswith("/p/")
        content = numbered_picture(int(self.path[3:]) + 100 * HOSTS.index(host)) if wanted else b""
        self.send_response(200 if wanted else 404)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    first = http.server.ThreadingHTTPServer((HOSTS[0], 0), _Turning)
    servers = [first, http.server.ThreadingHTTPServer((HOSTS[1], first.server_port), _Turning)]
    for server in servers:
        threading.Thread(target=server.serve_forever, daemon=True).start()
    yield first.server_port
    for server in servers:
        server.shutdown()
        server.server_close()


def config(processes: int) -> Config:
    settings = replace(CONFIG.fetch, processes=processes, concurrency=2, per_host=1, workers=2)
    return replace(CONFIG, fetch=settings)


def planted(folder: Path, port: int, processes: int) -> Run:
    rows = [
        Planted(0, 2 * number + place, by_address(f"http://{host}:{port}/p/{number}", 10 * number + place))
        for number in range(6)
        for place, host in enumerate(HOSTS)
    ]
    return plant(folder, rows, config(processes))


def turning_with(change: Callable[[], None]) -> None:
    """Have the lists change as soon as both hosts are asked for their picture TURN."""

    def turn() -> None:
        change()
        time.sleep(LOOK_EVERY_S * 1.2)

    _Turning.asked.clear()
    _Turning.both = threading.Barrier(2, action=turn)


def loopback(port: int) -> Web:
    return Web(ports={port}, allow=("127.0.0.0/8",), timeout_s=30)


def rows(run: Run) -> list[dict[str, object]]:
    found = sorted(read_parts(run.images, IMAGES).to_pylist(), key=lambda row: row["id"])
    stored = str(run.folder)
    return [row | {"image_path": (row["image_path"] or "").removeprefix(stored)} for row in found]


@pytest.mark.parametrize("processes", [1, 2])
def test_a_list_written_while_fetching_holds_in_every_process_and_for_what_came_before(
    port, tmp_path, processes
):
    run, fresh = (planted(tmp_path / name, port, processes) for name in ("run", "fresh"))
    for each in (run, fresh):
        with_lists(each, config(processes))
    named = [f"http://{host}:{port}/p/{number}" for host in HOSTS for number in (0, 4)]
    turning_with(lambda: with_lists(run, config(processes), takedown="\n".join(named)))

    with loopback(port) as web:
        manifest = fetch(run, depths=[20], web=web)
        asked = dict(_Turning.asked)
        with_lists(fresh, config(processes), takedown="\n".join(named))
        turning_with(lambda: None)
        expected = fetch(fresh, depths=[20], web=web)

    for host in HOSTS:
        assert asked[f"{host}/p/0"] == 1, "nobody named it yet"
        assert f"{host}/p/4" not in asked and asked[f"{host}/p/5"] == 1
    assert {row["url"] for row in rows(run) if row["reason"] == "takedown"} == set(named)
    assert manifest.counts == {"candidates": 12, "fetched": 8, "failed": 4, "failed_takedown": 4}
    assert len([path for path in run.originals.rglob("*") if path.is_file()]) == 8
    assert rows(run) == rows(fresh)
    assert manifest.inputs == expected.inputs and manifest.inputs["lists"] == ListsInForce(run).now().digest


@pytest.mark.parametrize("processes", [1, 2])
def test_a_list_that_becomes_unreadable_stops_a_running_fetch_which_then_goes_on(port, tmp_path, processes):
    run = planted(tmp_path / "run", port, processes)
    with_lists(run, config(processes))
    turning_with((run.folder / "takedown.txt").unlink)

    with loopback(port) as web:
        with pytest.raises(FactoryError, match=r"takedown\.txt: can't be read") as stopped:
            fetch(run, depths=[20], web=web)
        assert "\n" not in str(stopped.value)
        assert find_manifest(run.images) is None
        assert not any(path.endswith(("/p/4", "/p/5")) for path in _Turning.asked)
        with_lists(run, config(processes))
        turning_with(lambda: None)
        assert fetch(run, web=web).counts["fetched"] == 12


def test_a_process_that_opens_local_pictures_follows_the_hash_lists(tmp_path):
    known = local(tmp_path / "pool", 7)
    run = plant(tmp_path / "run", [Planted(0, 0, known)])
    with_lists(run, CONFIG)

    def opened() -> Opened | Refused:
        time.sleep(LOOK_EVERY_S * 1.2)
        return openers.place(known["image_path"], 10**6, None)

    with Openers(1, listed_by=run) as openers:
        assert isinstance(opened(), Opened)
        with_lists(run, CONFIG, hash_block=sha256_of(Path(known["image_path"])))
        refused = opened()
        assert isinstance(refused, Refused) and refused.reason == "hash_block"
        (run.folder / "hashes.txt").unlink()
        with pytest.raises(ConfigError, match=r"hashes\.txt: can't be read"):
            opened()
