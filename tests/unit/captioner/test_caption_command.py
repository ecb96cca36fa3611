"""What the options of `popfactory caption` mean, on a real run with a checkpoint of random weights."""

import json

import pytest
from click.testing import CliRunner

from popfactory.cli import cli
from spine.jobs import list_jobs
from spine.table_files import read_parts
from spine.tables import CAPTIONS
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
