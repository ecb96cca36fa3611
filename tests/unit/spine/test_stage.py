import hashlib
import json
import os

import pyarrow as pa
import pytest

from spine.errors import DataError
from spine.manifest import MANIFEST, PIECE_BYTES, find_manifest, read_manifest, remove_damaged, verify
from spine.publish import publish_bytes, publish_table
from spine.stage import Stage


def _finished(folder, parameters, inputs, **options):
    stage = Stage.open("centroids", folder, parameters, inputs, **options)
    if stage.published is None:
        publish_table(folder / "part-00000.parquet", pa.table({"id": [1, 2, 3]}))
        return stage.finish({"rows": 3}, {"d": 8})
    return stage.published


def test_a_finished_stage_with_the_same_work_is_published(tmp_path):
    first = _finished(tmp_path, {"k": 3}, {"concepts": "aa"})
    again = Stage.open("centroids", tmp_path, {"k": 3}, {"concepts": "aa"})

    assert again.published == first
    assert first.files[0].rows == 3
    assert first.counts == {"rows": 3}
    assert verify(tmp_path) == []


@pytest.mark.parametrize("damage", ["removed", "cut"])
def test_a_finished_stage_that_lost_a_file_is_not_taken_for_finished(tmp_path, damage):
    _finished(tmp_path, {"k": 3}, {"concepts": "aa"})
    part = tmp_path / "part-00000.parquet"
    if damage == "removed":
        part.unlink()
    else:
        part.write_bytes(part.read_bytes()[:-1])

    with pytest.raises(DataError, match=r"part-00000\.parquet: .*--remove-damaged"):
        Stage.open("centroids", tmp_path, {"k": 3}, {"concepts": "aa"})
    assert Stage.open("centroids", tmp_path, {"k": 3}, {"concepts": "aa"}, force=True).published is None


@pytest.mark.parametrize(
    ("parameters", "inputs"), [({"k": 4}, {"concepts": "aa"}), ({"k": 3}, {"concepts": "bb"})]
)
def test_other_work_clears_the_folder(tmp_path, parameters, inputs):
    _finished(tmp_path, {"k": 3}, {"concepts": "aa"})
    stage = Stage.open("centroids", tmp_path, parameters, inputs)

    assert stage.published is None
    assert sorted(path.name for path in tmp_path.iterdir()) == ["plan.json"]


def test_work_begun_goes_on_with_its_finished_parts(tmp_path):
    Stage.open("centroids", tmp_path, {"k": 3}, {})
    publish_bytes(tmp_path / "part-00000.parquet", b"finished")
    (tmp_path / ".part-00001.parquet.part-0123456789ab").write_bytes(b"half")

    Stage.open("centroids", tmp_path, {"k": 3}, {})

    assert sorted(path.name for path in tmp_path.iterdir()) == ["part-00000.parquet", "plan.json"]


def test_what_a_stage_grows_with_keeps_its_parts_but_not_its_manifest(tmp_path):
    _finished(tmp_path, {"depth": 1, "model": "a"}, {"neighbours": "aa"}, grows_with=("depth", "neighbours"))
    stage = Stage.open(
        "images",
        tmp_path,
        {"depth": 2, "model": "a"},
        {"neighbours": "bb"},
        grows_with=("depth", "neighbours"),
    )
    assert stage.published is None
    assert (tmp_path / "part-00000.parquet").exists() and not (tmp_path / MANIFEST).exists()

    Stage.open(
        "images",
        tmp_path,
        {"depth": 2, "model": "b"},
        {"neighbours": "bb"},
        grows_with=("depth", "neighbours"),
    )
    assert not (tmp_path / "part-00000.parquet").exists()


def test_force_starts_over(tmp_path):
    _finished(tmp_path, {}, {})
    assert Stage.open("centroids", tmp_path, {}, {}, force=True).published is None
    assert not (tmp_path / "part-00000.parquet").exists()


def test_the_digest_follows_content_and_not_time(tmp_path):
    first = _finished(tmp_path / "a", {"k": 3}, {})
    second = _finished(tmp_path / "b", {"k": 3}, {})
    other = _finished(tmp_path / "c", {"k": 4}, {})

    assert first.digest == second.digest != other.digest
    content = json.loads((tmp_path / "a" / MANIFEST).read_text())
    del content["checksum"]
    (tmp_path / "a" / MANIFEST).write_text(json.dumps({**content, "created": "later", "versions": {}}))
    assert read_manifest(tmp_path / "a").digest == first.digest


def test_notes_on_how_the_work_went_are_checked_but_no_part_of_the_digest(tmp_path):
    manifests = []
    for name, seconds in (("a", "1.5"), ("b", "2.5")):
        stage = Stage.open("demo", tmp_path / name, {}, {})
        (tmp_path / name / "report.json").write_text(seconds)
        (tmp_path / name / "result").write_text("same")
        manifests.append(stage.finish({}, notes=["report.json"]))
    plain = Stage.open("demo", tmp_path / "c", {}, {})
    (tmp_path / "c" / "result").write_text("same")

    assert manifests[0].digest == manifests[1].digest == plain.finish({}).digest
    assert read_manifest(tmp_path / "a") == manifests[0]
    (tmp_path / "a" / "report.json").write_text("9.5")
    assert ["report.json" in problem for problem in verify(tmp_path / "a")] == [True]


def test_verify_names_each_damaged_file(tmp_path):
    _finished(tmp_path, {}, {})
    path = tmp_path / "part-00000.parquet"
    content = bytearray(path.read_bytes())
    content[20] ^= 1
    path.write_bytes(content)
    assert verify(tmp_path) == [f"{path}: content differs from what was published"]
    path.unlink()
    assert verify(tmp_path) == [f"{path}: missing"]


@pytest.fixture
def large(tmp_path):
    """A finished stage with a file of two whole pieces and three bytes, most of them a hole."""
    stage = Stage.open("index", tmp_path, {}, {})
    with (tmp_path / "vectors.npy").open("wb") as file:
        file.write(b"begin")
        file.seek(PIECE_BYTES)
        file.write(b"middle")
        file.seek(2 * PIECE_BYTES)
        file.write(b"end")
    stage.finish({})
    return tmp_path


def test_a_large_file_has_a_digest_of_each_piece(large):
    (record,) = read_manifest(large).files
    content = (large / "vectors.npy").read_bytes()

    pieces = [content[start : start + PIECE_BYTES] for start in range(0, len(content), PIECE_BYTES)]
    assert record.piece_sha256 == [hashlib.sha256(piece).hexdigest() for piece in pieces]
    assert record.sha256 == hashlib.sha256(content).hexdigest()
    assert verify(large) == []


@pytest.mark.parametrize("place", [3, PIECE_BYTES - 1, PIECE_BYTES, 2 * PIECE_BYTES + 2])
def test_a_byte_of_any_piece_is_noticed(large, place):
    with (large / "vectors.npy").open("r+b") as file:
        file.seek(place)
        file.write(b"?")

    assert verify(large) == [f"{large / 'vectors.npy'}: content differs from what was published"]


def test_a_manifest_from_before_there_were_pieces_says_the_same(large):
    published, path = read_manifest(large), large / MANIFEST
    content = json.loads(path.read_text())
    del content["checksum"], content["files"][0]["piece_sha256"]
    path.write_text(json.dumps(content))

    assert read_manifest(large).digest == published.digest
    assert verify(large) == []
    os.truncate(large / "vectors.npy", 2 * PIECE_BYTES)
    os.truncate(large / "vectors.npy", 2 * PIECE_BYTES + 3)
    assert len(verify(large)) == 1


def test_what_is_damaged_is_taken_away_and_the_stage_goes_on_with_the_rest(tmp_path):
    stage = Stage.open("scores", tmp_path, {}, {})
    for number in range(3):
        publish_table(tmp_path / f"part-0000{number}.parquet", pa.table({"id": [number]}))
    before = stage.finish({}, {})
    damaged = tmp_path / "part-00001.parquet"
    damaged.write_bytes(damaged.read_bytes()[::-1])

    assert remove_damaged(tmp_path) == [f"{damaged}: content differs from what was published"]

    again = Stage.open("scores", tmp_path, {}, {})
    assert again.published is None
    assert sorted(path.name for path in tmp_path.glob("part-*")) == [
        "part-00000.parquet",
        "part-00002.parquet",
    ]
    publish_table(damaged, pa.table({"id": [1]}))
    assert again.finish({}, {}).digest == before.digest
    assert remove_damaged(tmp_path) == []
    assert find_manifest(tmp_path) is not None


@pytest.mark.parametrize(("old", "new"), [('"rows": 3', '"rows": 8'), ('"d": 8', '"d": 9'), ("aa", "ab")])
def test_a_manifest_that_was_changed_by_a_sign_is_noticed(tmp_path, old, new):
    _finished(tmp_path, {"k": 3}, {"concepts": "aa"})
    path = tmp_path / MANIFEST
    path.write_text(path.read_text().replace(old, new))

    with pytest.raises(DataError, match="own checksum"):
        read_manifest(tmp_path)
    assert len(verify(tmp_path)) == 1
    remove_damaged(tmp_path)
    assert find_manifest(tmp_path) is None
    assert (tmp_path / "part-00000.parquet").is_file()


def test_a_manifest_from_before_there_were_checksums_is_read(tmp_path):
    published = _finished(tmp_path, {"k": 3}, {"concepts": "aa"})
    path = tmp_path / MANIFEST
    content = json.loads(path.read_text())
    del content["checksum"]
    path.write_text(json.dumps(content))

    assert read_manifest(tmp_path) == published


def test_a_folder_without_a_manifest_is_unfinished(tmp_path):
    assert find_manifest(tmp_path) is None
    with pytest.raises(DataError, match="not finished"):
        read_manifest(tmp_path)


def test_a_newer_or_damaged_manifest_is_refused(tmp_path):
    _finished(tmp_path, {}, {})
    path = tmp_path / MANIFEST
    path.write_text(path.read_text().replace('"schema_version": 1', '"schema_version": 99'))
    with pytest.raises(DataError, match="schema version 99"):
        read_manifest(tmp_path)
    path.write_text("{")
    with pytest.raises(DataError, match="damaged"):
        read_manifest(tmp_path)


@pytest.mark.parametrize("finished", [True, False])
def test_what_a_newer_popfactory_made_is_neither_cleared_nor_taken_for_damage(tmp_path, finished):
    if finished:
        _finished(tmp_path, {"k": 3}, {})
    else:
        Stage.open("centroids", tmp_path, {"k": 3}, {})
        publish_bytes(tmp_path / "part-00000.parquet", b"days of work")
    for path in tmp_path.glob("*.json"):
        path.write_text(path.read_text().replace('"schema_version": 1', '"schema_version": 2'))
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}

    works = [lambda: Stage.open("centroids", tmp_path, {"k": 4}, {})]
    works += [lambda: verify(tmp_path), lambda: remove_damaged(tmp_path)] if finished else []
    for work in works:
        with pytest.raises(
            DataError, match="schema version 2, this popfactory reads up to 1; update popfactory"
        ):
            work()
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before

    assert Stage.open("centroids", tmp_path, {"k": 4}, {}, force=True).published is None
    assert not (tmp_path / "part-00000.parquet").exists()
