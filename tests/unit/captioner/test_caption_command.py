"""What the options of `popfactory caption` mean, on a real run with a checkpoint of random weights."""

import json

import pyarrow as pa
import pytest
from click.testing import CliRunner

from popfactory.cli import cli
from spine.jobs import list_jobs
from spine.publish import publish_table
from spine.table_files import read_parts, read_table
from spine.tables import CAPTIONS, SELECTION
from tests.unit.captioner.runs import picture_id


def told(*arguments):
    result = CliRunner().invoke(cli, ["caption", *map(str, arguments), "--json"])
    assert result.exit_code == 0, (result.output, result.exception)
    return json.loads(result.output.splitlines()[-1])


def test_a_preview_and_pictures_asked_again_are_jobs_like_any_other(make_run, pictures, tmp_path):
    run = make_run(pictures)
    shown = told(run.folder, "--preview", 3, "--prompt", "short", "--prompt", "detail")
    assert [each["prompt_id"] for each in shown["facts"]["captioners"]] == ["short", "detail"]
    assert (run.folder / shown["facts"]["page"]).is_file() and shown["counts"]["captioned"] == 6

    told(run.folder)
    ids = [picture_id(file) for file in pictures[:3]]
    listed = tmp_path / "ids.txt"
    listed.write_text(f"{ids[1]}\n\n{ids[2]}\n")
    again = told(run.folder, "--only", ids[0], "--only-from", listed, "--prompt", "detail")

    assert again["counts"] == {"asked": 3, "captioned": 3}
    takes = read_parts(run.caption_takes, CAPTIONS).to_pylist()
    assert {row["id"] for row in takes} == set(ids) and {row["prompt_id"] for row in takes} == {"detail"}
    commands = [job.command[2:] for job in list_jobs(run)]
    assert ["--prompt", "short", "--prompt", "detail", "--preview", "3"] in commands and [] in commands
    assert [job.state for job in list_jobs(run)] == ["done"] * 3


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--preview", "2", "--limit", "1"], "--limit does not go with --preview"),
        (["--only", "5", "--failed-only"], "--failed-only does not go with --only"),
        (["--only", "5", "--dry-run"], "--dry-run does not go with --only"),
        (["--kept-in", "4", "--force"], "--kept-in goes with"),
        (["--kept-in", "4", "--only", "5"], "--kept-in goes with"),
        (["--prompt", "short"], "go with --preview or --only"),
        (["--only", "5", "--prompt", "short", "--prompt", "detail"], "one --prompt"),
    ],
)
def test_options_that_do_not_belong_together_are_refused(tmp_path, options, said):
    result = CliRunner().invoke(cli, ["caption", str(tmp_path), *options])

    assert result.exit_code == 2 and said in result.output


def test_a_file_of_ids_says_which_line_is_none(tmp_path):
    listed = tmp_path / "ids.txt"
    listed.write_text("12\nstar\n")

    result = CliRunner().invoke(cli, ["caption", str(tmp_path), "--only-from", str(listed)])

    assert result.exit_code == 2 and "'star' is no id" in result.output


def test_what_people_keep_in_one_centroid_is_described_alone(make_run, pictures):
    run = make_run(pictures)
    rows = read_table(run.selection_table, SELECTION).to_pylist()
    for place, row in enumerate(rows):
        row |= {"centroid_id": place % 2, "rule": "person" if place < 4 else "selected"}
    rows[2] |= {"verdict": "rejected"}
    publish_table(run.selection_table, pa.Table.from_pylist(rows, SELECTION))
    kept = {rows[0]["id"]}

    assert told(run.folder, "--kept-in", 0, "--dry-run")["to_ask"] == 1
    described = told(run.folder, "--kept-in", 0)

    assert set(read_parts(run.captions, CAPTIONS)["id"].to_pylist()) == kept
    assert described["counts"]["missing"] == described["counts"]["selected"] - 1
    assert [job.command[2:] for job in list_jobs(run)] == [["--kept-in", "0"]]
    refused = CliRunner().invoke(cli, ["caption", str(run.folder), "--kept-in", "7"])
    assert refused.exit_code == 1 and "nothing that people keep is selected for centroid 7" in str(
        refused.exception
    )
