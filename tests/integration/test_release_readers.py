"""A release as its users read it: by datasets, webdataset and mlcroissant. Each picture shows its own number.

The pictures came by their addresses from a server on loopback; those of the first ranks are gone, small or on a
list, so that the places were filled by a deeper fetch.
"""

import functools
import http.server
import json
import os
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from curation.fetched_images import fetch
from curation.refill import deeper
from curation.release import release
from curation.selection import select
from curation.tars import bucket_of
from spine.config import load_config, write_config
from spine.run import Run
from spine.settings import ReleaseConfig
from spine.sources import read_bytes
from spine.tar_members import key_of
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

SIZES = ((48, 32), (32, 48), (32, 32))
EACH, QUOTA = 24, 6


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        """Nothing."""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Pictures 0 to 47: of each centroid's 24 the first six gone, the next six too small."""
    folder = tmp_path_factory.mktemp("site")
    for number in range(2 * EACH):
        rank = number % EACH
        width, height = (20, 12) if rank < 12 else SIZES[number % len(SIZES)]
        if rank >= 6:
            (folder / f"{number}.png").write_bytes(numbered_picture(number, width, height))
    server = http.server.ThreadingHTTPServer(
        ("127.0.0.1", 0), functools.partial(_Quiet, directory=str(folder))
    )
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()


@pytest.fixture(scope="module")
def run(site: str, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Released with its pixels, sorted by shape; picture 40 was taken down, 13 is wanted by both centroids."""
    config = replace(
        CONFIG,
        select=replace(CONFIG.select, quota_per_centroid=QUOTA),
        fetch=replace(CONFIG.fetch, honour_opt_out=False),
        release=ReleaseConfig(pixels=True, aspect_buckets=True),
    )
    rows = [
        Planted(centroid, rank, by_address(f"{site}/{number}.png", number))
        for centroid in (0, 1)
        for rank, number in enumerate(range(EACH * centroid, EACH * centroid + EACH))
    ]
    rows.append(Planted(1, EACH, rows[13].values))
    made = plant(tmp_path_factory.mktemp("readers") / "run", rows, config)
    with_lists(made, config, takedown=f"{rows[40].values['id']}\n")
    web = Web(
        ports={int(site.rsplit(":", 1)[1])}, allow=("127.0.0.0/8",), timeout_s=5, max_bytes=10**6, per_host=8
    )
    depths: list[int] | None = [8, 8]
    rounds = 0
    with web:
        while depths is not None:
            reached = fetch(made, depths=depths, web=web).parameters["depths"]
            score_all(made)
            select(made)
            depths, rounds = deeper(made, config, reached), rounds + 1
    assert rounds > 1, "it was filled by going deeper"
    caption_all(made)
    assert release(made).counts["pixels"] == 2 * QUOTA
    return made


@pytest.fixture
def folder(run: Run) -> Path:
    return run.release("pop", "1.0")


def belong_together(row: dict[str, Any], content: bytes) -> int:
    """See that id, address, texts and pixels of a row are of one picture; its number."""
    number = number_in(content)
    assert row["url"].endswith(f"/{number}.png")
    assert row["id"] == by_address(row["url"], number)["id"]
    assert row["alt_txt"] == f"number {number}"
    assert row["caption"] == row["llava_caption"] == f"a picture of number {number}"
    assert row["key"] == str(number)
    return number


EXPECTED = {*range(12, 18), *range(EACH + 12, EACH + 19)} - {40}
"""By hand: of each centroid the six nearest that are there, large enough and not taken down."""


def test_datasets_loads_the_folder_and_every_row_is_of_one_picture(folder, tmp_path, monkeypatch):
    monkeypatch.setitem(os.environ, "HF_HUB_OFFLINE", "1")
    from datasets import load_dataset

    rows = load_dataset(str(folder), split="train", cache_dir=str(tmp_path))

    assert {belong_together(row, read_bytes(row["image_path"])) for row in rows} == EXPECTED
    assert len(rows) == len(EXPECTED) == 2 * QUOTA
    table = rows.to_list()
    assert [(row["centroid_id"], row["rank"]) for row in table] == sorted(
        (row["centroid_id"], row["rank"]) for row in table
    )


def test_webdataset_reads_pixels_text_and_row_of_one_picture_from_tars_of_one_shape(folder):
    from webdataset import WebDataset

    found = []
    for tar in sorted((folder / "webdataset").glob("*.tar")):
        for sample in WebDataset(str(tar), shardshuffle=False):
            row = json.loads(sample["json"])
            found.append(belong_together(row, sample["png"]))
            assert sample["__key__"] == key_of(row["id"])
            assert sample["txt"].decode() == row["caption"]
            assert tar.name == f"{bucket_of(row['width'], row['height'])}-00000.tar"
        decoded = next(iter(WebDataset(str(tar), shardshuffle=False).decode("rgb8")))
        assert decoded["png"].shape == (decoded["json"]["height"], decoded["json"]["width"], 3)
        assert decoded["png"].dtype == np.uint8
    assert set(found) == EXPECTED and len(found) == 2 * QUOTA


def test_datasets_reads_the_tars_too(folder, tmp_path):
    from datasets import load_dataset

    tars = [str(path) for path in sorted((folder / "webdataset").glob("*.tar"))]
    rows = load_dataset("webdataset", data_files={"train": tars}, split="train", cache_dir=str(tmp_path))

    numbers = {int(row["json"]["key"]): np.asarray(row["png"].convert("L")) for row in rows}
    assert set(numbers) == EXPECTED
    for number, pixels in numbers.items():
        bits = pixels[len(pixels) // 2][((np.arange(16) + 0.5) * pixels.shape[1] / 16).astype(int)] > 127
        assert sum(int(bit) << place for place, bit in enumerate(bits)) == number


def test_mlcroissant_finds_no_fault_and_loads_every_row(folder):
    import mlcroissant

    dataset = mlcroissant.Dataset(jsonld=str(folder / "croissant.json"))
    rows = list(dataset.records("rows"))

    issues = dataset.metadata.ctx.issues
    assert issues.errors == set()
    # Recommended alone. A date would make the same rows other bytes each day; whom to cite nobody told us.
    assert {each.rpartition("/")[2].partition('"')[0] for each in issues.warnings} == {
        "citeAs",
        "datePublished",
    }
    plain = [{name.removeprefix("rows/"): value for name, value in row.items()} for row in rows]
    texts = ("url", "alt_txt", "caption", "llava_caption", "key", "image_path")
    for row in plain:
        row |= {name: row[name].decode() for name in texts}
    assert {belong_together(row, read_bytes(row["image_path"])) for row in plain} == EXPECTED
    assert len(rows) == 2 * QUOTA


def test_a_revisions_metadata_is_valid_and_has_a_version_that_machines_order(run):
    import mlcroissant

    config = load_config(run.config)
    write_config(run.config, replace(config, release=replace(config.release, licence="CC0-1.0")))
    folder = run.folder / release(run).facts["folder"]

    metadata = mlcroissant.Dataset(jsonld=str(folder / "croissant.json")).metadata

    assert folder.name == "pop-1.0+1"
    assert (metadata.version, metadata.license) == ("1.0.0+1", ["CC0-1.0"])
    assert metadata.ctx.issues.errors == set()
