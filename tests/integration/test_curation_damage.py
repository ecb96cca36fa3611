"""Damaged files of a run: named, taken away alone, made anew, and everything as it was."""

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pytest
from click.testing import CliRunner

from curation.fetched_images import fetch
from curation.release import release
from curation.selection import select
from curation.story import why
from popfactory.cli import cli
from popfactory.report import verified
from spine.config import write_config
from spine.errors import DataError
from spine.manifest import read_manifest
from spine.publish import publish_table
from spine.run import Run, part_path, part_paths
from spine.settings import ReleaseConfig
from spine.table_files import read_parts, read_table
from spine.tables import CAPTIONS, IMAGES, SELECTION
from tests.integration.curation_runs import CONFIG, Planted, caption_all, local, plant, score_all


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.setattr("curation.fetched_images.PART_ROWS", 4)
    rows = [Planted(0, rank, local(tmp_path / "pool", rank)) for rank in range(12)]
    run = plant(tmp_path / "run", rows)
    fetch(run, depths=[12])
    score_all(run)
    select(run)
    return run


def rows_by_id(run: Run) -> list[dict]:
    return sorted(read_parts(run.images, IMAGES).to_pylist(), key=lambda row: row["id"])


def test_one_damaged_part_costs_that_part_only(run):
    before, selection = rows_by_id(run), read_table(run.selection_table, SELECTION)
    damaged, *others = part_paths(run.images)
    kept = {path: path.stat().st_mtime_ns for path in others}
    content = bytearray(damaged.read_bytes())
    content[len(content) // 3] ^= 1
    damaged.write_bytes(content)

    asked = CliRunner().invoke(cli, ["verify", str(run.folder)])
    assert isinstance(asked.exception, DataError)
    assert re.search(
        rf"1 damaged files; .*--remove-damaged.*\n{damaged}: content differs", str(asked.exception)
    )
    as_json = CliRunner().invoke(cli, ["verify", str(run.folder), "--json"])
    assert as_json.exit_code == 1
    assert json.loads(as_json.output)["damaged"] == [f"{damaged}: content differs from what was published"]
    told = CliRunner().invoke(cli, ["verify", str(run.folder), "--remove-damaged"], catch_exceptions=False)
    assert told.output.startswith("1 damaged files taken away")
    assert not damaged.exists()

    fetch(run)

    assert rows_by_id(run) == before
    assert {path: path.stat().st_mtime_ns for path in others} == kept
    score_all(run)
    select(run)
    assert read_table(run.selection_table, SELECTION).equals(selection)
    assert (
        "as published" in CliRunner().invoke(cli, ["verify", str(run.folder)], catch_exceptions=False).output
    )


def test_a_damaged_manifest_is_named_and_taken_away(run):
    manifest = run.images / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"fetched": 12', '"fetched": 13'))

    for command in (fetch, select):
        with pytest.raises(DataError, match="own checksum"):
            command(run) if command is select else CliRunner().invoke(
                cli, ["verify", str(run.folder)], catch_exceptions=False
            )
    CliRunner().invoke(cli, ["verify", str(run.folder), "--remove-damaged"], catch_exceptions=False)

    assert fetch(run).counts["fetched"] == 12


def test_a_story_is_told_of_captions_from_before_there_were_more_columns(run):
    caption_all(run)
    path = part_path(run.captions, 0)
    old = CAPTIONS.names[: CAPTIONS.names.index("truncated")]
    publish_table(path, read_table(path, CAPTIONS).select(old))
    chosen = next(
        row["id"]
        for row in read_table(run.selection_table, SELECTION).to_pylist()
        if row["verdict"] == "selected"
    )

    assert any("a picture of number" in line for line in why(run, chosen))
    assert (
        read_table(path, CAPTIONS).column("captioner").null_count
        == pa.table(read_table(path, CAPTIONS)).num_rows
    )


def test_of_a_release_each_damaged_file_is_named_in_the_run_and_wherever_a_copy_lies(run, tmp_path):
    write_config(run.config, replace(CONFIG, release=ReleaseConfig(pixels=True)))
    caption_all(run)
    release(run)
    copy = tmp_path / "downloads" / "pop-1.0"
    shutil.copytree(run.release("pop", "1.0"), copy)
    assert "files are as published" in verified(copy, remove_damaged=False).told()

    for folder, asked in ((run.release("pop", "1.0"), run.folder), (copy, copy)):
        names = [record.path for record in read_manifest(folder).files]
        assert {"dataset.parquet", "README.md", "webdataset/00000.tar", "report.json"} < set(names)
        for name in [*names, "manifest.json"]:
            content = (folder / name).read_bytes()
            (folder / name).write_bytes(content[:9] + bytes([content[9] ^ 1]) + content[10:])
            with pytest.raises(DataError, match="^1 damaged files; .*\n") as said:
                verified(asked, remove_damaged=folder is copy).told()
            assert str(folder / name) in str(said.value), name
            assert (folder / name).is_file(), "a release is never taken away"
            (folder / name).write_bytes(content)
        (folder / "samples.html").unlink()
        with pytest.raises(DataError, match=r"samples\.html: missing"):
            verified(asked, remove_damaged=False).told()
