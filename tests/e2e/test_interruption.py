"""Killed at any moment and started again, a run ends with the very same release."""

import json
import os
import random
import signal
import subprocess
import sys
import time

import pyarrow.parquet as pq
import pytest

from tests.e2e.support import call, small_run


def _files(folder):
    return sum(path.is_file() for path in folder.rglob("*") if path.parent.name != "jobs")


def _kill_after(folder, files, then_s):
    """Start a run, and end its whole process group once it has published so many more files.

    Counted in files and not in seconds, it is at work whatever else the machine does. True if it still was.
    """
    wanted = _files(folder) + files
    process = subprocess.Popen(
        [sys.executable, "-m", "popfactory", "run", str(folder), "--quiet"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    while process.poll() is None and _files(folder) < wanted:
        time.sleep(0.005)
    time.sleep(then_s)
    if process.poll() is not None:
        return False
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    return True


@pytest.fixture(scope="module")
def unbroken(drawings, tmp_path_factory):
    """A run never stopped."""
    run = small_run(tmp_path_factory.mktemp("unbroken") / "run", drawings / "concepts", drawings / "pool")
    done = call("run", run.folder)
    assert done.returncode == 0, done.stderr
    return run


def _check_kills(unbroken, drawings, folder, kills, seed):
    run = small_run(folder, drawings / "concepts", drawings / "pool")
    generator = random.Random(seed)
    killed = sum(
        _kill_after(run.folder, generator.randint(1, 6), generator.uniform(0, 0.2)) for _ in range(kills)
    )
    assert killed > 0
    done = call("run", run.folder)
    assert done.returncode == 0, done.stderr

    expected = pq.read_table(unbroken.release("pop", "1.0") / "dataset.parquet")
    assert pq.read_table(run.release("pop", "1.0") / "dataset.parquet").equals(expected)
    assert expected.num_rows > 0
    for stage in ("selection/selection.parquet", "centroids/centroids.parquet"):
        assert pq.read_table(run.folder / stage).equals(pq.read_table(unbroken.folder / stage))
    assert not list(run.folder.rglob(".*.part-*"))
    assert call("verify", run.folder).returncode == 0


def test_killed_three_times_a_run_ends_with_the_same_release(unbroken, drawings, tmp_path):
    _check_kills(unbroken, drawings, tmp_path / "run", kills=3, seed=1)


@pytest.mark.soak
@pytest.mark.parametrize("seed", range(10))
def test_killed_many_times_a_run_ends_with_the_same_release(unbroken, drawings, tmp_path, seed):
    _check_kills(unbroken, drawings, tmp_path / "run", kills=6, seed=seed)


def _stages(run):
    """The stages that jobs of the run have begun, as their journals tell."""
    lines = [line for path in sorted(run.jobs.glob("*.jsonl")) for line in path.read_text().splitlines()]
    return [json.loads(line)["stage"] for line in lines if '"event": "stage"' in line and line.endswith("}")]


@pytest.mark.soak
def test_ctrl_c_in_each_stage_says_that_it_can_go_on_and_costs_nothing(unbroken, drawings, tmp_path):
    run = small_run(tmp_path / "run", drawings / "concepts", drawings / "pool")
    stopped_in = set()
    while True:
        before, new = len(_stages(run)), set()
        process = subprocess.Popen(
            [sys.executable, "-m", "popfactory", "run", str(run.folder)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        while process.poll() is None and not new:
            time.sleep(0.003)
            new = set(_stages(run)[before:]) - stopped_in
        stopped_in |= new
        if new:
            os.killpg(process.pid, signal.SIGINT)
        _, errors = process.communicate(timeout=60)
        if process.returncode == 0:
            break
        assert process.returncode == 130, errors
        assert "the same command goes on from there" in errors and "Traceback" not in errors

    assert {"embed concepts", "embed pool", "index", "fetch", "select", "caption", "release"} <= stopped_in
    expected = pq.read_table(unbroken.release("pop", "1.0") / "dataset.parquet")
    assert pq.read_table(run.release("pop", "1.0") / "dataset.parquet").equals(expected)


def test_ctrl_c_says_that_it_can_go_on(drawings, tmp_path):
    run = small_run(tmp_path / "run", drawings / "concepts", drawings / "pool")
    process = subprocess.Popen(
        [sys.executable, "-m", "popfactory", "run", str(run.folder)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    journals = run.jobs
    for _ in range(600):
        if any('"event": "stage"' in path.read_text() for path in journals.glob("*.jsonl")):
            break
        time.sleep(0.1)
    os.killpg(process.pid, signal.SIGINT)  # what a terminal sends: to every process of the group
    _, errors = process.communicate(timeout=60)

    assert process.returncode == 130
    assert "the same command goes on from there" in errors
    assert "Traceback" not in errors
