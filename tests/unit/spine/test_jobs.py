import itertools
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from spine.errors import DataError
from spine.jobs import (
    JobReader,
    Journal,
    answer_of,
    cancel_job,
    list_jobs,
    new_job_id,
    read_job,
    sole_worker,
    start_job,
)
from spine.journals import progress_of
from spine.run import Run


def _until(condition, seconds=30):
    for _ in range(seconds * 20):
        if condition():
            return True
        time.sleep(0.05)
    return False


def test_a_journal_tells_what_its_stage_told(tmp_path):
    run = Run(tmp_path)
    journal = Journal(run, ["caption", "runs/a"])
    journal.begin("caption", 100, "images", done=40)
    journal.advance(10, {"truncated": 2})
    journal.say("a line")
    journal.advance(5, {"truncated": 1, "missing": 1})
    journal.end()

    job = read_job(run, journal.job_id)
    assert (job.state, job.stage, job.total, job.done) == ("running", "caption", 100, 55)
    assert job.failures == {"truncated": 3, "missing": 1}
    assert list(job.lines) == ["a line"]
    assert job.rate is not None and job.eta_s == pytest.approx(45 / job.rate)

    journal.close("done")
    assert read_job(run, journal.job_id).state == "done"


def _written(run, job_id, entries):
    """A journal with these entries, as (seconds since the stage began, units that were done since the last)."""
    begun = {
        "time": 1000.0,
        "event": "stage",
        "stage": "caption",
        "total": 1_000,
        "unit": "pictures",
        "done": 100,
    }
    lines = [
        {"time": 990.0, "event": "started", "command": ["caption"], "pid": os.getpid(), "process_start": ""},
        begun,
    ]
    lines += [{"time": 1000 + at, "event": "advance", "units": n, "failures": {}} for at, n in entries]
    run.jobs.mkdir(exist_ok=True)
    (run.jobs / f"{job_id}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return read_job(run, job_id)


@pytest.mark.parametrize(
    ("entries", "rate"),
    [
        ([], None),
        ([(4, 20)], 5),
        ([(4, 20), (5, 20)], 20),  # the first took as long as it does to get warm
        ([(10 + n, 2 * n) for n in range(4)], 4),
        (
            [(1, 1), (2, 10), (3, 10), (4.5, 10)],
            30 / 3.5,
        ),  # not from 2 on: of a short time little is left out
        (
            [(n, 1) for n in range(1, 101)] + [(100 + n, 7) for n in range(1, 101)],
            5,
        ),  # faster since half of the time
        ([(n / 2, 3) for n in range(1, 20_001)], 6),
    ],
)
def test_the_rate_leaves_out_the_first_quarter_of_the_time(tmp_path, entries, rate):
    job = _written(Run(tmp_path), "a-1", entries)

    assert job.done == 100 + sum(n for _, n in entries)
    assert job.rate == (None if rate is None else pytest.approx(rate, rel=0.02))


JOURNALS = Path(__file__).parents[2] / "data" / "journals"


@pytest.mark.parametrize("name", ["caption-embedded", "caption-http", "embed-pool"])
def test_the_time_left_holds_on_the_journals_of_true_runs(tmp_path, name):
    journal = Journal(Run(tmp_path), ["a", "job"])
    path = tmp_path / "jobs" / f"{journal.job_id}.jsonl"
    started, lines = path.read_text(), (JOURNALS / f"{name}.jsonl").read_text().splitlines()
    ended = json.loads(lines[-1])["time"]
    off = []
    for count in range(1, len(lines)):
        path.write_text(started + "\n".join(lines[:count]))
        job = read_job(Run(tmp_path), journal.job_id)
        if job.eta_s is not None and job.total is not None:
            off.append((job.done / job.total, abs(job.eta_s / (ended - job.updated) - 1)))

    after_a_twentieth, at_half_time = (next(by for share, by in off if share >= at) for at in (0.05, 0.5))
    assert after_a_twentieth <= 0.1
    assert at_half_time <= 0.2


def test_a_job_whose_process_was_killed_is_lost(tmp_path):
    code = (
        "import os, sys, pathlib; from spine.jobs import Journal; from spine.run import Run\n"
        "j = Journal(Run(pathlib.Path(sys.argv[1])), ['x']); j.begin('embed', 10, 'images'); os.kill(os.getpid(), 9)"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=False)
    (job,) = list_jobs(Run(tmp_path))
    assert job.state == "lost" and job.stage == "embed"


def test_a_started_job_runs_by_itself_and_ends_with_its_message(tmp_path):
    run = Run(tmp_path)
    run.config.write_text("[centroids]\nkk = 1\n")
    job_id = start_job(run, ["centroids", str(tmp_path)])
    assert _until(lambda: read_job(run, job_id).state == "failed")
    assert "kk is unknown" in read_job(run, job_id).message
    assert read_job(run, job_id).command == ["centroids", str(tmp_path)]


def test_cancel_reaches_the_process_and_leaves_others_alone(tmp_path):
    code = (
        "import sys, time, pathlib; from spine.jobs import Journal; from spine.run import Run\n"
        "j = Journal(Run(pathlib.Path(sys.argv[1])), ['x'])\n"
        "try:\n    time.sleep(60)\nexcept KeyboardInterrupt:\n    j.close('cancelled')"
    )
    process = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)])
    run = Run(tmp_path)
    assert _until(lambda: bool(list_jobs(run)) and list_jobs(run)[0].state == "running")
    cancel_job(run, list_jobs(run)[0].job_id)
    assert process.wait(timeout=30) == 0
    assert list_jobs(run)[0].state == "cancelled"


def test_a_job_that_is_still_starting_is_cancelled_as_soon_as_it_can_be(tmp_path):
    run, job_id = Run(tmp_path), new_job_id()
    run.jobs.mkdir()
    entry = {"time": time.time(), "event": "queued", "command": ["x"]}
    (run.jobs / f"{job_id}.jsonl").write_text(json.dumps(entry) + "\n")
    code = (
        "import sys, time, pathlib; time.sleep(0.5)\n"
        "from spine.jobs import Journal; from spine.run import Run\n"
        "j = Journal(Run(pathlib.Path(sys.argv[1])), ['x'])\n"
        "try:\n    time.sleep(60)\nexcept KeyboardInterrupt:\n    j.close('cancelled')"
    )
    environment = {**os.environ, "POPFACTORY_JOB": job_id}
    process = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], env=environment)

    cancel_job(run, job_id)

    assert process.wait(timeout=30) == 0
    assert read_job(run, job_id).state == "cancelled"


def test_a_job_whose_process_never_began_is_lost_after_a_while_and_one_that_died_at_once_failed_for_good(
    tmp_path, monkeypatch
):
    run, job_id = Run(tmp_path), new_job_id()
    run.jobs.mkdir()
    for age_s, state in ((5, "queued"), (120, "lost")):
        entry = {"time": time.time() - age_s, "event": "queued", "command": ["select", str(tmp_path)]}
        (run.jobs / f"{job_id}.jsonl").write_text(json.dumps(entry) + "\n")
        assert read_job(run, job_id).state == state

    monkeypatch.setattr(sys, "executable", shutil.which("false"))
    died = start_job(run, ["select", str(tmp_path)])
    assert _until(lambda: read_job(run, died).state == "failed")
    assert read_job(run, died).state == "failed"  # told by its journal now, to other processes too


def test_only_one_process_works_on_a_run(tmp_path):
    run = Run(tmp_path)
    with sole_worker(run), pytest.raises(DataError, match="at work here"), sole_worker(run):
        pass
    with sole_worker(run):
        pass


def test_jobs_are_listed_newest_first_also_those_of_one_second(tmp_path):
    run = Run(tmp_path)
    begun = [Journal(run, [f"number-{number}"]) for number in range(8)]

    assert [job.job_id for job in list_jobs(run)] == [journal.job_id for journal in reversed(begun)]


@pytest.mark.parametrize("job_id", ["../x", "", "a/b", "none"])
def test_an_unknown_job_is_refused(tmp_path, job_id):
    with pytest.raises(DataError, match="job"):
        read_job(Run(tmp_path), job_id)


def test_a_question_gets_what_the_command_prints_or_its_own_words(tmp_path):
    assert answer_of(["init", str(tmp_path / "run")]).startswith(f"{tmp_path / 'run'}")
    with pytest.raises(DataError, match="there already"):
        answer_of(["init", str(tmp_path / "run")])
    with pytest.raises(DataError, match="no answer within 0 s"):
        answer_of(["status", str(tmp_path / "run")], timeout_s=0.01)


def test_a_journal_tells_each_stage_and_how_the_newest_went_on(tmp_path):
    run = Run(tmp_path)
    journal = Journal(run, ["run", "runs/a"])
    journal.begin("fetch", 10, "pictures")
    journal.advance(4, {"timeout": 1})
    journal.begin("score", 3, "pictures", done=1)
    journal.advance(2)
    journal.close("done")

    reader = JobReader(run, journal.job_id)
    assert reader.read().state == "done"
    assert [(job.stage, job.done, job.total, job.failures) for job in reader.stages] == [
        ("fetch", 4, 10, {"timeout": 1}),
        ("score", 3, 3, {}),
    ]
    assert [done for _, done in progress_of(run, journal.job_id)] == [1, 3, 3]
    begun = progress_of(run, journal.job_id)[0][0]
    assert [done for _, done in progress_of(run, journal.job_id, until=begun)] == [1]


def test_a_journal_is_read_on_from_where_the_last_look_ended(tmp_path):
    run = Run(tmp_path)
    journal = Journal(run, ["fetch", "runs/a"])
    journal.begin("fetch", 10, "pictures")
    path = run.jobs / f"{journal.job_id}.jsonl"
    reader = JobReader(run, journal.job_id)
    assert (reader.read().stage, reader.read().done) == ("fetch", 0)
    seen = path.read_bytes()
    path.write_bytes(b"x" * len(seen))  # what was read is not read again

    entry = json.dumps({"time": time.time(), "event": "advance", "units": 4, "failures": {"timeout": 1}})
    with path.open("a") as file:
        file.write(entry[:20])
        file.flush()
        assert reader.read().done == 0
        file.write(entry[20:] + "\n")
    job = reader.read()
    assert (job.done, job.failures) == (4, {"timeout": 1}) and reader.read() == job

    path.write_bytes(path.read_bytes().replace(b"x" * len(seen), seen))
    assert JobReader(run, journal.job_id).read() == job


def test_the_points_of_a_long_stage_are_spread_over_its_time(tmp_path):
    n = 20_000
    job = _written(Run(tmp_path), "a-1", [(at / 2, 1) for at in range(1, n + 1)])

    times = [time - 1000 for time, _ in job.points]
    gaps = [after - before for before, after in itertools.pairwise(times)]
    assert times[0] == 0 and job.points[-1] == (1000 + n / 2, 100 + n)
    assert 100 <= len(times) <= 256 and max(gaps) < 4 * n / 2 / 128
