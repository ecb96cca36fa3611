"""Local pictures in what people keep them in: fetch opens each where it lies, and its row is of that picture."""

import io
import json
import tarfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from curation.fetched_images import fetch
from spine.ids import content_id, laion_id
from spine.run import Run
from spine.sources import entries, read_bytes
from spine.table_files import read_parts
from spine.tables import IMAGES
from tests.integration.curation_runs import Planted, number_in, numbered_picture, plant

EACH = 4


def _folder(at: Path, numbers: range) -> Path:
    at.mkdir()
    for number in numbers:
        (at / f"{number}.png").write_bytes(numbered_picture(number))
        (at / f"{number}.txt").write_text(f"number {number}")
    return at


def _tar(at: Path, numbers: range) -> Path:
    with tarfile.open(at, "w") as tar:
        for number in numbers:
            parts = {"png": numbered_picture(number), "txt": f"number {number}".encode()}
            for suffix, content in parts.items():
                member = tarfile.TarInfo(f"{number:09d}.{suffix}")
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))
    return at


def _parquet(at: Path, numbers: range) -> Path:
    pictures = [{"bytes": numbered_picture(number), "path": f"{number}.png"} for number in numbers]
    pq.write_table(pa.table({"image": pictures, "caption": [f"number {each}" for each in numbers]}), at)
    return at


def _img2dataset(at: Path, numbers: range) -> Path:
    at.mkdir()
    with tarfile.open(at / "00000.tar", "w") as tar:
        for number in numbers:
            about = {
                "url": f"https://example.org/{number}.png",
                "caption": f"number {number}",
                "status": "success",
            }
            parts = {"png": numbered_picture(number), "json": json.dumps(about).encode()}
            for suffix, content in parts.items():
                member = tarfile.TarInfo(f"{number:09d}.{suffix}")
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))
    pq.write_table(pa.table({"url": [f"https://example.org/{n}.png" for n in numbers]}), at / "00000.parquet")
    (at / "00000_stats.json").write_text(json.dumps({"count": EACH}))
    return at


@pytest.fixture
def run(tmp_path: Path) -> Run:
    sources = [
        _folder(tmp_path / "folder", range(0, EACH)),
        _tar(tmp_path / "plain.tar", range(10, 10 + EACH)),
        _parquet(tmp_path / "cells.parquet", range(20, 20 + EACH)),
        _img2dataset(tmp_path / "downloaded", range(30, 30 + EACH)),
    ]
    rows = []
    for source in sources:
        for entry in entries(str(source)):
            if entry.place is None or entry.problem is not None:
                continue
            content = read_bytes(entry.place)
            known = content_id(content) if entry.web_id is None else entry.web_id
            values = {"id": known, "url": entry.url, "image_path": entry.place, "caption": entry.caption}
            rows.append(Planted(0, len(rows), values))
    return plant(tmp_path / "run", rows)


def test_pictures_in_folders_tars_parquet_and_img2datasets_output_are_opened_where_they_lie(run):
    manifest = fetch(run, depths=[100])

    rows = read_parts(run.images, IMAGES).to_pylist()
    numbers = {number_in(read_bytes(row["image_path"])): row for row in rows}
    assert sorted(numbers) == [10 * source + each for source in range(4) for each in range(EACH)]
    assert manifest.counts == {"candidates": 4 * EACH, "fetched": 4 * EACH, "failed": 0}
    for number, row in numbers.items():
        url = f"https://example.org/{number}.png" if number >= 30 else None
        content = numbered_picture(number)
        own = content_id(content) if url is None else laion_id(url, f"number {number}")
        assert (row["id"], row["url"], row["width"], row["height"]) == (own, url, 32, 24)
    assert not run.originals.exists()  # nothing is copied


def test_a_container_that_is_damaged_or_gone_since_costs_its_own_pictures_only(run):
    folder = run.folder.parent
    (folder / "plain.tar").unlink()
    cells = (folder / "cells.parquet").read_bytes()
    (folder / "cells.parquet").write_bytes(cells[: len(cells) // 2])
    _tar(folder / "downloaded" / "00000.tar", range(30, 30 + EACH - 1))

    manifest = fetch(run, depths=[100])

    counts = manifest.counts
    assert counts["candidates"] == counts["fetched"] + counts["failed"] == 4 * EACH
    rows = read_parts(run.images, IMAGES).to_pylist()
    failed = {row["image_path"]: row["reason"] for row in rows if row["status"] == "failed"}
    assert {place.split("::")[0].rsplit("/", 1)[1]: reason for place, reason in failed.items()} == {
        "plain.tar": "missing",
        "cells.parquet": "unreadable",
        "00000.tar": "missing",
    }
    assert len(failed) == 2 * EACH + 1
