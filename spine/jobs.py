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
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any

from spine.errors import DataError
from spine.journals import Job, JournalReader, journal_path
from spine.run import Run

_JOB_VARIABLE = "POPFACTORY_JOB"
_WRITE_EVERY_S = 0.5
_BEGINS_S = 60.0  # a process that has told its journal nothing by then never started


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
        self._file: IO[str] = journal_path(run, self.job_id).open("a", encoding="utf-8")
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
    journal_path(run, job_id).write_text(json.dumps(entry) + "\n", encoding="utf-8")
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
    return JobReader(run, job_id).read()


class JobReader:
    """One job, looked at again and again: its journal is read on from where the last look ended."""

    def __init__(self, run: Run, job_id: str) -> None:
        """Args: run, job_id: Whose; that there is such a job, reading finds out."""
        self._run, self._job_id, self._path = run, job_id, journal_path(run, job_id)
        self._journal = JournalReader(self._path)

    @property
    def stages(self) -> list[Job]:
        """The job as it left each of its stages, and in the one it is in; in order. As `read` found them last."""
        return self._journal.stages

    def read(self) -> Job:
        """The job by now; lost where its process is gone without a last word.

        Raises:
            DataError: There is no such job.
        """
        try:
            job = self._journal.read()
        except FileNotFoundError:
            raise DataError(
                f"{self._path}: no such job; `popfactory status {self._run.folder}` lists those there are"
            ) from None
        child = _children.get(self._job_id)
        if child is not None and child.poll() is not None:
            _children.pop(self._job_id, None)
        if job.state == "running" and _process_start(job.pid) != job.process_start:
            job.state, job.message = (
                "lost",
                "its process ended without a last word; run it again and it goes on",
            )
        if job.state == "queued" and child is not None and child.returncode is not None:
            said = _log_end(self._run, self._job_id)
            ended = {"time": time.time(), "event": "ended", "state": "failed", "message": said}
            with self._path.open("a", encoding="utf-8") as file:  # it could not tell so itself
                file.write(json.dumps(ended) + "\n")
            job = self._journal.read()
        if job.state == "queued" and child is None and time.time() - job.updated > _BEGINS_S:
            job.state, job.message = "lost", "its process never began; start it again"
        return job


def past_stages(run: Run, stage: str) -> list[Job]:
    """What every job's journal told when it left this stage, oldest first.

    `rate` of each is that of the stage; its `lines` may be of the stages before too.
    """
    left: list[Job] = []
    for path in sorted(run.jobs.glob("*.jsonl")):
        journal = JournalReader(path)
        ended = journal.read().ended is not None
        left += [job for job in (journal.stages if ended else journal.stages[:-1]) if job.stage == stage]
    return sorted(left, key=lambda job: job.started)  # ids of one second sort by chance


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
