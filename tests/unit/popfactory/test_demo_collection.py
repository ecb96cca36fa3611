import hashlib
import json

import numpy as np
import pytest
from PIL import Image

from popfactory.demo_collection import draw_collection
from popfactory.demo_world import parse_caption
from spine.errors import DataError

ARGUMENTS = {"concepts": 20, "pool": 160, "seed": 3}


def digests(folder):
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


def truth(folder):
    return [json.loads(line) for line in (folder / "truth.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    folder = tmp_path_factory.mktemp("collection")
    return folder, draw_collection(folder, **ARGUMENTS, workers=1)


def test_the_workers_change_nothing(drawn, tmp_path):
    folder, counts = drawn

    assert draw_collection(tmp_path, **ARGUMENTS, workers=2) == counts
    assert digests(tmp_path) == digests(folder)


def test_another_seed_draws_other_pictures(drawn, tmp_path):
    folder, _ = drawn

    draw_collection(tmp_path, concepts=20, pool=0, seed=4, workers=1)

    assert not set(digests(tmp_path).values()) & set(digests(folder).values())


def test_a_finished_folder_is_left_as_it_is(drawn):
    folder, counts = drawn
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}

    assert draw_collection(folder, **ARGUMENTS) == counts
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before


def test_an_unfinished_folder_is_finished(drawn, tmp_path):
    folder, counts = drawn
    arguments = {"arguments": json.loads((folder / "collection.json").read_text())["arguments"]}
    (tmp_path / "collection.json").write_text(json.dumps(arguments))

    assert draw_collection(tmp_path, **ARGUMENTS, workers=1) == counts
    assert digests(tmp_path) == digests(folder)


def test_other_arguments_are_refused_in_a_folder_in_use(drawn):
    folder, _ = drawn

    with pytest.raises(DataError, match="holds a collection"):
        draw_collection(folder, concepts=20, pool=161, seed=3)


def test_concepts_are_readable_beautiful_and_captioned_in_full(drawn):
    folder, counts = drawn
    pictures = sorted((folder / "concepts").glob("*.jpg"))
    rows = [row for row in truth(folder) if row["path"].startswith("concepts/")]

    assert len(pictures) == len(rows) == counts.concepts == 20
    for path in pictures:
        with Image.open(path) as image:
            image.load()
            assert min(image.size) >= 400
        assert parse_caption(path.with_suffix(".txt").read_text()) is not None
    assert all(row["beauty"] >= 0.6 for row in rows)
    assert all(row["theme"] in (3, 13, 23) for row in rows if row["watermark"])
    assert all(row["theme"] in (7, 27) for row in rows if row["unsafe"])


def test_every_file_of_the_pool_has_a_text_and_only_the_dead_do_not_open(drawn):
    folder, counts = drawn
    rows = [row for row in truth(folder) if row["path"].startswith("pool/")]

    assert len(rows) == counts.pool == 160
    for row in rows:
        path = folder / row["path"]
        assert (folder / f"{row['path'].rsplit('.', 1)[0]}.txt").exists()
        if row["dead"]:
            with pytest.raises(OSError), Image.open(path) as image:
                image.load()
        else:
            with Image.open(path) as image:
                image.load()
                assert image.size == (row["width"], row["height"])


def test_copies_are_byte_for_byte_and_near_duplicates_only_look_alike(drawn):
    folder, _ = drawn
    repeats = [row for row in truth(folder) if row["repeat"]]

    assert {row["repeat"] for row in repeats} == {"near", "copy"}
    for row in repeats:
        copy, first = folder / row["path"], folder / row["repeat_of"]
        assert (copy.read_bytes() == first.read_bytes()) == (row["repeat"] == "copy")
        small = [np.asarray(Image.open(p).convert("L").resize((16, 16)), dtype=float) for p in (copy, first)]
        assert np.abs(small[0] - small[1]).mean() < 20


def test_the_mix_of_a_large_pool_is_as_described():
    from popfactory.demo_collection import _plan, _scene, _size

    items = [item for item in _plan(0, 6000, 0) if not item.dead]
    rngs = [np.random.default_rng(item.seed) for item in items]
    scenes = [_scene(rng, 0, item) for rng, item in zip(rngs, items, strict=True)]
    sides = [min(_size(rng, False)) for rng in rngs]

    assert np.mean([item.repeat == "near" for item in items]) == pytest.approx(0.06, abs=0.01)
    assert np.mean([item.repeat == "copy" for item in items]) == pytest.approx(0.015, abs=0.005)
    assert 6000 - len(items) == pytest.approx(90, abs=35)
    assert np.mean([scene.watermark for scene in scenes]) == pytest.approx(0.08, abs=0.015)
    assert np.mean([scene.unsafe for scene in scenes]) == pytest.approx(0.04, abs=0.01)
    assert np.mean([item.theme is not None for item in items]) == pytest.approx(0.45, abs=0.03)
    assert np.mean(np.array(sides) < 768) == pytest.approx(0.33, abs=0.03)
    assert min(sides) >= 256
    assert max(sides) <= 1200
    assert len({item.path for item in items}) == len(items)
