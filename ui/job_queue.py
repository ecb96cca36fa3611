"""Work that the board starts: commands one after another, each a job of its own in the run's journal.

What follows the job at work stands in RUN/jobs/waiting.json: a board that is stopped and started again goes on
with it, and so does another one on the same run.
"""

import contextlib
import fcntl
import json
import shlex
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from spine.errors import DataError
from spine.filters import FILTERS, RULES
from spine.jobs import JobReader, list_jobs, new_job_id, start_job
from spine.journals import Job
from spine.publish import publish_bytes
from spine.run import Run
from ui.start_form import MEANINGS, words_of

_LOOK_EVERY_S = 0.3


@dataclass(frozen=True, slots=True)
class _Sequence:
    """A job, and the commands that follow it."""

    after: str
    """Job id; chosen before it is started, so that it is started once whatever happens in between."""
    command: tuple[str, ...]
    """Of that job: itself and its options."""
    then: tuple[str, ...]


class JobQueue:
    """Starts jobs, and the next one of a sequence when the one before is done. Used from several threads."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._file, self._lock_file = run.jobs / "waiting.json", run.jobs / "queue.lock"
        self._closing = threading.Event()
        self._follower: threading.Thread | None = None
        if self._file.exists():
            self._follow()

    @property
    def waiting(self) -> list[str]:
        """Commands that follow the job at work."""
        sequence = self._read()
        return list(sequence.then) if sequence else []

    def start(self, commands: Sequence[str]) -> str:
        """Start the first command now, the others each after the one before is done.

        Args:
            commands: As `ui.start_form.words_of` takes them: "fetch --retry-failed".

        Returns:
            Job id of the first.

        Raises:
            DataError: A command is none that may be started here, or a job is at work on this run.
        """
        if not commands:
            raise DataError(f"nothing can't be started; there are: {', '.join(MEANINGS)}")
        first, *_ = [words_of(command) for command in commands]
        return self._begin(first, tuple(commands[1:]))

    def start_with(self, command: str, options: Sequence[str]) -> str:
        """Start one command with options.

        Args:
            command: Of `ui.start_form.MEANINGS`.
            options: As typed behind the run folder; whoever calls has checked them.

        Returns:
            Its job id.

        Raises:
            DataError: A job is at work on this run.
        """
        return self._begin((command, *options), ())

    def drop_waiting(self) -> None:
        """Start nothing more of the sequence."""
        with self._locked():
            self._file.unlink(missing_ok=True)

    def close(self) -> None:
        """Start nothing more; jobs at work go on, and what waits is started by the next board."""
        self._closing.set()

    def _begin(self, command: tuple[str, ...], then: tuple[str, ...]) -> str:
        with self._locked():
            busy = next((job for job in list_jobs(self._run) if is_active(job)), None)
            if busy is not None or self._file.exists():
                number = busy.job_id if busy else "a sequence"
                raise DataError(f"job {number} is at work on this run; wait for it, or cancel it")
            sequence = _Sequence(new_job_id(), command, then)
            if then:
                self._write(sequence)
            self._start(sequence)
        if then:
            self._follow()
        return sequence.after

    def _follow(self) -> None:
        if self._follower is None or not self._follower.is_alive():
            self._follower = threading.Thread(target=self._go_on, name="job sequence", daemon=True)
            self._follower.start()

    def _go_on(self) -> None:
        looked_at: tuple[str, JobReader] | None = None
        while not self._closing.wait(_LOOK_EVERY_S):
            with self._locked():
                sequence = self._read()
                if sequence is None:
                    return
                if looked_at is None or looked_at[0] != sequence.after:
                    looked_at = sequence.after, JobReader(self._run, sequence.after)
                try:
                    job = looked_at[1].read()
                except DataError:  # the board ended between choosing its id and starting it
                    self._start(sequence)
                    continue
                if is_active(job):
                    continue
                if job.state == "lost" and not job.pid:  # a board was killed in the moment of starting it
                    sequence = replace(sequence, after=new_job_id())
                    self._write(sequence)
                    self._start(sequence)
                    continue
                if job.state != "done" or not sequence.then:
                    self._file.unlink(missing_ok=True)
                    return
                following = _Sequence(new_job_id(), tuple(sequence.then[0].split(" ")), sequence.then[1:])
                self._write(following)
                self._start(following)

    def _start(self, sequence: _Sequence) -> None:
        command, *options = sequence.command
        start_job(self._run, [command, str(self._run.folder), *options], sequence.after)

    def _read(self) -> _Sequence | None:
        try:
            content = json.loads(self._file.read_text(encoding="utf-8"))
            return _Sequence(content["after"], tuple(content["command"]), tuple(content["then"]))
        except FileNotFoundError:
            return None
        except (ValueError, KeyError, TypeError):
            raise DataError(f"{self._file}: damaged; delete it, and start again what should follow") from None

    def _write(self, sequence: _Sequence) -> None:
        content = {"after": sequence.after, "command": sequence.command, "then": sequence.then}
        publish_bytes(self._file, json.dumps(content).encode())

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        """One at a time, over all boards of this run."""
        self._run.jobs.mkdir(parents=True, exist_ok=True)
        with self._lock_file.open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield


def is_active(job: Job) -> bool:
    """Whether a job is at work or about to be."""
    return job.state in ("queued", "running")


class JobList:
    """The run's jobs, newest first; of each journal only what is new is read. Used from several threads."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._ended: dict[str, Job] = {}
        self._readers: dict[str, JobReader] = {}
        self._lock = threading.Lock()

    def total(self) -> int:
        """How many jobs there are."""
        return sum(1 for _ in self._run.jobs.glob("*.jsonl"))

    def newest(self, count: int) -> list[Job]:
        """The newest jobs."""
        # By id, which begins with the second it was made in: the order among those of one second comes below.
        paths = sorted(self._run.jobs.glob("*.jsonl"), reverse=True)[: count + 10]
        jobs = [self._ended.get(path.stem) or self.read(path.stem) for path in paths]
        return sorted(jobs, key=lambda job: (job.started, job.job_id), reverse=True)[:count]

    def read(self, job_id: str) -> Job:
        """One job.

        Raises:
            DataError: There is no such job.
        """
        with self._lock:
            return self._looked_at(job_id)[0]

    def stages(self, job_id: str) -> list[Job]:
        """A job as it left each of its stages, and in the one it is in; in order.

        Raises:
            DataError: There is no such job.
        """
        with self._lock:
            return self._looked_at(job_id)[1].stages

    def _looked_at(self, job_id: str) -> tuple[Job, JobReader]:
        reader = self._readers.get(job_id) or JobReader(self._run, job_id)
        job = reader.read()
        if job.ended is None:
            self._readers[job_id] = reader
        else:
            self._ended[job_id] = job
            self._readers.pop(job_id, None)
        return job, reader


def job_row(job: Job) -> dict[str, Any]:
    """A job as the page shows it."""
    return {
        "job": job.job_id,
        "command": shlex.join(["popfactory", *job.command]),
        "startable": bool(job.command) and job.command[0] in MEANINGS,
        "state": job.state,
        "stage": job.stage,
        "total": job.total,
        "done": job.done,
        "unit": job.unit,
        "failures": job.failures,
        "meanings": {reason: RULES[reason] for reason in job.failures if reason in FILTERS},
        "started": job.started,
        "ended": job.ended,
        "updated": job.updated,
        "rate": job.rate,
        "eta_s": job.eta_s,
        "message": job.message,
        "lines": list(job.lines),
    }
