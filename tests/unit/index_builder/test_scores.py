"""Scores of planted pictures, against heads whose arithmetic is written out."""

import hashlib
import io

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from index_builder import scores
from index_builder.clip import ClipEncoder
from index_builder.embeddings import embed
from index_builder.heads import DEMO_HEADS
from index_builder.scores import score
from spine.config import load_config, write_config
from spine.errors import DataError, ModelError
from spine.ids import content_id
from spine.publish import publish_table
from spine.run import Run, part_path, part_paths
from spine.settings import ClipConfig, Config, ScoreConfig, SelectConfig
from spine.stage import Stage
from spine.tables import GROUPS, IMAGES, read_parts, read_table, scores_schema, vectors_of

CLIP = ClipConfig(model="demo", pretrained="", device="cpu", batch_size=16, workers=1)


@pytest.fixture(autouse=True)
def small_parts(monkeypatch):
    monkeypatch.setattr(scores, "PART_ROWS", 8)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """24 pictures of noise, of different sizes; a smaller copy of picture 0 as picture 24."""
    folder = tmp_path_factory.mktemp("pictures")
    generator = np.random.default_rng(11)
    for number in range(24):
        coarse = Image.fromarray(generator.integers(0, 256, (5, 6, 3), dtype=np.uint8))
        coarse.resize((180 + number, 150), Image.Resampling.NEAREST).save(folder / f"{number:02d}.png")
    Image.open(folder / "00.png").resize((90, 75), Image.Resampling.LANCZOS).save(folder / "24.png")
    return sorted(folder.glob("*.png"))


def image_row(path, **changes):
    content = path.read_bytes() if path.exists() else b""
    width, height = Image.open(io.BytesIO(content)).size if content else (1, 1)
    return {
        "id": content_id(content),
        "status": "fetched",
        "image_path": str(path),
        "sha256": hashlib.sha256(content).hexdigest(),
        "width": width,
        "height": height,
    } | changes


def publish_images(run, rows):
    """What fetch leaves: parts of ten rows, and a manifest."""
    stage = Stage.open("images", run.images, {}, {}, force=True)
    for number in range(0, len(rows), 10):
        publish_table(
            part_path(run.images, number // 10), pa.Table.from_pylist(rows[number : number + 10], IMAGES)
        )
    stage.finish({"images": len(rows)})


def make_run(folder, **settings):
    run = Run(folder)
    run.folder.mkdir()
    demo = ScoreConfig(aesthetic_head="demo", unsafe_head="demo", watermark_head="")
    write_config(run.config, Config(**{"clip": CLIP, "score": demo} | settings))
    return run


def table_of(run):
    return read_parts(run.scores, scores_schema(128))


def test_every_fetched_picture_has_its_own_scores(tmp_path, pictures):
    run = make_run(tmp_path / "run")
    rows = [image_row(path) for path in pictures]
    failed = {"id": 5, "status": "failed", "reason": "missing"}
    publish_images(run, [*rows, failed])

    manifest = score(run)

    assert {name: manifest.counts[name] for name in ("images", "scored", "failed")} == {
        "images": 25,
        "scored": 25,
        "failed": 0,
    }
    table = table_of(run)
    assert table["id"].to_pylist() == [row["id"] for row in rows]
    encoder = ClipEncoder.load(CLIP)
    alone = np.stack(
        [encoder.encode_images(encoder.preprocess(Image.open(path))[None])[0] for path in pictures]
    )
    assert np.abs(vectors_of(table["embedding"]) - alone).max() < 1e-3
    state = torch.load(DEMO_HEADS / "aesthetic_linear.pth", weights_only=True)
    by_hand = vectors_of(table["embedding"]) @ state["weight"][0].numpy() + state["bias"].item()
    assert np.abs(table["aesthetic"].to_numpy() - by_hand).max() < 1e-4
    unsafe = table["unsafe"].to_numpy()
    assert ((unsafe >= 0) & (unsafe <= 1)).all()
    assert table["watermark"].null_count == table["watermark_model"].null_count == 25
    assert manifest.facts["demo_models"] is True
    assert set(table["aesthetic_model"].to_pylist()) == {manifest.facts["aesthetic"]}
    assert manifest.facts["aesthetic"].startswith("demo-aesthetic-")


def test_the_larger_of_two_near_duplicates_stands_for_both(tmp_path, pictures):
    run = make_run(tmp_path / "run", select=SelectConfig(near_duplicate=0.97))
    rows = [image_row(path) for path in [pictures[24], *pictures[:24]]]  # the small copy comes first
    publish_images(run, rows)

    manifest = score(run)

    groups = {row["id"]: row for row in read_table(run.groups_table, GROUPS).to_pylist()}
    large, small = rows[1]["id"], rows[0]["id"]
    assert groups[small] == {"id": small, "group": large, "group_size": 2}
    assert groups[large] == {"id": large, "group": large, "group_size": 2}
    assert manifest.counts["groups"] == len({row["group"] for row in groups.values()})
    assert len(groups) == 25


def test_a_deeper_fetch_adds_parts_and_keeps_those_there_are(tmp_path, pictures):
    run, at_once = make_run(tmp_path / "run"), make_run(tmp_path / "at_once")
    rows = [image_row(path) for path in pictures]
    publish_images(run, rows[:10])
    score(run)
    kept = {path: path.stat().st_mtime_ns for path in part_paths(run.scores)}
    publish_images(run, rows)
    publish_images(at_once, rows)

    score(run)
    score(at_once)

    assert all(path.stat().st_mtime_ns == time for path, time in kept.items())
    assert table_of(run).equals(table_of(at_once))
    assert read_table(run.groups_table, GROUPS).equals(read_table(at_once.groups_table, GROUPS))
    assert score(run).counts["images"] == 25  # nothing to do


def test_a_picture_that_changed_under_its_id_is_scored_again(tmp_path, pictures):
    run = make_run(tmp_path / "run")
    publish_images(run, [image_row(path, id=number) for number, path in enumerate(pictures[:3])])
    score(run)
    before = vectors_of(table_of(run)["embedding"])
    changed = [*pictures[:2], pictures[9]]
    publish_images(run, [image_row(path, id=number) for number, path in enumerate(changed)])

    score(run)

    table = table_of(run)
    after = vectors_of(table["embedding"])
    assert table["id"].to_pylist() == [0, 1, 2]
    assert np.array_equal(after[:2], before[:2])
    assert not np.array_equal(after[2], before[2])


def test_a_stopped_run_goes_on_and_equals_an_unbroken_one(tmp_path, pictures):
    broken, unbroken = make_run(tmp_path / "broken"), make_run(tmp_path / "unbroken")
    rows = [image_row(path) for path in pictures]
    rows.insert(3, image_row(tmp_path / "gone.png", id=77))
    for run in (broken, unbroken):
        publish_images(run, rows)
    wanted = score(unbroken)

    class Stops:
        units = 0

        def advance(self, units, failures=None):
            self.units += units
            if self.units >= 16:
                raise KeyboardInterrupt

        def __getattr__(self, name):
            return lambda *_, **__: None

    with pytest.raises(KeyboardInterrupt):
        score(broken, progress=Stops())
    assert len(part_paths(broken.scores)) == 2
    manifest = score(broken)

    assert table_of(broken).equals(table_of(unbroken))
    assert manifest.counts == wanted.counts
    assert wanted.counts | {"groups": 0} == {
        "images": 26,
        "scored": 25,
        "failed": 1,
        "failed_missing": 1,
        "groups": 0,
    }
    groups = read_table(broken.groups_table, GROUPS).to_pylist()
    assert {"id": 77, "group": 77, "group_size": 1} in groups


def test_the_pools_embedding_is_taken_for_the_same_bytes(tmp_path, pictures, monkeypatch):
    run = make_run(tmp_path / "run")
    embed(run, "pool", str(pictures[0].parent))
    publish_images(run, [image_row(path) for path in pictures])
    computed = make_run(tmp_path / "computed")
    publish_images(computed, [image_row(path) for path in pictures])

    score(computed)
    monkeypatch.setattr(ClipEncoder, "load", lambda config: pytest.fail("no model is needed"))
    score(run)

    assert table_of(run).equals(table_of(computed))


def test_another_head_scores_anew(tmp_path, pictures):
    run = make_run(tmp_path / "run")
    publish_images(run, [image_row(path) for path in pictures[:4]])
    score(run)
    torch.save({"weight": torch.zeros(1, 128), "bias": torch.tensor([7.0])}, tmp_path / "seven.pth")
    config = load_config(run.config)
    write_config(
        run.config, Config(clip=config.clip, score=ScoreConfig(aesthetic_head=str(tmp_path / "seven.pth")))
    )

    manifest = score(run)

    assert table_of(run)["aesthetic"].to_pylist() == [7.0] * 4
    assert manifest.facts["aesthetic"].startswith("seven-")
    assert manifest.facts["demo_models"] is True  # the embeddings still are


def test_no_heads_give_embeddings_and_unknown_scores(tmp_path, pictures):
    run = make_run(tmp_path / "run", score=ScoreConfig())
    publish_images(run, [image_row(path) for path in pictures[:3]])

    score(run)

    table = table_of(run)
    assert all(
        table[column].null_count == 3 for column in ("aesthetic", "unsafe", "watermark", "unsafe_model")
    )
    assert vectors_of(table["embedding"]).shape == (3, 128)
    assert pq.read_schema(part_paths(run.scores)[0]).field("embedding").type.list_size == 128


def test_what_cannot_be_scored_is_one_clear_line(tmp_path, pictures):
    run = make_run(tmp_path / "run")
    with pytest.raises(DataError, match="not finished"):
        score(run)
    publish_images(run, [{"id": 1, "status": "failed", "reason": "missing"}])
    with pytest.raises(DataError, match="no picture was fetched"):
        score(run)
    publish_images(run, [image_row(tmp_path / "gone.png")])
    with pytest.raises(DataError, match="none of 1 pictures could be opened .missing 1"):
        score(run)
    torch.save({"weight": torch.zeros(1, 768), "bias": torch.zeros(1)}, tmp_path / "other.pth")
    write_config(run.config, Config(clip=CLIP, score=ScoreConfig(aesthetic_head=str(tmp_path / "other.pth"))))
    publish_images(run, [image_row(pictures[0])])
    with pytest.raises(ModelError, match="d = 768"):
        score(run)
