import pyarrow as pa
import pytest

from spine.errors import DataError
from spine.manifest import read_manifest
from spine.run import STAGES, Run, written_by
from spine.stage import Stage
from spine.table_files import read_table


@pytest.fixture
def run(tmp_path):
    made = Run(tmp_path / "images" / "pop-1")  # a folder above may be called as a stage's is
    made.folder.mkdir(parents=True)
    made.config.touch()
    return made


def test_advice_names_the_command_that_writes_a_folder(run):
    for name in (*STAGES, "pool-scores"):
        assert f" {run.folder}" in written_by(run.folder / name)
    assert f"`popfactory embed {run.folder} pool`" in written_by(run.pool / "img_emb")
    assert (
        f"`popfactory retrieve {run.folder}`, or all stages with `popfactory run {run.folder}`"
        in written_by(run.neighbours)
    )
    with pytest.raises(
        DataError, match=rf"not finished \(no manifest.json\); run `popfactory fetch {run.folder}`"
    ):
        read_manifest(run.images)


def test_outside_a_run_advice_names_no_command(tmp_path):
    assert written_by(tmp_path / "images") == "run the stage that writes it"


def test_a_table_that_is_missing_is_told_apart_from_one_that_was_lost(run):
    schema = pa.schema([("id", pa.int64())])
    with pytest.raises(DataError, match=f"missing; run `popfactory select {run.folder}`"):
        read_table(run.selection_table, schema)
    Stage.open("selection", run.selection, {}, {}).finish({})
    with pytest.raises(DataError, match="missing; .* --remove-damaged`, then run the stage again"):
        read_table(run.selection_table, schema)
