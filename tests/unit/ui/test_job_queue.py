import json
import time

import pytest

from spine.errors import DataError
from spine.jobs import Journal, list_jobs, new_job_id
from tests.unit.ui.planted import plant
from ui.job_queue import JobList, JobQueue


def _until(condition, seconds=60):
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, "it did not come about"
        time.sleep(0.05)


@pytest.fixture
def run(tmp_path):
    return plant(tmp_path / "run").run


def test_what_follows_a_job_is_started_by_the_next_board_after_this_one_ended(run):
    first = JobQueue(run)
    first.start(["select", "select"])
    first.close()  # before the first of the two is done
    assert JobQueue(run).waiting in (["select"], [])

    _until(lambda: [job.state for job in list_jobs(run)] == ["done", "done"])
    _until(lambda: not (run.jobs / "waiting.json").exists())


def test_a_job_whose_board_ended_before_it_was_started_is_started_once(run):
    waiting = {"after": new_job_id(), "command": ["select"], "then": []}
    (run.jobs).mkdir()
    (run.jobs / "waiting.json").write_text(json.dumps(waiting))

    boards = [JobQueue(run), JobQueue(run)]

    _until(lambda: not (run.jobs / "waiting.json").exists())
    assert [(job.job_id, job.state) for job in list_jobs(run)] == [(waiting["after"], "done")]
    for board in boards:
        board.close()


def test_a_job_that_a_killed_board_never_got_to_start_is_started_by_the_next_one(run):
    waiting = {"after": new_job_id(), "command": ["select"], "then": ["select"]}
    run.jobs.mkdir()
    entry = {"time": time.time() - 100, "event": "queued", "command": ["select", str(run.folder)]}
    (run.jobs / f"{waiting['after']}.jsonl").write_text(json.dumps(entry) + "\n")
    (run.jobs / "waiting.json").write_text(json.dumps(waiting))

    board = JobQueue(run)

    _until(lambda: not (run.jobs / "waiting.json").exists())
    assert [job.state for job in list_jobs(run)] == ["done", "done", "lost"]
    board.close()


def test_after_a_job_that_failed_nothing_of_its_sequence_is_started(run):
    run.config.write_text(run.config.read_text().replace("[select]", "[select]\nwrong = 1"))
    queue = JobQueue(run)

    queue.start(["select", "select"])

    _until(lambda: not (run.jobs / "waiting.json").exists())
    assert [job.state for job in list_jobs(run)] == ["failed"]
    queue.close()


@pytest.mark.parametrize(
    "command", ["select --force --force", "fetch --retry-failed --all", "embed", "", "fetch /etc"]
)
def test_only_named_commands_and_options_are_started(run, command):
    with pytest.raises(DataError, match="can't be started here"):
        JobQueue(run).start([command])


def test_journals_of_ended_jobs_are_read_once_and_those_at_work_each_time(run):
    ended, working = Journal(run, ["select"]), Journal(run, ["fetch"])
    ended.close("done")
    jobs = JobList(run)
    assert {job.command[0]: job.state for job in jobs.newest(9)} == {"select": "done", "fetch": "running"}
    (run.jobs / f"{ended.job_id}.jsonl").write_text("")

    working.close("failed", "why")

    assert {job.command[0]: job.state for job in jobs.newest(9)} == {"select": "done", "fetch": "failed"}
    assert len(jobs.newest(1)) == 1 and jobs.total() == 2
