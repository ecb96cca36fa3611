"""What a job's journal tells: entries, one JSON object a line, folded into the job as it stands."""

import contextlib
import json
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from spine.errors import DataError
from spine.run import Run

_LINES_KEPT = 50
_POINTS_KEPT = 256


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
    """Of this stage: when how much was done, the first when the job began it, the last by now. Of a long one so many
    that are spread over its time."""
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


class JournalReader:
    """A journal, read on from where the last look ended: one of days has hundreds of thousands of entries."""

    def __init__(self, path: Path) -> None:
        """Args: path: A journal; it may be written to meanwhile, and be there later."""
        self._path, self._offset = path, 0
        self._job = Job(job_id=path.stem)
        self._left: list[Job] = []

    def read(self) -> Job:
        """The job by now.

        Raises:
            FileNotFoundError: There is no such journal.
        """
        for entry, offset in entries(self._path, self._offset):
            self._offset = offset
            if entry["event"] == "stage" and self._job.stage:
                self._left.append(_copy(self._job))
            apply(self._job, entry)
        return _copy(self._job)

    @property
    def stages(self) -> list[Job]:
        """The job as it left each of its stages, and in the one it is in; in order. As `read` found them last."""
        return [*self._left, *([_copy(self._job)] if self._job.stage else [])]


def progress_of(
    run: Run, job_id: str, since: float = 0.0, until: float = float("inf")
) -> list[tuple[float, int]]:
    """When how much of its newest stage was done between two times: seconds since 1970 and units, in order.

    Raises:
        DataError: There is no such job.
    """
    points: list[tuple[float, int]] = []
    job = Job(job_id=job_id)
    for entry, _ in entries(journal_path(run, job_id)):
        apply(job, entry)
        if entry["event"] == "stage":
            points = []
        if job.stage and since <= job.updated <= until:
            points.append((job.updated, job.done))
    return points


def journal_path(run: Run, job_id: str) -> Path:
    """Where a job's journal lies.

    Raises:
        DataError: It can't be a job's id.
    """
    if not job_id or not all(sign.isalnum() or sign == "-" for sign in job_id):
        raise DataError(f"{job_id!r} is no job id")
    return run.jobs / f"{job_id}.jsonl"


def entries(path: Path, offset: int = 0) -> Iterator[tuple[dict[str, Any], int]]:
    """The whole entries of a journal from an offset in bytes on, each with the offset behind it.

    Raises:
        FileNotFoundError: There is no such journal.
    """
    with path.open("rb") as file:
        file.seek(offset)
        for line in file:
            offset += len(line)
            with contextlib.suppress(ValueError):  # half a line, as a killed process leaves it
                yield json.loads(line), offset


def apply(job: Job, entry: dict[str, Any]) -> None:
    """Fold one entry into the job."""
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
            add_point(job.points, (entry["time"], job.done))
            for reason, count in entry["failures"].items():
                job.failures[reason] = job.failures.get(reason, 0) + count
        case "line":
            job.lines.append(entry["line"])
        case "ended":
            job.state, job.message, job.ended = entry["state"], entry["message"], entry["time"]


def add_point(points: list[tuple[float, int]], point: tuple[float, int]) -> None:
    """The newest point is always there; those before are as far apart as a share of the time since the first."""
    apart = (point[0] - points[0][0]) / _POINTS_KEPT
    if len(points) > 2 and points[-1][0] - points[-2][0] < apart:
        points[-1] = point
    else:
        points.append(point)
    if len(points) > _POINTS_KEPT:
        points[:] = points[::2]  # an odd number: the first and the last stay


def _copy(job: Job) -> Job:
    return replace(
        job, points=list(job.points), lines=deque(job.lines, _LINES_KEPT), failures=dict(job.failures)
    )
