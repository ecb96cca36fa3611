"""Scores of planted pictures, against heads whose arithmetic is written out."""

import hashlib
import io
import time

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import safetensors.numpy
import torch
from PIL import Image

from index_builder import embeddings, scores
from index_builder.embeddings import embed
from index_builder.encoding.clip import ClipEncoder
from index_builder.metadata.side_tables import side_tables
from index_builder.scores import score
from index_builder.scoring.heads import DEMO_HEADS, load_head
from index_builder.scoring.pool_scores import score_pool
from index_builder.scoring.scorers import check_heads
from index_builder.scoring.watermarks import WITH, WITHOUT, ZeroShotWatermarks
from popfactory.demo_drawing import draw
from popfactory.demo_world import random_scene
from spine.config import load_config, write_config
from spine.errors import ConfigError, DataError, ModelError
from spine.ids import content_id
from spine.lists import LOOK_EVERY_S
from spine.manifest import find_manifest
from spine.publish import publish_table
from spine.run import Run, part_path, part_paths
from spine.settings import ClipConfig, Config, ListsConfig, ScoreConfig, SelectConfig
from spine.shards import read_shards
from spine.stage import Stage
from spine.table_files import read_parts, read_table
from spine.tables import GROUPS, IMAGES, METADATA, NEIGHBOURS, POOL_SIMILARITIES, scores_schema, vectors_of
from spine.torchvision_ops import declare_missing_operators

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


class _AfterTheFirstPart:
    """Does something once, when the first pictures are scored."""

    def __init__(self, change):
        self._change, self._done = change, False

    def begin(self, *_, **__):
        pass

    say = end = begin

    def advance(self, *_, **__):
        if not self._done:
            self._done = True
            self._change()
            time.sleep(LOOK_EVERY_S * 1.2)


def test_a_picture_that_is_listed_meanwhile_is_not_scored_and_an_unreadable_list_stops_the_work(
    tmp_path, pictures
):
    lists = ListsConfig(takedown=("gone.txt",), hash_block=("hashes.txt",))
    run = make_run(tmp_path / "run", lists=lists)
    rows = [image_row(path) for path in pictures]
    publish_images(run, rows)
    gone, hashes = (run.folder / name for name in ("gone.txt", "hashes.txt"))
    gone.write_text(f"{rows[0]['id']}\n")
    hashes.write_text("")

    with pytest.raises(ConfigError, match=r"gone\.txt: can't be read"):
        score(run, progress=_AfterTheFirstPart(gone.unlink))
    assert find_manifest(run.scores) is None
    gone.write_text(f"{rows[0]['id']}\n")
    manifest = score(
        run, force=True, progress=_AfterTheFirstPart(lambda: hashes.write_text(rows[20]["sha256"]))
    )

    assert sorted(table_of(run)["id"].to_pylist()) == sorted(
        row["id"] for place, row in enumerate(rows) if place not in (0, 20)
    )
    counts = {name: manifest.counts[name] for name in ("scored", "failed_takedown", "failed_hash_block")}
    assert counts == {"scored": 23, "failed_takedown": 1, "failed_hash_block": 1}


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


def test_a_download_is_held_against_the_pools_own_embedding_of_it(tmp_path, pictures):
    """0 to 9 were saved again; 10 shows another picture by now; 11 is local; 12 the pool doesn't know."""
    run = make_run(tmp_path / "run")
    embed(run, "pool", str(pictures[0].parent))
    (tmp_path / "now").mkdir()
    rows = []
    for number, path in enumerate(pictures[:13]):
        now = tmp_path / "now" / f"{number}.jpg"
        Image.open(pictures[20] if number == 10 else path).convert("RGB").save(now, quality=60)
        rows.append(
            image_row(now, id=content_id(path.read_bytes()), http_status=None if number == 11 else 200)
        )
    rows[12]["id"] = 12
    publish_images(run, rows)

    score(run)

    table = read_table(run.pool_similarities_table, POOL_SIMILARITIES)
    found = dict(zip(*(table[name].to_pylist() for name in ("id", "similarity")), strict=True))
    assert set(found) == {row["id"] for row in rows[:11]}
    ours = {row["id"]: np.array(row["embedding"], np.float64) for row in table_of(run).to_pylist()}
    encoder = ClipEncoder.load(CLIP)
    for path, row in zip(pictures, rows[:11], strict=False):
        then = encoder.encode_images(encoder.preprocess(Image.open(path))[None])[0]
        assert found[row["id"]] == pytest.approx(ours[row["id"]] @ then, abs=2e-3)
    assert min(found[row["id"]] for row in rows[:10]) > 0.9 > found[rows[10]["id"]]


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
    run = make_run(tmp_path / "run", score=ScoreConfig(watermark_head=""))
    publish_images(run, [image_row(path) for path in pictures[:3]])

    score(run)

    table = table_of(run)
    assert all(
        table[column].null_count == 3 for column in ("aesthetic", "unsafe", "watermark", "unsafe_model")
    )
    assert vectors_of(table["embedding"]).shape == (3, 128)
    assert pq.read_schema(part_paths(run.scores)[0]).field("embedding").type.list_size == 128


def publish_neighbours(run, watermarks):
    """What retrieve leaves: the pool's own pwatermark by id."""
    stage = Stage.open("neighbours", run.neighbours, {}, {}, force=True)
    rows = [
        dict.fromkeys(NEIGHBOURS.names) | {"centroid_id": 0, "rank": rank, "id": number, "pwatermark": value}
        for rank, (number, value) in enumerate(watermarks.items())
    ]
    publish_table(part_path(run.neighbours, 0), pa.Table.from_pylist(rows, NEIGHBOURS))
    stage.finish({})


def test_without_weights_or_metadata_watermarks_are_guessed_from_words_and_named_so(tmp_path, pictures):
    run = make_run(tmp_path / "run", score=ScoreConfig())
    rows = [image_row(path) for path in pictures[:6]]
    publish_images(run, rows)
    publish_neighbours(run, {rows[0]["id"]: 0.25, rows[1]["id"]: None})

    manifest = score(run)

    table = table_of(run)
    encoder = ClipEncoder.load(CLIP)
    words = [encoder.encode_texts(list(texts)).mean(axis=0) for texts in (WITH, WITHOUT)]
    with_, without = (vector / np.linalg.norm(vector) for vector in words)
    scale = np.exp(encoder._model.logit_scale.item())
    stored = vectors_of(table["embedding"])
    wanted = 1 / (1 + np.exp(-scale * (stored @ with_ - stored @ without)))
    assert table["watermark"].to_pylist()[0] is None  # the pool says it
    assert table["watermark_model"].to_pylist() == [None] + ["zero-shot by demo-clip"] * 5
    assert np.abs(table["watermark"].to_numpy()[1:] - wanted[1:]).max() < 1e-5
    assert manifest.facts["watermark"] == "zero-shot by demo-clip"
    assert "guess from words" in manifest.facts["scales"]["watermark"]
    field = pq.read_schema(part_paths(run.scores)[0]).field("watermark")
    assert field.metadata[b"model"] == b"zero-shot by demo-clip" and b"guess" in field.metadata[b"scale"]

    publish_neighbours(run, {row["id"]: 0.5 for row in rows[:3]})
    publish_images(run, rows)
    stage = Stage.open("images", run.images, {"again": 1}, {}, force=False)
    publish_table(part_path(run.images, 0), pa.Table.from_pylist(rows, IMAGES))
    stage.finish({"images": 6})
    score(run)
    assert table_of(run)["watermark"].is_valid().to_pylist() == [False] * 3 + [True] * 3


def test_drawn_watermarks_are_told_apart_by_words():
    """The demo model on its own world: what the guess is worth where the model knows the words."""
    generator = np.random.default_rng(3)
    scenes = [random_scene(generator, p_watermark=0.5) for _ in range(60)]
    encoder = ClipEncoder.load(CLIP)
    vectors = encoder.encode_images(np.stack([encoder.preprocess(draw(scene, 160, 160)) for scene in scenes]))

    guess = ZeroShotWatermarks.of(encoder).score(vectors)

    marked = np.array([scene.watermark for scene in scenes])
    pairs = guess[marked][:, None] > guess[~marked][None]
    assert 10 < marked.sum() < 50 and pairs.mean() > 0.95  # area under the curve


@pytest.fixture(scope="module")
def classifier(tmp_path_factory, pictures):
    """LAION's watermark network with random weights, as a file; and its answer by timm and torchvision alone."""
    declare_missing_operators()
    import timm
    from torchvision import transforms

    torch.manual_seed(0)
    network = timm.create_model("efficientnet_b3", num_classes=2)
    layers = [torch.nn.Linear(1536, 625), torch.nn.ReLU(), torch.nn.Dropout(0.3), torch.nn.Linear(625, 256)]
    network.classifier = torch.nn.Sequential(*layers, torch.nn.ReLU(), torch.nn.Linear(256, 2))
    path = tmp_path_factory.mktemp("weights") / "watermark_model_v1.pt"
    prepare = transforms.Compose(
        [
            transforms.Resize((256, 256)),
            transforms.ToTensor(),
            transforms.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]),
        ]
    )

    def batch(paths):
        return torch.stack([prepare(Image.open(path).convert("RGB")) for path in paths])

    def answer(paths):
        with torch.inference_mode():
            return network.eval()(batch(paths)).softmax(dim=1)[:, 0].numpy()

    torch.nn.init.normal_(network.classifier[5].weight, std=2.0)
    # With pictures' own statistics in its normalisations it tells them apart, random as it is.
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = 1.0
    with torch.inference_mode():
        network.train()(batch(pictures[:8]))
    torch.save(network.state_dict(), path)

    return path, answer


def test_laions_watermark_classifier_looks_at_the_pictures_themselves(tmp_path, pictures, classifier):
    path, answer = classifier
    run = make_run(tmp_path / "run", score=ScoreConfig(watermark_head=str(path)))
    embed(run, "pool", str(pictures[0].parent))  # embeddings are known; pixels are needed all the same
    rows = [image_row(each) for each in pictures[:5]]
    publish_images(run, rows)
    publish_neighbours(run, {rows[3]["id"]: 0.75})

    manifest = score(run)

    table = table_of(run)
    wanted = answer(pictures[:5])
    found = table["watermark"].to_pylist()
    assert found[3] is None
    assert [found[place] for place in (0, 1, 2, 4)] == pytest.approx(wanted[[0, 1, 2, 4]].tolist(), abs=1e-3)
    assert wanted.std() > 0.01
    digest = hashlib.sha256(path.read_bytes()).hexdigest()[:8]
    assert manifest.facts["watermark"] == f"watermark_model_v1-{digest}"
    assert set(table["watermark_model"].to_pylist()) == {None, manifest.facts["watermark"]}


def test_weights_of_another_network_are_refused_in_one_line(tmp_path, pictures):
    torch.save({"conv_stem.weight": torch.zeros(1)}, tmp_path / "other.pt")
    with pytest.raises(ModelError, match="other.pt: not the watermark classifier's weights") as caught:
        check_heads(ScoreConfig(watermark_head=str(tmp_path / "other.pt")))
    assert "\n" not in str(caught.value)


def test_violence_is_the_nearer_of_two_prompts(tmp_path, pictures):
    prompts = np.random.default_rng(4).standard_normal((2, 128)).astype(np.float32)
    np.save(tmp_path / "prompts.npy", prompts)
    settings = ScoreConfig(watermark_head="", violence_prompts=str(tmp_path / "prompts.npy"))
    run = make_run(tmp_path / "run", score=settings)
    publish_images(run, [image_row(path) for path in pictures[:8]])

    score(run)

    table = table_of(run)
    nearer = (vectors_of(table["embedding"]) @ prompts.T).argmax(axis=1) == 1
    assert (table["violence"].to_numpy() > 0).tolist() == nearer.tolist()
    assert set(table["violence_model"].to_pylist()) == {
        f"prompts-{hashlib.sha256((tmp_path / 'prompts.npy').read_bytes()).hexdigest()[:8]}"
    }


def test_a_whole_pool_is_scored_by_the_same_heads_part_by_part(tmp_path, pictures, monkeypatch):
    monkeypatch.setattr(embeddings, "SHARD_INPUTS", 8)
    run = make_run(tmp_path / "run")
    embed(run, "pool", str(pictures[0].parent))

    manifest = score_pool(run)

    table = pa.concat_tables(pq.read_table(path) for path in part_paths(run.pool_scores))
    pairs = list(read_shards(run.pool, METADATA))
    stored = np.concatenate([vectors for vectors, _ in pairs])
    assert table["hash"].to_pylist() == [number for _, rows in pairs for number in rows["id"].to_pylist()]
    for column, kind in (("aesthetic", "aesthetic"), ("punsafe", "unsafe")):
        assert np.array_equal(table[column].to_numpy(), load_head("demo", kind).score(stored))
    assert table.column_names == ["hash", "aesthetic", "punsafe"]
    assert (manifest.counts, len(part_paths(run.pool_scores))) == ({"scored": 25}, 4)
    assert score_pool(run) == manifest
    last = part_paths(run.pool_scores)[-1]
    content = last.read_bytes()
    (run.pool_scores / "manifest.json").unlink()
    last.unlink()  # as a kill would leave it
    assert score_pool(run).digest == manifest.digest
    assert last.read_bytes() == content
    (found,) = {table.path.parent for table in side_tables([str(run.pool_scores)])}
    assert found == run.pool_scores
    write_config(run.config, Config(clip=CLIP, score=ScoreConfig()))
    with pytest.raises(ConfigError, match="names no head on embeddings"):
        score_pool(run)


def test_a_pool_is_scored_by_a_watermark_head_on_embeddings_and_not_by_the_classifier_on_pixels(
    tmp_path, pictures, classifier
):
    weight, bias = np.random.default_rng(6).standard_normal((1, 128)).astype(np.float32), np.float32([0.25])
    linear = tmp_path / "linear.safetensors"
    safetensors.numpy.save_file({"weight": weight, "bias": bias}, linear)
    run = make_run(tmp_path / "run", score=ScoreConfig(watermark_head=str(linear)))
    embed(run, "pool", str(pictures[0].parent))

    score_pool(run)

    table = pq.read_table(part_paths(run.pool_scores)[0])
    ((stored, _),) = read_shards(run.pool, METADATA)
    assert table.column_names == ["hash", "pwatermark"]
    np.testing.assert_allclose(table["pwatermark"], stored @ weight[0] + bias, atol=1e-5)
    write_config(run.config, Config(clip=CLIP, score=ScoreConfig(watermark_head=str(classifier[0]))))
    with pytest.raises(ConfigError, match="names no head on embeddings"):
        score_pool(run)


def test_where_nothing_was_fetched_the_tables_are_empty_and_later_pictures_are_scored(tmp_path, pictures):
    run = make_run(tmp_path / "run")
    refused = {"id": 1, "status": "failed", "reason": "missing"}
    publish_images(run, [refused])
    assert score(run).counts == {"images": 0, "scored": 0, "failed": 0, "groups": 0}
    assert read_table(run.groups_table, GROUPS).num_rows == 0
    publish_images(run, [refused, image_row(pictures[0])])
    assert score(run).counts == {"images": 1, "scored": 1, "failed": 0, "groups": 1}


def test_what_cannot_be_scored_is_one_clear_line(tmp_path, pictures):
    run = make_run(tmp_path / "run")
    with pytest.raises(DataError, match="not finished"):
        score(run)
    publish_images(run, [image_row(tmp_path / "gone.png")])
    with pytest.raises(DataError, match="none of 1 pictures could be opened .missing 1"):
        score(run)
    torch.save({"weight": torch.zeros(1, 768), "bias": torch.zeros(1)}, tmp_path / "other.pth")
    write_config(run.config, Config(clip=CLIP, score=ScoreConfig(aesthetic_head=str(tmp_path / "other.pth"))))
    publish_images(run, [image_row(pictures[0])])
    with pytest.raises(ModelError, match="d = 768"):
        score(run)
