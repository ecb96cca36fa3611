"""Each kind of entry of a list, at each gate: before an address is asked, a picture is stored, shown, or released."""

import functools
import hashlib
import http.server
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import pyarrow.parquet as pq
import pytest
import skimage
from PIL import Image

from curation.fetched_images import fetch
from curation.pdq import pdq
from curation.previews import Previews, Wanted
from curation.release import release
from curation.release_diff import blocked_rows
from curation.revisions import newest
from curation.selection import select
from spine.config import load_config
from spine.lists import ON_LISTS, BlockLists
from spine.run import Run
from spine.table_files import read_parts
from spine.tables import IMAGES
from spine.web import Web
from tests.integration.curation_runs import (
    CONFIG,
    Planted,
    by_address,
    caption_all,
    number_in,
    numbered_picture,
    plant,
    score_all,
    with_lists,
)

LISTED = ("id", "address", "domain", "sha256", "md5", "sha256 of the address", "md5 of the address", "look")
FREE = len(LISTED)  # the number of the picture that no list names


class _Site(http.server.SimpleHTTPRequestHandler):
    asked: ClassVar[set[str]] = set()

    def do_GET(self) -> None:
        _Site.asked.add(self.path)
        super().do_GET()

    def log_message(self, *_: object) -> None:
        """Nothing."""


@pytest.fixture(scope="module")
def port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    folder = tmp_path_factory.mktemp("site")
    for number in range(FREE + 1):
        (folder / f"{number}.png").write_bytes(numbered_picture(number))
    photograph().resize((256, 256)).save(folder / f"{LISTED.index('look')}.png")
    server = http.server.ThreadingHTTPServer(("", 0), functools.partial(_Site, directory=str(folder)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server.server_address[1]
    server.shutdown()
    server.server_close()


def photograph() -> Image.Image:
    return Image.open(Path(skimage.__file__).parent / "data" / "astronaut.png").convert("RGB")


def loopback(port: int) -> Web:
    return Web(ports={port}, allow=("127.0.0.0/8",), timeout_s=5, max_bytes=10**6, per_host=8)


def planted(folder: Path, port: int) -> tuple[Run, list[str], list[int], str, str]:
    """A run, its pictures' addresses and ids, and the lines of two lists that name all but the last of them."""
    hosts = ["127.0.0.1"] * (FREE + 1)
    hosts[LISTED.index("domain")] = "127.0.0.2"
    urls = [f"http://{host}:{port}/{number}.png" for number, host in enumerate(hosts)]
    rows = [Planted(0, number, by_address(url, number)) for number, url in enumerate(urls)]
    config = replace(CONFIG, select=replace(CONFIG.select, quota_per_centroid=len(rows)))
    run = plant(folder, rows, config)
    ids = [row.values["id"] for row in rows]
    of_bytes = {kind: numbered_picture(number) for number, kind in enumerate(LISTED)}
    of_address = {kind: url.encode() for kind, url in zip(LISTED, urls, strict=False)}
    takedown = [str(ids[0]), urls[1], "127.0.0.2"]
    hashes = [
        hashlib.sha256(of_bytes["sha256"]).hexdigest(),
        hashlib.md5(of_bytes["md5"]).hexdigest(),
        f"url:{hashlib.sha256(of_address['sha256 of the address']).hexdigest()}",
        f"url:{hashlib.md5(of_address['md5 of the address']).hexdigest()}",
        f"pdq:{pdq(photograph())[0]}",
    ]
    return run, urls, ids, "\n".join(takedown), "\n".join(hashes)


def test_what_a_list_names_when_the_fetch_begins_is_not_asked_for_or_else_not_stored(port, tmp_path):
    run, urls, ids, takedown, hashes = planted(tmp_path / "run", port)
    with_lists(run, load_config(run.config), takedown=takedown, hash_block=hashes)
    _Site.asked.clear()

    with loopback(port) as web:
        manifest = fetch(run, depths=[100], web=web)

    assert {name: manifest.counts[name] for name in ("fetched", "failed_takedown", "failed_hash_block")} == {
        "fetched": 1,
        "failed_takedown": 3,
        "failed_hash_block": 5,
    }
    by_bytes = {LISTED.index(kind) for kind in ("sha256", "md5", "look")}
    pictures = {path for path in _Site.asked if path.endswith(".png")}
    assert pictures == {f"/{number}.png" for number in (*by_bytes, FREE)}
    assert [number_in(path.read_bytes()) for path in run.originals.rglob("*.*")] == [FREE]
    rows = {row["id"]: row for row in read_parts(run.images, IMAGES).to_pylist()}
    assert {rows[ids[number]]["reason"] for number in range(FREE)} == set(ON_LISTS)
    assert len(urls) == len(rows)


def test_what_a_list_names_later_is_shown_no_more_released_no_more_and_kept_no_more(port, tmp_path):
    run, urls, ids, takedown, hashes = planted(tmp_path / "run", port)
    config = load_config(run.config)
    with loopback(port) as web:
        fetch(run, depths=[100], web=web)
        score_all(run)
        select(run)
        caption_all(run)
        assert release(run).counts["released"] == FREE + 1
        images = {row["id"]: row for row in read_parts(run.images, IMAGES).to_pylist()}
        wanted = [
            Wanted(picture_id=number, url=url, place=images[number]["image_path"])
            for number, url in zip(ids, urls, strict=True)
        ]
        with Previews(run) as previews:
            assert all(previews.ask(each).result(60).clear for each in wanted)
            with_lists(run, config, takedown=takedown, hash_block=hashes)
            shown = [previews.ask(each).result(60) for each in wanted]

        lists = BlockLists.load(load_config(run.config).lists, run.folder)
        named = {row.id for row in blocked_rows(run, lists)}
        release(run)
        again = fetch(run, web=web)

    assert [each.reason in ON_LISTS and each.clear is None for each in shown] == [True] * FREE + [False]
    assert named == set(ids[:FREE])
    folder = newest(run, "pop", "1.0")
    assert pq.read_table(folder / "dataset.parquet")["id"].to_pylist() == ids[FREE:]
    traces = [str(number) for number in ids[:FREE]] + [images[number]["sha256"] for number in ids[:FREE]]
    for path in folder.iterdir():
        content = path.read_bytes() if path.is_file() else b""
        assert not [trace for trace in traces if trace.encode() in content], path.name
    assert again.counts["fetched"] == 1
    assert [number_in(path.read_bytes()) for path in run.originals.rglob("*.*")] == [FREE]
