"""Jobs: a stage as its own process, with a journal that the UI and the command read alike.

    RUN/jobs/JOB_ID.jsonl    the journal: one JSON object a line, only ever appended to
    RUN/jobs/JOB_ID.log      what the process printed, where it was started in the background
    RUN/jobs/work.lock       held by the process that works on the run

A journal is written by the process that does the work, whoever started it. It survives the page and
the page's server; a process that died without a last word is shown as lost.
"""

import contextlib
import fcntl
import json
import os
import secrets
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any

from spine.errors import DataError
from spine.run import Run

_JOB_VARIABLE = "POPFACTORY_JOB"
_WRITE_EVERY_S = 0.5
_LINES_KEPT = 50
_POINTS_KEPT = 256
_BEGINS_S = 60.0  # a process that has told its journal nothing by then never started


@dataclass(slots=True)
class Job:
    """What a journal tells."""

    job_id: str
    command: list[str] = field(default_factory=list)
    """As typed after `popfactory`."""
    pid: int = 0
    process_start: str = ""
    """Tells the process from a later one with the same number."""
    state: str = "queued"
    """queued, running, done, failed, cancelled or lost."""
    stage: str = ""
    total: int | None = None
    done: int = 0
    unit: str = ""
    failures: dict[str, int] = field(default_factory=dict)
    started: float = 0.0
    """Seconds since 1970, as all times here."""
    ended: float | None = None
    points: list[tuple[float, int]] = field(default_factory=list)
    """Of this stage: when how much was done, the first when the job began it; of a long one every so many."""
    updated: float = 0.0
    message: str = ""
    """Why it failed."""
    lines: deque[str] = field(default_factory=lambda: deque(maxlen=_LINES_KEPT))

    @property
    def rate(self) -> float | None:
        """Units a second in this stage, but for the first quarter of its time in this job; None before the first.

        So what a start costs has no part in it: nor does what was done first, where there is more. It is counted from
        the last word within that quarter, not from the next one: of a short time, words are few and far between.
        """
        if len(self.points) < 2:
            return None
        (began, _), *later, (now, done) = self.points
        early = [point for point in later[1:] if point[0] <= began + (now - began) / 4]
        since, before = early[-1] if early else (later or self.points)[0]
        return (done - before) / (now - since) if done > before and now > since else None

    @property
    def eta_s(self) -> float | None:
        """Seconds left in this stage at this rate; None where it can't be known."""
        rate = self.rate
        return (
            (self.total - self.done) / rate
            if rate and self.total is not None and self.state == "running"
            else None
        )


class Journal:
    """A `spine.progress.Progress` that writes a job's journal."""

    def __init__(self, run: Run, command: Sequence[str]) -> None:
        """Begin a job, under the id its starter chose or a new one.

        Args:
            run: Whose jobs/ folder it goes to.
            command: As typed after `popfactory`.
        """
        self.job_id = os.environ.pop(_JOB_VARIABLE, "") or new_job_id()
        run.jobs.mkdir(parents=True, exist_ok=True)
        self._file: IO[str] = _journal_path(run, self.job_id).open("a", encoding="utf-8")
        self._pending, self._failures, self._written = 0, dict[str, int](), 0.0
        pid = os.getpid()
        self._write(event="started", command=list(command), pid=pid, process_start=_process_start(pid))

    def begin(self, stage: str, total: int | None, unit: str, done: int = 0) -> None:
        """A stage starts."""
        self._flush()
        self._write(event="stage", stage=stage, total=total, unit=unit, done=done)

    def advance(self, units: int, failures: dict[str, int] | None = None) -> None:
        """More is done; written twice a second at most."""
        self._pending += units
        for reason, count in (failures or {}).items():
            self._failures[reason] = self._failures.get(reason, 0) + count
        if time.monotonic() - self._written >= _WRITE_EVERY_S:
            self._flush()

    def say(self, line: str) -> None:
        """Something a person should read."""
        self._flush()
        self._write(event="line", line=line)

    def end(self) -> None:
        """The stage is done."""
        self._flush()

    def close(self, state: str, message: str = "") -> None:
        """The job's last word: done, failed or cancelled."""
        self._flush()
        self._write(event="ended", state=state, message=message)
        self._file.close()

    def _flush(self) -> None:
        if self._pending or self._failures:
            self._write(event="advance", units=self._pending, failures=self._failures)
            self._pending, self._failures = 0, {}
        self._written = time.monotonic()

    def _write(self, **entry: Any) -> None:
        self._file.write(json.dumps({"time": time.time(), **entry}, ensure_ascii=True) + "\n")
        self._file.flush()


def new_job_id() -> str:
    """An id that sorts by the time it was made: 20260131T120000-1a2b3c."""
    return f"{datetime.now(UTC):%Y%m%dT%H%M%S}-{secrets.token_hex(3)}"


def start_job(run: Run, arguments: Sequence[str], job_id: str | None = None) -> str:
    """Start `popfactory ARGUMENTS` as its own process, which outlives this one.

    Args:
        run: The run it works on.
        arguments: As typed after `popfactory`, such as ["caption", "runs/a"].
        job_id: Of `new_job_id`; None for a fresh one.

    Returns:
        Its job id; the journal appears when the process has started.
    """
    job_id = job_id or new_job_id()
    run.jobs.mkdir(parents=True, exist_ok=True)
    entry = {"time": time.time(), "event": "queued", "command": list(arguments)}
    _journal_path(run, job_id).write_text(json.dumps(entry) + "\n", encoding="utf-8")
    with (run.jobs / f"{job_id}.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "popfactory", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            env={**os.environ, _JOB_VARIABLE: job_id},
            start_new_session=True,
        )
    _children[job_id] = process
    return job_id


def answer_of(arguments: Sequence[str], *, timeout_s: float = 120.0) -> str:
    """What `popfactory ARGUMENTS` prints: for questions that change nothing, such as a dry run.

    Raises:
        DataError: It failed, with its own words, or took too long.
    """
    try:
        done = subprocess.run(
            [sys.executable, "-m", "popfactory", *arguments],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            encoding="utf-8",
            errors="replace",
            timeout=timeout_s,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise DataError(f"popfactory {' '.join(arguments)}: no answer within {timeout_s:.0f} s") from None
    if done.returncode:
        said = done.stderr.strip().splitlines() or [f"ended with {done.returncode}"]
        raise DataError(said[-1].removeprefix("popfactory: "))
    return done.stdout


_children: dict[str, "subprocess.Popen[bytes]"] = {}  # reaped when their job is read


def list_jobs(run: Run) -> list[Job]:
    """Every job of a run, newest first."""
    jobs = [read_job(run, path.stem) for path in run.jobs.glob("*.jsonl")]
    # By when they began: ids of one second sort by chance.
    return sorted(jobs, key=lambda job: (job.started, job.job_id), reverse=True)


def read_job(run: Run, job_id: str) -> Job:
    """What a job's journal tells now.

    Raises:
        DataError: There is no such job.
    """
    path = _journal_path(run, job_id)
    job = Job(job_id=job_id)
    try:
        with path.open(encoding="utf-8") as file:
            for line in file:
                with contextlib.suppress(ValueError):  # the last line of a killed process may be half
                    _apply(job, json.loads(line))
    except FileNotFoundError:
        raise DataError(
            f"{path}: no such job; `popfactory status {run.folder}` lists those there are"
        ) from None
    child = _children.get(job_id)
    if child is not None and child.poll() is not None:
        del _children[job_id]
    if job.state == "running" and _process_start(job.pid) != job.process_start:
        job.state, job.message = "lost", "its process ended without a last word; run it again and it goes on"
    if job.state == "queued" and child is not None and child.returncode is not None:
        ended = {"time": time.time(), "event": "ended", "state": "failed", "message": _log_end(run, job_id)}
        with path.open("a", encoding="utf-8") as file:  # it could not tell so itself
            file.write(json.dumps(ended) + "\n")
        _apply(job, ended)
    if job.state == "queued" and child is None and time.time() - job.updated > _BEGINS_S:
        job.state, job.message = "lost", "its process never began; start it again"
    return job


def past_stages(run: Run, stage: str) -> list[Job]:
    """What every job's journal told when it left this stage, oldest first.

    `rate` of each is that of the stage; its `lines` may be of the stages before too.
    """
    left: list[Job] = []
    for path in sorted(run.jobs.glob("*.jsonl")):
        job = Job(job_id=path.stem)
        for line in path.read_text(encoding="utf-8").splitlines():
            with contextlib.suppress(ValueError):  # the last line of a killed process may be half
                entry = json.loads(line)
                if job.stage == stage and entry["event"] in ("stage", "ended"):
                    left.append(replace(job, lines=deque(job.lines), failures=dict(job.failures)))
                _apply(job, entry)
    return sorted(left, key=lambda job: job.started)  # ids of one second sort by chance


def stages_of(run: Run, job_id: str) -> list[Job]:
    """What a job's journal told when it left each of its stages, and of the one it is in; in order."""
    stages: list[Job] = []
    for job, event in _replayed(run, job_id):
        if event == "stage" or not stages:
            stages.append(job)
        else:
            stages[-1] = job
    return [job for job in stages if job.stage]


def progress_of(run: Run, job_id: str) -> list[tuple[float, int]]:
    """When how much of its newest stage was done: seconds since 1970 and units, in order."""
    points: list[tuple[float, int]] = []
    for job, event in _replayed(run, job_id):
        if event == "stage":
            points = []
        if job.stage:
            points.append((job.updated, job.done))
    return points


def _replayed(run: Run, job_id: str) -> Iterator[tuple[Job, str]]:
    """The job after each entry of its journal, with the entry's event."""
    job = Job(job_id=job_id)
    for line in _journal_path(run, job_id).read_text(encoding="utf-8").splitlines():
        with contextlib.suppress(ValueError):  # the last line of a killed process may be half
            entry = json.loads(line)
            _apply(job, entry)
            yield replace(job, lines=deque(job.lines), failures=dict(job.failures)), entry["event"]


def cancel_job(run: Run, job_id: str) -> None:
    """Ask a running job to stop; what it finished stays, and the same command goes on from there.

    One whose process is still starting is waited for: a signal would find nobody yet who could tell the journal.
    """
    until = time.monotonic() + _BEGINS_S
    while (job := read_job(run, job_id)).state == "queued" and time.monotonic() < until:
        time.sleep(0.05)
    if job.state == "running":
        with contextlib.suppress(ProcessLookupError):
            os.kill(job.pid, signal.SIGINT)


@contextlib.contextmanager
def sole_worker(run: Run) -> Iterator[None]:
    """Hold the run's work lock: two stages at once would write into each other's folders.

    Raises:
        DataError: Another process works on the run.
    """
    run.jobs.mkdir(parents=True, exist_ok=True)
    with (run.jobs / "work.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            busy = next((job for job in list_jobs(run) if job.state == "running"), None)
            who = f"job {busy.job_id} (popfactory {' '.join(busy.command)})" if busy else "another process"
            raise DataError(f"{run.folder}: {who} is at work here; wait for it, or cancel it") from None
        yield


def _journal_path(run: Run, job_id: str) -> Path:
    if not job_id or not all(sign.isalnum() or sign == "-" for sign in job_id):
        raise DataError(f"{job_id!r} is no job id")
    return run.jobs / f"{job_id}.jsonl"


def _apply(job: Job, entry: dict[str, Any]) -> None:
    job.updated = entry["time"]
    match entry["event"]:
        case "queued":
            job.command, job.started = entry["command"], entry["time"]
        case "started":
            job.command, job.state = entry["command"], "running"
            job.pid, job.process_start = entry["pid"], entry["process_start"]
            job.started = job.started or entry["time"]
        case "stage":
            job.stage, job.total, job.unit = entry["stage"], entry["total"], entry["unit"]
            job.done, job.failures = entry["done"], {}
            job.points = [(entry["time"], job.done)]
        case "advance":
            job.done += entry["units"]
            job.points.append((entry["time"], job.done))
            if len(job.points) > _POINTS_KEPT:
                job.points = job.points[::2]  # an odd number: the first and the last stay
            for reason, count in entry["failures"].items():
                job.failures[reason] = job.failures.get(reason, 0) + count
        case "line":
            job.lines.append(entry["line"])
        case "ended":
            job.state, job.message, job.ended = entry["state"], entry["message"], entry["time"]


def _process_start(pid: int) -> str:
    """When a process started, by the kernel's count; empty where there is none (or no /proc: then only its being)."""
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rsplit(")", 1)[1].split()[19]
    except (OSError, IndexError):
        pass
    try:
        os.kill(pid, 0)
    except OSError:
        return ""
    return "unknown"


def _log_end(run: Run, job_id: str) -> str:
    with contextlib.suppress(OSError):
        lines = (
            (run.jobs / f"{job_id}.log").read_text(encoding="utf-8", errors="replace").strip().splitlines()
        )
        return lines[-1] if lines else "it ended before it began"
    return "it ended before it began"
