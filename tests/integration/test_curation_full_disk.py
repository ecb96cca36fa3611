"""A disk that is full stops fetch, select and release with the system's own error, and with room they end the same."""

import errno
import functools
import http.server
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from curation.fetched_images import fetch
from curation.release import release
from curation.revisions import newest
from curation.selection import select
from spine.config import write_config
from spine.manifest import find_manifest
from spine.publish import sha256_of
from spine.run import Run
from spine.settings import Config, ReleaseConfig
from spine.table_files import read_parts
from spine.tables import IMAGES
from spine.web import Web
from tests.integration.curation_runs import CONFIG, Planted, by_address, caption_all, local, plant, score_all
from tests.small_disk import fill, small_disk

HOSTS = ("127.0.0.1", "127.0.0.2")
EACH = 20
"""Pictures of each host, of some 30 kB."""


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        """Nothing."""


@pytest.fixture(scope="module")
def port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    folder = tmp_path_factory.mktemp("site")
    for number in range(len(HOSTS) * EACH):
        noise = np.random.default_rng(number).integers(0, 256, (100, 100, 3), dtype=np.uint8)
        Image.fromarray(noise).save(folder / f"{number}.png")
    server = http.server.ThreadingHTTPServer(("", 0), functools.partial(_Quiet, directory=str(folder)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server.server_address[1]
    server.shutdown()
    server.server_close()


def told(run: Run) -> list[dict[str, object]]:
    """The ledger's rows, without the folder that the run lies in."""
    rows = read_parts(run.images, IMAGES).to_pylist()
    return [row | {"image_path": Path(row["image_path"]).name} for row in rows]


@pytest.mark.parametrize("processes", [1, 2])
def test_a_fetch_without_room_says_so_and_with_room_ends_as_ever(port, tmp_path, processes):
    config = replace(CONFIG, fetch=replace(CONFIG.fetch, processes=processes))
    rows = [
        Planted(0, number, by_address(f"http://{HOSTS[number % 2]}:{port}/{number}.png", number))
        for number in range(len(HOSTS) * EACH)
    ]
    unbroken = plant(tmp_path / "unbroken", rows, config)
    with (
        Web(ports={port}, allow=("127.0.0.0/8",), timeout_s=5, max_bytes=10**6, per_host=8) as web,
        small_disk(tmp_path / "disk", "700k") as disk,
    ):
        run = plant(disk / "run", rows, config)
        with pytest.raises(OSError, match="No space left on device") as full:
            fetch(run, depths=[100], web=web)
        assert full.value.errno == errno.ENOSPC and find_manifest(run.images) is None
        subprocess.run(["mount", "-o", "remount,size=20m", str(disk)], check=True)

        manifest = fetch(run, web=web)

        assert manifest.counts == fetch(unbroken, depths=[100], web=web).counts
        assert manifest.counts["fetched"] == len(rows)
        assert told(run) == told(unbroken)
        stored = [sorted(sha256_of(path) for path in each.originals.rglob("*.*")) for each in (run, unbroken)]
        assert stored[0] == stored[1] and len(stored[0]) == len(rows)


def prepared(folder: Path, pool: Path, config: Config) -> Run:
    """A run with all that select needs; its pictures lie elsewhere."""
    rows = [
        Planted(centroid, rank, local(pool, 10 * centroid + rank)) for centroid in (0, 1) for rank in range(5)
    ]
    run = plant(folder, rows, config)
    fetch(run, depths=[5, 5])
    score_all(run)
    return run


def test_select_and_release_without_room_leave_nothing_half_and_with_room_end_as_ever(tmp_path):
    config = replace(CONFIG, release=ReleaseConfig(pixels=True))
    unbroken = prepared(tmp_path / "unbroken", tmp_path / "pool", config)
    select(unbroken)
    caption_all(unbroken)
    release(unbroken)
    with small_disk(tmp_path / "disk", "20m") as disk:
        run = prepared(disk / "run", tmp_path / "pool", config)
        write_config(run.config, config)

        room = fill(disk)
        with pytest.raises(OSError, match="No space left on device"):
            select(run)
        assert find_manifest(run.selection) is None
        room.unlink()
        select(run)
        caption_all(run)
        room = fill(disk)
        with pytest.raises(OSError, match="No space left on device"):
            release(run)
        assert not list(run.folder.glob("release/*/manifest.json"))
        room.unlink()
        release(run)

        ours, theirs = (newest(each, "pop", "1.0") for each in (run, unbroken))
        assert sha256_of(run.selection_table) == sha256_of(unbroken.selection_table)
        names = {
            path.relative_to(theirs) for path in theirs.rglob("*.*") if path.suffix in (".parquet", ".tar")
        }
        assert len(names) >= 2
        assert {name: sha256_of(ours / name) for name in names} == {
            name: sha256_of(theirs / name) for name in names
        }
