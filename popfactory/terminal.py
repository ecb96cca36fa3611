"""What a person sees while a stage works: a bar with rate and time left, a line when it is done."""

import sys
import time
from datetime import timedelta

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TaskID,
    TextColumn,
)
from rich.text import Text

from spine.journals import Job, add_point

_NOTED_EVERY_S = 0.5  # as journals are written


class TerminalProgress:
    """A `spine.progress.Progress` on standard error: a live bar on a terminal, a line a stage elsewhere."""

    def __init__(self, *, quiet: bool = False) -> None:
        """Show progress, or with `quiet` nothing but what `say` must tell."""
        self._quiet = quiet
        self._console = Console(stderr=True, highlight=False, soft_wrap=True)
        self._bars: Progress | None = None
        self._task: TaskID | None = None
        self._job = Job("")
        self._stage, self._unit, self._done, self._before, self._began = "", "", 0, 0, 0.0
        self._failures: dict[str, int] = {}

    def begin(self, stage: str, total: int | None, unit: str, done: int = 0) -> None:
        """A stage starts."""
        self._stop_bar()
        self._stage, self._unit, self._done, self._before = stage, unit, done, done
        self._failures, self._began = {}, time.monotonic()
        if not self._quiet and sys.stderr.isatty():
            self._bars = Progress(
                TextColumn("{task.description:<16}"),
                BarColumn(bar_width=28),
                MofNCompleteColumn(),
                _Rate(),
                _Left(),
                console=self._console,
                transient=True,
            )
            self._job = Job("", state="running", total=total, done=done, points=[(self._began, done)])
            self._task = self._bars.add_task(stage, total=total, completed=done, job=self._job)
            self._bars.start()

    def advance(self, units: int, failures: dict[str, int] | None = None) -> None:
        """More is done."""
        self._done += units
        for reason, count in (failures or {}).items():
            self._failures[reason] = self._failures.get(reason, 0) + count
        if self._bars is not None and self._task is not None:
            now, self._job.done = time.monotonic(), self._done
            if now - self._job.points[-1][0] >= _NOTED_EVERY_S:
                add_point(self._job.points, (now, self._done))
            self._bars.advance(self._task, units)

    def say(self, line: str) -> None:
        """Something a person should read."""
        if not self._quiet:
            self._console.print(Text(f"  {line}"))

    def end(self) -> None:
        """The stage is done: one line says what it did."""
        self._stop_bar()
        if self._quiet or not self._stage:
            return
        elapsed = time.monotonic() - self._began
        line = f"{self._stage:<16} {self._done:>9,} {self._unit:<12} {elapsed:7.1f} s"
        if self._before:
            line += f"   {self._before:,} were there"
        if self._failures:
            reasons = ", ".join(f"{reason} {count:,}" for reason, count in sorted(self._failures.items()))
            line += f"   failed: {reasons}"
        self._console.print(Text(line))
        self._stage = ""

    def close(self) -> None:
        """Leave the terminal as it was, whatever happened."""
        self._stop_bar()

    def _stop_bar(self) -> None:
        if self._bars is not None:
            self._bars.stop()
            self._bars = self._task = None


class _Rate(ProgressColumn):
    """Units a second, as the run's jobs tell it."""

    def render(self, task: Task) -> Text:
        rate = task.fields["job"].rate
        return Text(f"{rate:8.1f}/s" if rate is not None else "")


class _Left(ProgressColumn):
    """Time left, as the run's jobs tell it."""

    def render(self, task: Task) -> Text:
        left = task.fields["job"].eta_s
        return Text(str(timedelta(seconds=round(left))) if left is not None else "-:--:--")
