"""How a stage tells what it is doing. The terminal's bar and a job's journal are two listeners."""

from typing import Protocol


class Progress(Protocol):
    """Told by a stage as it works; never slows it down or stops it."""

    def begin(self, stage: str, total: int | None, unit: str, done: int = 0) -> None:
        """A stage starts.

        Args:
            stage: Its name, such as "embed pool".
            total: Units of work, None if it can't be known before.
            unit: What is counted, in the plural: "images".
            done: Units found finished from an earlier start.
        """

    def advance(self, units: int, failures: dict[str, int] | None = None) -> None:
        """`units` more are done, of which `failures` (reason to count) failed."""

    def say(self, line: str) -> None:
        """Something a person should read."""

    def end(self) -> None:
        """The stage's work is done and published."""


class _Silent:
    """Tells nobody."""

    def begin(self, stage: str, total: int | None, unit: str, done: int = 0) -> None:
        """Nobody is told."""

    def advance(self, units: int, failures: dict[str, int] | None = None) -> None:
        """Nobody is told."""

    def say(self, line: str) -> None:
        """Nobody is told."""

    def end(self) -> None:
        """Nobody is told."""


SILENT: Progress = _Silent()
"""Tells nobody; stages take it by default."""


class Chorus:
    """Tells several listeners."""

    def __init__(self, *listeners: Progress) -> None:
        self._listeners = listeners

    def begin(self, stage: str, total: int | None, unit: str, done: int = 0) -> None:
        """Each listener is told."""
        for listener in self._listeners:
            listener.begin(stage, total, unit, done)

    def advance(self, units: int, failures: dict[str, int] | None = None) -> None:
        """Each listener is told."""
        for listener in self._listeners:
            listener.advance(units, failures)

    def say(self, line: str) -> None:
        """Each listener is told."""
        for listener in self._listeners:
            listener.say(line)

    def end(self) -> None:
        """Each listener is told."""
        for listener in self._listeners:
            listener.end()
