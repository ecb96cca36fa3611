"""Addresses asked again, at a real server on loopback whose pages change meanwhile."""

import http.server
import io
import json
import threading
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import pytest
import skimage
from click.testing import CliRunner
from PIL import Image

from curation import links
from curation.fetched_images import fetch
from curation.links import check_links
from curation.story import why
from popfactory.cli import cli
from spine.errors import DataError
from spine.manifest import find_manifest, verify
from spine.run import part_paths
from spine.table_files import read_parts, read_table
from spine.tables import ASKED, LINKS
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

PHOTOGRAPHS = Path(skimage.__file__).parent / "data"


def photograph(name: str, quality: int = 95) -> bytes:
    kept = io.BytesIO()
    with Image.open(PHOTOGRAPHS / name) as image:
        image.convert("RGB").resize((240, 180)).save(kept, "JPEG", quality=quality)
    return kept.getvalue()


@dataclass
class Site:
    """What each path of the server gives: its status, its body, its headers."""

    address: str
    pages: dict[str, tuple[int, bytes, dict[str, str]]] = field(default_factory=dict)
    asked: Counter[str] = field(default_factory=Counter)

    def put(self, path: str, body: bytes = b"", status: int = 200, **headers: str) -> str:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        self.pages[path] = (status, body, named)
        return f"{self.address}{path}"

    @property
    def web(self) -> Web:
        port = int(self.address.rsplit(":", 1)[1])
        return Web(timeout_s=5, max_bytes=500_000, per_host=8, ports={port}, allow=("127.0.0.0/8",))


@pytest.fixture
def site() -> Iterator[Site]:
    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            there.asked[self.path] += 1
            status, body, headers = there.pages.get(self.path, (404, b"", {}))
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Quiet."""

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    there = Site(f"http://127.0.0.1:{server.server_address[1]}")
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield there
    server.shutdown()
    server.server_close()


def test_each_address_has_one_status_and_what_was_fetched_stays(tmp_path, site):
    names = ("same", "again", "other", "gone", "page", "reserved", "listed")
    urls = {
        name: site.put(f"/{name}", photograph("chelsea.png", 90 + number))
        for number, name in enumerate(names)
    }
    flat = site.put("/flat", numbered_picture(0))
    rows = [by_address(url, number) for number, url in enumerate([*urls.values(), flat])]
    here = local(tmp_path / "pool", 77)
    run = plant(tmp_path / "run", [Planted(0, rank, values) for rank, values in enumerate([*rows, here])])
    with site.web as web:
        assert fetch(run, depths=[len(rows) + 1], web=web).counts["fetched"] == len(rows) + 1
        fetched = {path: path.read_bytes() for path in run.images.rglob("*") if path.is_file()}
        site.put("/again", photograph("chelsea.png", quality=50))
        site.put("/other", photograph("astronaut.png"))
        site.put("/gone", status=410)
        site.put("/page", b"<html>not here any more</html>")
        site.put("/reserved", photograph("chelsea.png", 95), X_Robots_Tag="noai")
        site.put("/flat", numbered_picture(0, 64, 48))
        with_lists(run, CONFIG, takedown=urls["listed"])
        site.asked.clear()

        manifest = check_links(run, web=web)

    found = {Path(row["url"]).name: row for row in read_parts(run.links, LINKS).to_pylist()}
    assert {name: (row["status"], row["reason"]) for name, row in found.items()} == {
        "same": ("alive", None),
        "again": ("alike", None),
        "other": ("changed", None),
        "gone": ("failed", "gone"),
        "page": ("failed", "not_an_image"),
        "reserved": ("failed", "opted_out"),
        "listed": ("failed", "takedown"),
        "flat": ("changed", None),  # bytes differ, and nothing is to be seen on either
    }
    assert found["gone"]["http_status"] == 410 and "noai" in found["reserved"]["opt_out"]
    assert site.asked["/listed"] == 0 and site.asked["/same"] == 1
    assert all(abs((datetime.now(UTC) - row["asked"]).total_seconds()) < 60 for row in found.values())
    counts = manifest.counts
    assert counts["addresses"] == sum(counts[name] for name in ("alive", "alike", "changed", "failed")) == 8
    assert counts["failed"] == sum(n for name, n in counts.items() if name.startswith("failed_")) == 4
    assert {path: path.read_bytes() for path in fetched} == fetched
    assert any("link: changed when asked again" in line for line in why(run, found["other"]["id"]))
    assert not any(line.startswith("link:") for line in why(run, here["id"]))


class _StopsAt:
    """Ctrl-C once so many are done."""

    def __init__(self, limit: int) -> None:
        self.left, self.found_done = limit, 0

    def begin(self, stage: str, total: int | None, unit: str, done: int = 0) -> None:
        self.found_done = done

    def advance(self, units: int, failures: dict[str, int] | None = None) -> None:
        self.left -= units
        if self.left == 0:
            raise KeyboardInterrupt

    def say(self, line: str) -> None:
        """Nothing is said."""

    def end(self) -> None:
        """Done."""


def test_stopped_it_goes_on_and_done_it_begins_anew(tmp_path, site, monkeypatch):
    monkeypatch.setattr(links, "PART_ROWS", 32)
    rows = [by_address(site.put(f"/{n}", numbered_picture(n)), n) for n in range(50)]
    run = plant(tmp_path / "run", [Planted(0, rank, values) for rank, values in enumerate(rows)])
    with site.web as web:
        fetch(run, depths=[50], web=web)
        with pytest.raises(KeyboardInterrupt):
            check_links(run, progress=_StopsAt(40), web=web)
        assert find_manifest(run.links) is None and len(part_paths(run.links)) == 1
        site.asked.clear()
        progress = _StopsAt(1_000)

        counts = check_links(run, progress=progress, web=web).counts

        assert progress.found_done == 32 and sum(n > 0 for n in site.asked.values()) == 18 + 2  # robots, TDM
        ids = read_parts(run.links, LINKS, ["id"]).column("id").to_pylist()
        assert sorted(ids) == sorted(row["id"] for row in rows) and counts["alive"] == 50
        site.put("/7", status=404)
        assert check_links(run, web=web).counts == counts | {"alive": 49, "failed": 1, "failed_gone": 1}
    assert verify(run.links) == []


def test_the_command_tells_its_counts_and_what_is_missing(tmp_path):
    run = plant(tmp_path / "run", [Planted(0, 0, local(tmp_path / "pool", 1))])
    early = CliRunner().invoke(cli, ["links", str(run.folder)])
    assert early.exit_code != 0 and isinstance(early.exception, DataError)
    fetch(run, depths=[1])

    told = CliRunner().invoke(cli, ["links", str(run.folder), "--json", "--quiet"])

    counts = {"addresses": 0, "alive": 0, "alike": 0, "changed": 0, "failed": 0}
    assert json.loads(told.stdout) == {"stage": "links", "counts": counts, "facts": {}}


def test_the_time_an_address_was_asked_is_kept_and_is_no_part_of_the_digest(tmp_path, site):
    rows = [by_address(site.put(f"/{n}", numbered_picture(n)), n) for n in range(4)]
    rows += [by_address(f"{site.address}/nowhere", 4), local(tmp_path / "pool", 5)]
    run = plant(tmp_path / "run", [Planted(0, rank, values) for rank, values in enumerate(rows)])
    began = datetime.now(UTC)
    with site.web as web:
        whole = fetch(run, depths=[6], web=web)
        before = run.asked_table.read_bytes()
        later = fetch(run, depths=[6], force=True, web=web)

    assert later.digest == whole.digest and run.asked_table.read_bytes() != before
    assert not run.asked_parts.exists()
    times = {row["id"]: row["asked"] for row in read_table(run.asked_table, ASKED).to_pylist()}
    assert set(times) == {row["id"] for row in rows[:5]}
    assert all(0 <= (time - began).total_seconds() + 0.001 < 60 for time in times.values())
    told = [line for line in why(run, rows[0]["id"]) if "its address was asked at" in line]
    assert told == [f"  its address was asked at {times[rows[0]['id']]:%Y-%m-%d %H:%M} UTC"]
    assert verify(run.images) == []
