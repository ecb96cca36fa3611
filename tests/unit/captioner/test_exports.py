import itertools
import json
import tarfile

import pytest

from captioner import exports
from captioner.captions import caption
from captioner.exports import export
from spine.errors import DataError
from spine.table_files import read_parts
from spine.tables import CAPTIONS
from spine.tar_members import key_of
from tests.unit.captioner.runs import picture_id, publish_selection


@pytest.fixture
def run(make_run, pictures):
    """Seven pictures, of which one has failed and one left the selection."""
    pictures[1].write_bytes(pictures[1].read_bytes()[:300])
    made = make_run(pictures)
    caption(made)
    publish_selection(made, pictures, not_selected=1)
    return made


def test_every_row_of_a_selected_picture_is_a_line(run, pictures, tmp_path):
    counts = export(run, tmp_path / "out")

    lines = [json.loads(line) for line in (tmp_path / "out" / "captions.jsonl").read_text().splitlines()]
    rows = {row["id"]: row for row in read_parts(run.captions, CAPTIONS).to_pylist()}
    assert counts == {"rows": 6, "captions": 5, "tars": 1}
    assert {int(line["id"]) for line in lines} == {picture_id(file) for file in pictures[:6]}
    for line in lines:
        assert line["key"] == key_of(int(line["id"]))
        assert {**line, "id": int(line["id"])} == rows[int(line["id"])] | {"key": line["key"]}
    assert sorted(line["reason"] for line in lines if line["status"] == "failed") == ["truncated"]


def samples(path):
    """A tar as WebDataset reads it: neighbouring members of one name before the first dot are one sample."""
    with tarfile.open(path) as tar:
        assert {(member.mtime, member.uid, member.mode) for member in tar} == {(0, 0, 0o644)}
        members = [(member.name, tar.extractfile(member).read()) for member in tar]
    for key, group in itertools.groupby(members, key=lambda member: member[0].partition(".")[0]):
        yield key, {name.partition(".")[2]: content for name, content in group}


def test_sidecars_are_samples_of_text_and_row_and_the_same_each_time(run, tmp_path, monkeypatch):
    monkeypatch.setattr(exports, "TAR_ROWS", 2)
    assert export(run, tmp_path / "out")["tars"] == 3
    tars = sorted((tmp_path / "out").glob("*.tar"))
    first = [path.read_bytes() for path in tars]

    export(run, tmp_path / "out")

    assert [path.read_bytes() for path in tars] == first
    rows = {key_of(row["id"]): row for row in read_parts(run.captions, CAPTIONS).to_pylist()}
    found = [sample for path in tars for sample in samples(path)]
    assert len(found) == len(dict(found)) == 5
    for key, sample in found:
        assert sample["txt"].decode() == rows[key]["caption"]
        assert json.loads(sample["json"])["caption_id"] == rows[key]["caption_id"]


def test_without_captions_there_is_nothing_to_write(make_run, pictures, tmp_path):
    with pytest.raises(DataError, match="no captions yet"):
        export(make_run(pictures), tmp_path / "out")
    assert not (tmp_path / "out").exists()
