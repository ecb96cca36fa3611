"""Work that the board starts: commands one after another, each a job of its own in the run's journal."""

import threading
from collections.abc import Sequence
from typing import Any

from spine.errors import DataError
from spine.jobs import Job, list_jobs, read_job, start_job
from spine.run import Run

COMMANDS = ("run", "centroids", "index", "retrieve", "fetch", "score", "select", "caption", "release")
"""What may be started from a page; always on the board's own run and without options."""

_LOOK_EVERY_S = 0.3


class JobQueue:
    """Starts jobs, and the next one of a sequence when the one before is done.

    The jobs outlive this process. Of a sequence, only what was started does: the rest is started from
    the page again, and each stage then does what is missing.
    """

    def __init__(self, run: Run) -> None:
        self._run = run
        self._lock = threading.Lock()
        self._closing = threading.Event()
        self._waiting: list[str] = []

    @property
    def waiting(self) -> list[str]:
        """Commands that follow the job at work."""
        return list(self._waiting)

    def start(self, commands: Sequence[str]) -> str:
        """Start the first command now, the others each after the one before is done.

        Returns:
            Job id of the first.

        Raises:
            DataError: A command is none of COMMANDS, or a job is at work on this run.
        """
        wrong = [command for command in commands if command not in COMMANDS]
        if wrong or not commands:
            raise DataError(f"{wrong or 'nothing'} can't be started here; there are: {', '.join(COMMANDS)}")
        with self._lock:
            self._require_idle()
            first = self._start(commands[0])
            self._waiting = list(commands[1:])
        if self._waiting:
            threading.Thread(target=self._follow, args=(first,), name="job sequence", daemon=True).start()
        return first

    def start_with(self, command: str, options: Sequence[str]) -> str:
        """Start one command with options.

        Args:
            command: One of COMMANDS.
            options: As typed behind the run folder; whoever calls has checked them.

        Returns:
            Its job id.

        Raises:
            DataError: A job is at work on this run.
        """
        with self._lock:
            self._require_idle()
            return self._start(command, options)

    def drop_waiting(self) -> None:
        """Start nothing more of the sequence."""
        with self._lock:
            self._waiting = []

    def close(self) -> None:
        """Start nothing more; jobs at work go on."""
        self._closing.set()

    def _require_idle(self) -> None:
        busy = next((job for job in list_jobs(self._run) if is_active(job)), None)
        if busy is not None or self._waiting:
            number = busy.job_id if busy else "a sequence"
            raise DataError(f"job {number} is at work on this run; wait for it, or cancel it")

    def _start(self, command: str, options: Sequence[str] = ()) -> str:
        return start_job(self._run, [command, str(self._run.folder), *options])

    def _follow(self, job_id: str) -> None:
        while not self._closing.wait(_LOOK_EVERY_S):
            job = read_job(self._run, job_id)
            if is_active(job):
                continue
            with self._lock:
                if job.state != "done":
                    self._waiting = []
                if not self._waiting:
                    return
                job_id = self._start(self._waiting.pop(0))


def is_active(job: Job) -> bool:
    """Whether a job is at work or about to be."""
    return job.state in ("queued", "running")


def job_row(job: Job) -> dict[str, Any]:
    """A job as the page shows it."""
    return {
        "job": job.job_id,
        "command": " ".join(["popfactory", *job.command]),
        "state": job.state,
        "stage": job.stage,
        "total": job.total,
        "done": job.done,
        "unit": job.unit,
        "failures": job.failures,
        "started": job.started,
        "ended": job.ended,
        "updated": job.updated,
        "rate": job.rate,
        "eta_s": job.eta_s,
        "message": job.message,
        "lines": list(job.lines),
    }
