"""The report of a release over stored vectors: its sets, its figures, and the centroids that stayed unfilled."""

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from curation.compared_sets import HALF, RANDOM, RELEASE, TOP_K, compared_sets
from curation.fetched_images import fetch
from curation.release import release
from curation.selection import select
from curation.verdicts import Verdicts
from spine.config import load_config, write_config
from spine.manifest import read_manifest
from spine.publish import publish_table
from spine.run import Run, part_path
from spine.settings import ReleaseConfig, SelectConfig
from spine.shards import write_shard
from spine.stage import Stage
from spine.table_files import read_parts, read_table
from spine.tables import IMAGES, METADATA, SELECTION, list_column, scores_schema
from tests.integration.curation_runs import (
    CONFIG,
    D,
    Planted,
    caption_all,
    local,
    plant,
    score_all,
    with_lists,
)

CENTROIDS, EACH, QUOTA = 6, 16, 10


def unit(vectors: np.ndarray) -> np.ndarray:
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def collection(run: Run, name: str, vectors: np.ndarray, ids: list[int]) -> None:
    stage = Stage.open(name, run.collection(name), {}, {})
    for number, rows in enumerate(np.array_split(np.arange(len(ids)), 3)):
        table = pa.Table.from_pylist(
            [dict.fromkeys(METADATA.names) | {"id": ids[row]} for row in rows], METADATA
        )
        write_shard(run.collection(name), number, vectors[rows], table)
    stage.finish({"embedded": len(ids)}, {"d": D})


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Neighbours near the axes, as the concepts are; the rest of the pool anywhere. Last centroid: all too small."""
    sizes = {(CENTROIDS - 1, rank): {"height": 8} for rank in range(EACH)} | {
        (0, 0): {"width": 64, "height": 32}
    }
    rows = [
        Planted(c, rank, local(tmp_path / "pool", 100 * c + rank, **sizes.get((c, rank), {})))
        for c in range(CENTROIDS)
        for rank in range(EACH)
    ]
    run = plant(tmp_path / "run", rows, replace(CONFIG, select=SelectConfig(quota_per_centroid=QUOTA)))
    chance = np.random.default_rng(0)
    near = unit(np.repeat(np.eye(CENTROIDS, D), EACH, axis=0) + 0.1 * chance.standard_normal((len(rows), D)))
    ids = [row.values["id"] for row in rows]
    fetch(run, depths=[EACH] * CENTROIDS)
    score_all(run)
    part = part_path(run.scores, 0)
    table = read_table(part, scores_schema(D))
    of = dict(zip(ids, near, strict=True))
    vectors = np.array([of[number] for number in table.column("id").to_pylist()])
    table = table.set_column(1, table.schema.field(1), list_column(vectors, pa.float16()))
    publish_table(part, table)
    manifest = read_manifest(run.scores)
    (run.scores / "manifest.json").unlink()
    Stage.open("scores", run.scores, {}, manifest.inputs, grows_with={"images"}).finish(
        manifest.counts, manifest.facts
    )
    concepts = unit(np.eye(CENTROIDS, D)[np.arange(120) % CENTROIDS] + 0.1 * chance.standard_normal((120, D)))
    collection(run, "concepts", concepts, list(range(120)))
    others = unit(chance.standard_normal((400, D)))
    collection(run, "pool", np.concatenate([near, others]), ids + list(range(10_000, 10_400)))
    select(run)
    caption_all(run)
    return run


def report(run: Run) -> dict:
    release(run)
    return json.loads((run.release("pop", "1.0") / "report.json").read_text())


def test_the_release_is_told_from_a_random_sample_of_the_pool(run):
    sets = report(run)["sets"]

    assert set(sets) == {RELEASE, TOP_K, RANDOM, HALF}
    assert len({figures["pictures"] for figures in sets.values()}) == 1
    assert sets[RELEASE]["precision"] > sets[RANDOM]["precision"] + 0.3
    assert sets[RELEASE]["similarity"] > sets[RANDOM]["similarity"] + 0.1
    assert sets[RELEASE]["frechet"] < sets[RANDOM]["frechet"]
    assert sets[RELEASE]["vendi"] < sets[RANDOM]["vendi"]


def test_the_page_says_in_words_in_which_figures_the_release_is_nearer_than_other_sets(run):
    content = report(run)
    sets = content["sets"]

    for other, line in zip((RANDOM, TOP_K), content["nearer"], strict=True):
        nearer, farther = line.split(" in ", 1)[1].split("; farther in ")
        for name, called, side in (
            ("precision", "precision", 1),
            ("coverage", "coverage", 1),
            ("similarity", "similarity", 1),
            ("frechet", "Fréchet distance", -1),
        ):
            gain = side * (sets[RELEASE][name] - sets[other][name])
            assert (called in nearer, called in farther) == (gain > 0, gain < 0)
        assert line in (run.release("pop", "1.0") / "report.html").read_text()


def test_each_set_holds_the_vectors_of_its_own_pictures(run):
    released = read_table(run.selection_table, SELECTION).to_pylist()
    chosen = np.array([row["id"] for row in released if row["verdict"] == "selected"])

    found = compared_sets(run, chosen, load_config(run.config), Verdicts())

    assert found is not None
    assert {name: len(each) for name, each in found.sets.items()} == {
        HALF: 60,
        RELEASE: QUOTA * (CENTROIDS - 1),
        RANDOM: CENTROIDS * EACH + 400,
        TOP_K: QUOTA * CENTROIDS,
    }
    axes = found.sets[TOP_K].argmax(axis=1)
    assert np.bincount(axes, minlength=CENTROIDS).tolist() == [QUOTA] * CENTROIDS
    assert set(found.sets[RELEASE].argmax(axis=1).tolist()) == set(range(CENTROIDS - 1))
    norms = np.linalg.norm(found.sets[RANDOM], axis=1)
    np.testing.assert_allclose(norms, 1, atol=1e-5)


def test_unfilled_centroids_are_named_with_their_reason(run):
    (unfilled,) = report(run)["unfilled_centroids"]

    assert (unfilled["centroid_id"], unfilled["selected"], unfilled["quota"]) == (CENTROIDS - 1, 0, QUOTA)
    assert unfilled["lost"] == {"min_side_px": EACH}
    assert unfilled["why"] == f"all {EACH} neighbours tried; most fell to min_side_px ({EACH})"


def test_the_page_loads_nothing_and_shows_the_figures(run, chromium):
    content = report(run)
    page, asked = chromium.new_page(), []
    page.on("request", lambda request: asked.append(request.url))
    page.goto((run.release("pop", "1.0") / "report.html").as_uri())

    assert [url for url in asked if not url.startswith("file:")] == []
    text = page.inner_text("body")
    assert f"{content['sets'][RELEASE]['precision']:g}" in text
    assert "most fell to min_side_px" in text
    assert page.locator("svg").count() == 2
    page.close()


def test_the_pages_fit_a_phone_and_are_dark_where_that_is_wished_for(run, chromium):
    report(run)
    context = chromium.new_context(viewport={"width": 390, "height": 800}, color_scheme="dark")
    page = context.new_page()
    for name in ("report", "samples"):
        page.goto((run.release("pop", "1.0") / f"{name}.html").as_uri())
        assert page.evaluate("document.documentElement.scrollWidth") == 390
        background, text = (
            page.evaluate(f"getComputedStyle(document.body).{each}") for each in ("backgroundColor", "color")
        )
        shades = [sum(map(int, re.findall(r"\d+", colour)[:3])) for colour in (background, text)]
        assert shades[0] < 200 < 500 < shades[1]
    context.close()


def test_the_same_run_gives_the_same_report(run):
    first = report(run)
    before = {
        name: (run.release("pop", "1.0") / name).read_bytes() for name in ("report.json", "report.html")
    }
    release(run, force=True)

    assert report(run) == first
    for name, content in before.items():
        assert (run.release("pop", "1.0") / name).read_bytes() == content


def test_without_stored_concepts_or_too_few_pictures_the_report_says_so(run):
    (run.concepts / "manifest.json").unlink()
    content = report(run)

    assert content["sets"] == {}
    assert "aren't stored" in content["missing"][RELEASE]
    assert re.search("There are no figures", (run.release("pop", "1.0") / "report.html").read_text())


class Meanwhile:
    """A progress that takes a picture down while the release is being written."""

    def __init__(self, run: Run, picture: int) -> None:
        self.run, self.picture, self.said = run, picture, []

    def begin(self, stage, total, unit, done=0) -> None:
        if self.picture:
            with_lists(self.run, load_config(self.run.config), takedown=str(self.picture))
            self.picture = 0

    def advance(self, units, failures=None) -> None:
        pass

    def say(self, line: str) -> None:
        self.said.append(line)

    def end(self) -> None:
        pass


def test_a_takedown_during_a_release_leaves_nothing(run):
    """Of the pictures in its tars neither: the one taken down is the only one of its shape, and so of its tar."""
    config = load_config(run.config)
    write_config(run.config, replace(config, release=ReleaseConfig(pixels=True, aspect_buckets=True)))
    chosen = next(
        row for row in read_table(run.selection_table, SELECTION).to_pylist() if row["verdict"] == "selected"
    )
    places = read_parts(run.images, IMAGES, ["id", "sha256", "image_path"]).to_pylist()
    sha256 = next(row["sha256"] for row in places if row["id"] == chosen["id"])
    place = next(row["image_path"] for row in places if row["id"] == chosen["id"])
    pixels = Path(place).read_bytes()
    progress = Meanwhile(run, chosen["id"])

    manifest = release(run, progress=progress)

    assert "a list changed meanwhile: the release is made again" in progress.said
    assert manifest.counts["left_out_takedown"] == 1
    assert [path.name for path in run.releases.iterdir()] == ["pop-1.0"]
    for path in run.release("pop", "1.0").rglob("*"):
        if path.is_file():
            content = path.read_bytes()
            assert str(chosen["id"]).encode() not in content
            assert sha256.encode() not in content
            assert pixels not in content
    shapes = {path.name for path in run.release("pop", "1.0").glob("webdataset/*.tar")}
    assert shapes == {"4x3-00000.tar"}, "that of its shape is gone"
    assert (
        chosen["id"]
        not in read_table(run.release("pop", "1.0") / "dataset.parquet", pa.schema([("id", pa.int64())]))[
            "id"
        ].to_pylist()
    )
