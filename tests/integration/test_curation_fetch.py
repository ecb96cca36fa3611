"""Fetch over real files and a real server on loopback: each status, resume, lists, refill."""

import hashlib
import http.server
import io
import json
import multiprocessing
import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import ClassVar

import pytest
import skimage
from PIL import Image, ImageOps

from curation.candidates import fetched_reach
from curation.fetched_images import REASONS, fetch
from curation.opening import SUFFIXES, Openers, open_content, open_place
from curation.pdq import pdq
from curation.refill import deeper
from curation.selection import require_selected, select
from spine.config import write_config
from spine.errors import DataError
from spine.images import FORMATS
from spine.lists import BlockLists
from spine.manifest import find_manifest, verify
from spine.polite_web import ATTEMPTS, PoliteWeb
from spine.publish import sha256_of
from spine.refused import Refused
from spine.run import Run, part_paths
from spine.settings import FetchConfig, ListsConfig
from spine.sources import read_bytes
from spine.table_files import read_parts, read_table
from spine.tables import IMAGES, NEIGHBOURS, SELECTION
from spine.web import Web
from tests.integration.curation_runs import (
    CONFIG,
    Planted,
    by_address,
    local,
    number_in,
    numbered_picture,
    plant,
    score_all,
    with_lists,
)

skimage_data = Path(skimage.__file__).parent / "data"


class Site(http.server.BaseHTTPRequestHandler):
    """A drawn web: /p/N is picture N, and one path for each way to go wrong."""

    protocol_version = "HTTP/1.1"
    asked: ClassVar[Counter[str]] = Counter()
    robots: ClassVar[tuple[int, bytes]] = (404, b"")
    tdm: ClassVar[tuple[int, bytes]] = (404, b"")
    up: ClassVar[bool] = False
    photograph: ClassVar[bytes] = b""

    def do_GET(self) -> None:
        Site.asked[self.path] += 1
        kind, _, rest = self.path.strip("/").partition("/")
        if kind == "p":
            self._give(200, numbered_picture(int(rest)))
        elif kind == "big":
            self._give(200, numbered_picture(int(rest), 64, 48))
        elif kind == "large":
            self._give(200, numbered_picture(int(rest), 1200, 900))
        elif kind == "changing":
            self._give(200, numbered_picture(int(rest) + Site.up, 1200, 900))
        elif kind == "leaving":
            self._give(*((404, b"") if Site.up else (200, numbered_picture(int(rest), 1200, 900))))
        elif kind == "gone":
            self._give(404, b"")
        elif kind == "busy":
            again = Site.asked[self.path] > 1
            self._give(200 if again else 503, numbered_picture(int(rest)) if again else b"")
        elif kind == "down":
            self._give(500, b"")
        elif kind == "moved":
            self._give(302, b"", [("Location", f"/p/{rest}")])
        elif kind == "round":
            self._give(302, b"", [("Location", self.path)])
        elif kind == "inside":
            self._give(302, b"", [("Location", "http://10.0.0.1/secret")])
        elif kind == "page":
            self._give(200, b"<html>not here any more</html>")
        elif kind == "half":
            self._give(200, numbered_picture(int(rest), 200, 100)[:-200])
        elif kind == "huge":
            self._give(200, b"x" * 300_000)
        elif kind == "empty":
            self._give(200, b"")
        elif kind == "robots.txt":
            status, body = Site.robots
            self._give(status, body)
        elif kind == ".well-known":
            status, body = Site.tdm
            self._give(status, body)
        elif kind == "reserved":
            lines = {
                "noai": [("X-Robots-Tag", "noarchive, noai")],
                "tdm": [("TDM-Reservation", "1")],
                "others": [("X-Robots-Tag", "otherbot: noai"), ("TDM-Reservation", "0")],
                "twice": [("X-Robots-Tag", "otherbot: nofollow"), ("X-Robots-Tag", "noimageai")],
            }[rest]
            self._give(200, numbered_picture(len(rest)), lines)
        elif kind == "photograph":
            self._give(200, Site.photograph)
        elif kind == "sorry":
            self._give(200, numbered_picture(4040))
        elif kind == "later":
            self._give(*((200, numbered_picture(int(rest))) if Site.up else (503, b"")))
        elif kind == "slow":
            self.send_response(200)
            self.send_header("Content-Length", "100000")
            self.end_headers()
            for _ in range(100):
                self.wfile.write(b"x")
                self.wfile.flush()
                time.sleep(0.1)

    def _give(self, status: int, body: bytes, headers: Sequence[tuple[str, str]] = ()) -> None:
        self.send_response(status)
        for name, value in headers:
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Quiet."""


class _Server(http.server.ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *_: object) -> None:
        """A client that leaves early is what some cases are about."""


@pytest.fixture(scope="module")
def site() -> Iterator[str]:
    server = _Server(("127.0.0.1", 0), Site)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()


def loopback(site: str, **limits: float) -> Web:
    values = {"timeout_s": 5.0, "max_bytes": 200_000, "per_host": 8} | limits
    return Web(ports={int(site.rsplit(":", 1)[1])}, allow=("127.0.0.0/8",), **values)  # type: ignore[arg-type]


def rows_by_id(run: Run) -> dict[int, dict]:
    return {row["id"]: row for row in read_parts(run.images, IMAGES).to_pylist()}


def digests(run: Run) -> dict[str, str]:
    return {path.name: sha256_of(path) for path in part_paths(run.images)}


def local_run(tmp_path: Path, name: str = "run", centroids: int = 2, each: int = 6, config=CONFIG) -> Run:
    rows = [
        Planted(c, rank, local(tmp_path / "pool", 100 * c + rank))
        for c in range(centroids)
        for rank in range(each)
    ]
    return plant(tmp_path / name, rows, config)


def test_local_pictures_are_referenced_measured_and_keep_their_number(tmp_path):
    run = local_run(tmp_path)

    manifest = fetch(run, depths=[6, 4])

    assert manifest.counts == {"candidates": 10, "fetched": 10, "failed": 0}
    assert not run.originals.exists()
    planted = {row["id"]: row for row in read_parts(run.neighbours, NEIGHBOURS).to_pylist()}
    for number, row in rows_by_id(run).items():
        assert number_in(read_bytes(row["image_path"])) == int(planted[number]["key"])
        assert (row["width"], row["height"], row["format"], row["attempts"]) == (32, 24, "PNG", 1)
    assert manifest.facts["demo_models"] is True


def test_every_way_an_address_can_fail_has_its_status_and_the_counts_add_up(tmp_path, site):
    kinds = {
        "p/1": None,
        "busy/2": None,
        "moved/3": None,
        "gone/4": "gone",
        "down/5": "http_error",
        "round/6": "too_many_redirects",
        "inside/7": "bad_url",  # port 80 isn't among the test client's
        "page/8": "not_an_image",
        "half/9": "truncated",
        "huge/10": "too_many_bytes",
        "empty/11": "empty_file",
        "slow/12": "timeout",
    }
    urls = {f"{site}/{path}": reason for path, reason in kinds.items()}
    urls |= {"ftp://example.org/a": "bad_url", "http://127.0.0.2:1/x": "bad_url"}
    rows = [Planted(0, rank, by_address(url, rank)) for rank, url in enumerate(urls)]
    missing = {"id": 5, "image_path": str(tmp_path / "nothing.png"), "key": "x"}
    nowhere = {"id": 6, "key": "y"}
    rows += [Planted(0, len(rows), missing), Planted(0, len(rows) + 1, nowhere)]
    run = plant(tmp_path / "run", rows)

    with loopback(site, timeout_s=1.0) as web:
        manifest = fetch(run, depths=[100], web=web)

    by_url = {row["url"]: row for row in rows_by_id(run).values()}
    assert {url: by_url[url]["reason"] for url in urls} == urls
    assert rows_by_id(run)[5]["reason"] == rows_by_id(run)[6]["reason"] == "missing"
    assert (
        manifest.counts["candidates"] == len(rows) == manifest.counts["fetched"] + manifest.counts["failed"]
    )
    failed = {name: count for name, count in manifest.counts.items() if name.startswith("failed_")}
    assert sum(failed.values()) == manifest.counts["failed"] == len(rows) - 3
    assert {name.removeprefix("failed_") for name in failed} <= set(REASONS)
    assert by_url[f"{site}/busy/2"]["attempts"] == 2
    assert by_url[f"{site}/down/5"]["attempts"] == ATTEMPTS
    assert (by_url[f"{site}/gone/4"]["attempts"], by_url[f"{site}/gone/4"]["http_status"]) == (1, 404)
    for number, path in ((1, "p/1"), (2, "busy/2"), (3, "moved/3")):
        row = by_url[f"{site}/{path}"]
        content = read_bytes(row["image_path"])
        assert number_in(content) == number
        assert Path(row["image_path"]) == run.original(row["sha256"], ".png").absolute()
    stored = [path for path in run.originals.rglob("*") if path.is_file()]
    assert len(stored) == 3


def test_what_a_host_reserves_is_left_out_with_its_evidence_and_taken_only_when_asked_to(
    tmp_path, site, monkeypatch
):
    monkeypatch.setattr(
        Site, "robots", (200, b"User-agent: *\nDisallow: /p/2\nDisallow: /p/3\nAllow: /p/3$\n")
    )
    Site.asked.clear()
    said = {
        "p/1": None,
        "p/2": "robots.txt: Disallow: /p/2",
        "p/3": None,
        "moved/22": "robots.txt: Disallow: /p/2",  # sent on to what robots.txt forbids
        "reserved/noai": "x-robots-tag: noai",
        "reserved/tdm": "tdm-reservation: 1",
        "reserved/others": None,
        "reserved/twice": "x-robots-tag: noimageai",
    }
    rows = [Planted(0, rank, by_address(f"{site}/{path}", rank)) for rank, path in enumerate(said)]
    run = plant(tmp_path / "run", rows)

    with loopback(site) as web:
        manifest = fetch(run, depths=[100], web=web)
        first = {row["url"].removeprefix(f"{site}/"): row for row in rows_by_id(run).values()}
        asked = Site.asked.copy()
        write_config(run.config, replace(CONFIG, fetch=replace(CONFIG.fetch, honour_opt_out=False)))
        everything = fetch(run, depths=[100], web=web)
        second = {row["url"].removeprefix(f"{site}/"): row for row in rows_by_id(run).values()}
        write_config(run.config, CONFIG)
        again = fetch(run, depths=[100], web=web)

    assert manifest.counts == {"candidates": 8, "fetched": 3, "failed": 5, "failed_opted_out": 5}
    for path, words in said.items():
        assert (first[path]["reason"], first[path]["opt_out"]) == (
            "opted_out" if words else None,
            words or "none",
        )
        assert (first[path]["image_path"] is None) == (words is not None)
    assert (asked["/p/2"], asked["/robots.txt"]) == (0, 1)
    assert everything.counts["fetched"] == 8
    assert second["reserved/noai"]["opt_out"] == "x-robots-tag: noai"
    assert second["p/2"]["opt_out"] is None
    assert again.counts == manifest.counts
    assert len(list(run.originals.rglob("*.png"))) == 3


def test_a_tdmrep_file_reserves_what_it_names_and_is_asked_for_once(tmp_path, site, monkeypatch):
    content = b'[{"location": "/p/2", "tdm-reservation": 1}, {"location": "/p/1", "tdm-reservation": 0}]'
    monkeypatch.setattr(Site, "tdm", (200, content))
    Site.asked.clear()
    rows = [Planted(0, rank, by_address(f"{site}/p/{rank}", rank)) for rank in range(1, 4)]
    run = plant(tmp_path / "run", rows)

    with loopback(site) as web:
        fetch(run, depths=[9], web=web)

    told = {row["url"].removeprefix(site): row["opt_out"] for row in rows_by_id(run).values()}
    assert told == {"/p/1": "none", "/p/2": "tdmrep.json: /p/2", "/p/3": "none"}
    assert Site.asked["/.well-known/tdmrep.json"] == 1
    assert len(list(run.originals.rglob("*.png"))) == 2


def test_a_crawl_delay_is_kept_between_requests_to_its_host(site, monkeypatch):
    monkeypatch.setattr(Site, "robots", (200, b"User-agent: *\nCrawl-delay: 3\n"))
    waited: list[float] = []
    nothing = BlockLists.load(ListsConfig(), Path())
    with loopback(site) as web:
        polite = PoliteWeb(CONFIG.fetch, web, wait=waited.append)
        for number in range(4):
            assert isinstance(polite.ask(f"{site}/p/{number}", lambda: nothing).content, bytes)
        other = site.replace("127.0.0.1", "localhost")
        polite.ask(f"{other}/p/1", lambda: nothing)

    # Nobody really waited here, so each turn lies 3 s after the one before.
    assert [round(seconds) for seconds in waited] == [3, 6, 9]


@pytest.mark.parametrize(("status", "reason"), [(503, "robots_unknown"), (403, None)])
def test_a_robots_txt_that_cannot_be_read_stops_the_host_and_one_that_is_not_for_us_does_not(
    tmp_path, site, monkeypatch, status, reason
):
    monkeypatch.setattr("spine.polite_web._FIRST_WAIT_S", 0.01)
    monkeypatch.setattr(Site, "robots", (status, b"User-agent: *\nDisallow: /"))
    Site.asked.clear()
    rows = [Planted(0, rank, by_address(f"{site}/p/{rank}", rank)) for rank in range(6)]
    run = plant(tmp_path / "run", rows)

    with loopback(site) as web:
        fetch(run, depths=[6], web=web)

    assert {row["reason"] for row in rows_by_id(run).values()} == {reason}
    assert Site.asked["/robots.txt"] == (ATTEMPTS if status == 503 else 1)
    assert Site.asked["/p/0"] == (0 if reason else 1)


def test_a_retry_asks_only_what_may_answer_later_and_ends_as_a_fetch_on_a_good_day(
    tmp_path, site, monkeypatch
):
    monkeypatch.setattr("spine.polite_web._FIRST_WAIT_S", 0.01)
    paths = ["p/1", "gone/2", "later/3", "later/4", "page/5"]
    rows = [Planted(0, rank, by_address(f"{site}/{path}", rank)) for rank, path in enumerate(paths)]
    run, good = plant(tmp_path / "run", rows), plant(tmp_path / "good", rows)
    monkeypatch.setattr(Site, "up", False)
    with loopback(site) as web:
        first = fetch(run, depths=[9], web=web)
        assert (first.counts["fetched"], first.counts["failed_http_error"]) == (1, 2)
        monkeypatch.setattr(Site, "up", True)
        Site.asked.clear()
        assert fetch(run, web=web) == first
        retried = fetch(run, retry_failed=True, web=web)
        asked_of_the_host = {"/robots.txt", "/.well-known/tdmrep.json"}
        assert set(Site.asked) - asked_of_the_host == {"/later/3", "/later/4"}
        expected = fetch(good, depths=[9], web=web)

    assert retried.counts == expected.counts
    assert {number: row["sha256"] for number, row in rows_by_id(run).items()} == {
        number: row["sha256"] for number, row in rows_by_id(good).items()
    }


def test_an_address_that_shows_something_else_than_the_pool_knew_is_changed_where_that_is_asked_for(
    tmp_path, site
):
    known = {1: numbered_picture(1), 2: b"what it was then", 3: None}
    rows = [
        Planted(
            0,
            rank,
            by_address(f"{site}/p/{rank}", rank)
            | {"sha256": content and hashlib.sha256(content).hexdigest()},
        )
        for rank, content in known.items()
    ]
    run = plant(tmp_path / "run", rows)
    strict = replace(CONFIG, fetch=replace(CONFIG.fetch, same_bytes=True))

    def reasons() -> dict[str, str | None]:
        return {row["url"].removeprefix(f"{site}/p/"): row["reason"] for row in rows_by_id(run).values()}

    with loopback(site) as web:
        for config, expected in ((CONFIG, None), (strict, "changed"), (CONFIG, None)):
            write_config(run.config, config)
            Site.asked.clear()
            fetch(run, depths=[9], web=web)
            assert reasons() == {"1": None, "2": expected, "3": None}
            stored = {number_in(path.read_bytes()) for path in run.originals.rglob("*.png")}
            assert stored == ({1, 3} if expected else {1, 2, 3})

    assert (Site.asked["/p/1"], Site.asked["/p/2"]) == (0, 1), "only what it concerns is asked for again"


def test_one_picture_at_many_addresses_of_a_host_is_a_placeholder(tmp_path, site):
    paths = [f"sorry/{n}" for n in range(4)] + ["p/1", "moved/1", "p/2"]
    rows = [Planted(0, rank, by_address(f"{site}/{path}", rank)) for rank, path in enumerate(paths)]
    config = replace(CONFIG, fetch=replace(CONFIG.fetch, placeholder_repeats=3))
    run = plant(tmp_path / "run", rows, config)

    with loopback(site) as web:
        few = fetch(run, depths=[2], web=web)
        all_of_them = fetch(run, depths=[7], web=web)
        write_config(run.config, replace(CONFIG, fetch=replace(CONFIG.fetch, placeholder_repeats=0)))
        off = fetch(run, depths=[7], web=web)

    assert few.counts == {"candidates": 2, "fetched": 2, "failed": 0}
    assert all_of_them.counts == {"candidates": 7, "fetched": 3, "failed": 4, "failed_placeholder": 4}
    assert off.counts == {"candidates": 7, "fetched": 7, "failed": 0}


def test_lists_know_pictures_by_md5_by_address_and_by_their_look(tmp_path, site, monkeypatch):
    """Picture 3 is on the list by its look: what the web gives is smaller, mirrored and a JPEG."""
    photograph = Image.open(skimage_data / "astronaut.png")
    copy = io.BytesIO()
    ImageOps.mirror(photograph).resize((256, 256)).save(copy, "JPEG", quality=60)
    monkeypatch.setattr(Site, "photograph", copy.getvalue())
    paths = ["p/1", "p/2", "photograph/3", "p/4"]
    urls = [f"{site}/{path}" for path in paths]
    rows = [Planted(0, rank, by_address(url, rank)) for rank, url in enumerate(urls)]
    rows.append(Planted(0, 4, local(tmp_path / "pool", 9)))
    run, early = plant(tmp_path / "run", rows), plant(tmp_path / "early", rows)
    entries = [
        hashlib.md5(numbered_picture(1)).hexdigest(),
        f"url:{hashlib.sha256(urls[1].encode()).hexdigest()}",
        f"pdq:{pdq(photograph)[0]}",
        f"md5:{hashlib.md5(numbered_picture(9)).hexdigest()}",
    ]

    with loopback(site) as web:
        assert fetch(run, depths=[9], web=web).counts["fetched"] == 5
        for each in (run, early):
            with_lists(each, CONFIG, hash_block="\n".join(entries))
            manifest = fetch(each, depths=[9], web=web)
            assert manifest.counts == {"candidates": 5, "fetched": 1, "failed": 4, "failed_hash_block": 4}
            assert {number_in(path.read_bytes()) for path in each.originals.rglob("*.*")} == {4}
        again = fetch(run, depths=[4], web=web)
    assert again.counts["failed_hash_block"] == 3


def test_local_bytes_that_a_hash_list_names_are_not_even_opened(tmp_path):
    """Nobody could open them: had they been tried, they would be truncated or changed."""
    run = local_run(tmp_path, centroids=1, each=4)
    broken = [numbered_picture(number)[:-20] for number in range(4)]
    for number, content in enumerate(broken):
        (tmp_path / "pool" / f"{number}.png").write_bytes(content)
    listed = [hashlib.md5(broken[0]).hexdigest(), hashlib.sha256(broken[1]).hexdigest()]
    with_lists(run, CONFIG, hash_block="\n".join(listed))

    manifest = fetch(run, depths=[4])

    assert manifest.counts["failed_hash_block"] == 2
    assert manifest.counts["failed_changed"] == 2
    rows = {Path(row["image_path"]).name: row for row in rows_by_id(run).values()}
    for number, content in enumerate(broken):
        row = rows[f"{number}.png"]
        assert (row["sha256"], row["md5"]) == (
            hashlib.sha256(content).hexdigest(),
            hashlib.md5(content).hexdigest(),
        )


def test_a_larger_picture_is_scaled_down_and_its_first_size_is_kept(tmp_path, site):
    config = replace(CONFIG, fetch=replace(CONFIG.fetch, max_side_px=32))
    run = plant(tmp_path / "run", [Planted(0, 0, by_address(f"{site}/big/777", 777))], config)

    with loopback(site) as web:
        fetch(run, depths=[1], web=web)

    (row,) = rows_by_id(run).values()
    assert (row["width"], row["height"], row["original_width"], row["original_height"]) == (32, 24, 64, 48)
    assert sha256_of(Path(row["image_path"])) == row["sha256"]
    assert number_in(read_bytes(row["image_path"])) == 777


def test_a_deeper_fetch_asks_no_address_twice_and_a_finished_one_does_nothing(tmp_path, site):
    Site.asked.clear()
    rows = [Planted(0, rank, by_address(f"{site}/p/{rank}", rank)) for rank in range(6)]
    run = plant(tmp_path / "run", rows)

    with loopback(site) as web:
        first = fetch(run, depths=[2], web=web)
        again = fetch(run, web=web)
        second = fetch(run, depths=[5], web=web)

    assert (first.counts["candidates"], second.counts["candidates"]) == (2, 5)
    assert again == first
    assert fetched_reach(run).depths == [5]
    assert {Site.asked[f"/p/{rank}"] for rank in range(5)} == {1}
    assert verify(run.images) == []


def test_changed_bytes_of_a_local_picture_are_noticed(tmp_path):
    run = local_run(tmp_path, centroids=1, each=2)
    (tmp_path / "pool" / "1.png").write_bytes(numbered_picture(9999))

    manifest = fetch(run, depths=[2])

    assert manifest.counts == {"candidates": 2, "fetched": 1, "failed": 1, "failed_changed": 1}


def test_a_list_hit_is_never_stored_and_a_new_list_takes_out_what_was(tmp_path, site):
    rows = [Planted(0, rank, by_address(f"{site}/p/{rank}", rank)) for rank in range(4)]
    run = plant(tmp_path / "run", rows)
    with_lists(run, CONFIG, takedown=f"{rows[0].values['id']}\n")
    Site.asked.clear()
    with loopback(site) as web:
        first = fetch(run, depths=[4], web=web)
        assert (first.counts["fetched"], first.counts["failed_takedown"]) == (3, 1)
        assert "/p/0" not in Site.asked
        victim = rows_by_id(run)[rows[1].values["id"]]
        with_lists(run, CONFIG, takedown=f"{rows[2].values['url']}\n", hash_block=f"{victim['sha256']}\n")
        second = fetch(run, depths=[4], web=web)

    assert second.counts == {
        "candidates": 4,
        "fetched": 2,
        "failed": 2,
        "failed_hash_block": 1,
        "failed_takedown": 1,
    }
    kept = {number_in(path.read_bytes()) for path in run.originals.rglob("*.png")}
    assert kept == {0, 3}
    assert Site.asked["/p/3"] == 1  # what no list concerns isn't fetched anew
    assert rows_by_id(run)[rows[1].values["id"]]["image_path"] is None


def test_the_disk_budget_stops_the_fetch_and_a_larger_one_goes_on(tmp_path, site):
    rows = [Planted(0, rank, by_address(f"{site}/p/{rank}", rank)) for rank in range(6)]
    tight = replace(CONFIG, fetch=replace(CONFIG.fetch, disk_budget="200B"))
    run = plant(tmp_path / "run", rows, tight)
    with loopback(site) as web:
        with pytest.raises(DataError, match="disk_budget"):
            fetch(run, depths=[6], web=web)
        assert find_manifest(run.images) is None
        run = plant(tmp_path / "run", rows, CONFIG)
        assert fetch(run, depths=[6], web=web).counts["fetched"] == 6


def _fetch_in_parts(folder: Path) -> None:
    from curation import fetched_images

    fetched_images.PART_ROWS = 4
    fetch(Run(folder), depths=[40, 40])


def test_a_fetch_killed_at_any_moment_goes_on_to_the_same_parts(tmp_path, monkeypatch):
    monkeypatch.setattr("curation.fetched_images.PART_ROWS", 4)
    unbroken = local_run(tmp_path, "unbroken", each=40)
    fetch(unbroken, depths=[40, 40])
    broken = local_run(tmp_path, "broken", each=40)
    context = multiprocessing.get_context("spawn")
    seen = 0
    for parts in (1, 5, 12):
        worker = context.Process(target=_fetch_in_parts, args=(broken.folder,))
        worker.start()
        while worker.is_alive() and len(part_paths(broken.images)) < parts:
            time.sleep(0.002)
        os.kill(worker.pid, signal.SIGKILL)
        worker.join(60)
        seen = max(seen, len(part_paths(broken.images)))
    assert 0 < seen < 20  # it was stopped on its way
    assert find_manifest(broken.images) is None

    fetch(broken)  # without depths: it goes on with those that were begun

    assert digests(broken) == digests(unbroken)
    assert find_manifest(broken.images).counts == find_manifest(unbroken.images).counts


def _pid(_: str) -> Refused:
    return Refused("unreadable", str(os.getpid()))


def _open_and_tell(told: Path) -> None:
    with Openers(1) as openers:
        worker = openers.ask("x", _pid, "x").message
        told.with_suffix(".new").write_text(worker)
        told.with_suffix(".new").replace(told)
        time.sleep(600)


def test_workers_end_when_their_parent_is_killed(tmp_path):
    told = tmp_path / "pid"
    parent = multiprocessing.get_context("spawn").Process(target=_open_and_tell, args=(told,))
    parent.start()
    while not told.exists():
        assert parent.is_alive()
        time.sleep(0.01)
    worker = Path("/proc") / told.read_text()
    assert worker.exists()

    os.kill(parent.pid, signal.SIGKILL)
    parent.join(30)

    deadline = time.monotonic() + 30
    while not _ended(worker) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert _ended(worker)


def _ended(process: Path) -> bool:
    """Whether it is gone, or a zombie whose exit code nobody has asked for."""
    try:
        return "State:\tZ" in (process / "status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return True


def _die(_: str) -> Refused:
    os.kill(os.getpid(), signal.SIGSEGV)
    return Refused("unreadable", "never")


def _hang(_: str) -> Refused:
    time.sleep(60)
    return Refused("unreadable", "never")


def test_a_picture_that_kills_its_process_or_hangs_costs_itself_only(tmp_path):
    path = tmp_path / "1.png"
    path.write_bytes(numbered_picture(1))
    outcomes = {}
    with Openers(2, open_s=6) as openers:

        def ask(name: str, work, *arguments: object) -> None:
            outcomes[name] = openers.ask(name, work, *arguments)

        jobs = [("die", _die, "x"), ("hang", _hang, "x")]
        jobs += [(f"fine {n}", open_place, str(path), 10**6, None) for n in range(4)]
        threads = [threading.Thread(target=ask, args=job) for job in jobs]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        after = openers.ask("after", open_content, path.read_bytes(), 0)

    assert outcomes["die"].reason == "decode_crashed"
    assert outcomes["hang"].reason == "decode_timeout"
    assert [outcomes[f"fine {n}"].width for n in range(4)] == [32] * 4
    assert after.width == 32


def test_refill_goes_deeper_until_each_centroid_is_full_or_out_of_neighbours(tmp_path):
    """Centroid 0: small pictures first, so it has to go deep. Centroid 1 has too few of any."""
    pool = tmp_path / "pool"
    rows = [
        Planted(0, rank, local(pool, rank, width=32 if rank >= 20 else 20, height=24 if rank >= 20 else 8))
        for rank in range(30)
    ]
    rows += [Planted(1, rank, local(pool, 100 + rank)) for rank in range(2)]
    run = plant(tmp_path / "run", rows)
    depths, rounds = None, []
    while True:
        manifest = fetch(run, depths=depths)
        score_all(run)
        select(run)
        rounds.append(manifest.parameters["depths"])
        depths = deeper(run, CONFIG, rounds[-1])
        if depths is None:
            break

    assert len(rounds) > 1
    assert all(a[0] < b[0] for a, b in pairwise(rounds))
    selected = [
        row for row in read_table(run.selection_table, SELECTION).to_pylist() if row["verdict"] == "selected"
    ]
    assert Counter(row["centroid_id"] for row in selected) == {0: 3, 1: 2}
    assert [row["rank"] for row in selected if row["centroid_id"] == 0] == [20, 21, 22]


def test_select_refuses_scores_of_an_earlier_fetch(tmp_path):
    run = local_run(tmp_path)
    fetch(run, depths=[2, 2])
    score_all(run)
    fetch(run, depths=[4, 4])

    with pytest.raises(DataError, match="popfactory score"):
        select(run)
    score_all(run)
    assert select(run).counts["candidates"] == 8


def test_every_format_that_is_opened_has_a_name_to_be_stored_under():
    assert set(SUFFIXES) == set(FORMATS)


def test_an_empty_selection_is_an_error_that_prints_the_funnel(tmp_path):
    pool = tmp_path / "pool"
    rows = [Planted(0, rank, local(pool, rank, width=16, height=8)) for rank in range(3)]
    run = plant(tmp_path / "run", rows)
    fetch(run)
    score_all(run)
    select(run)

    with pytest.raises(
        DataError, match=r"none of 3 candidates is selected: 3 shorter side too small \(min_side_px\)"
    ):
        require_selected(run)


def test_settings_are_those_of_the_file(tmp_path):
    """A small max_bytes in popfactory.toml refuses a local picture too."""
    config = replace(CONFIG, fetch=FetchConfig(max_bytes=50, workers=1, concurrency=2))
    run = local_run(tmp_path, centroids=1, each=1, config=config)

    assert fetch(run).counts["failed_too_many_bytes"] == 1
    assert json.loads(run.depths.read_text())["depths"] == [1]
