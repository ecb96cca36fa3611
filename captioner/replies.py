"""Replies that are not published yet, written down as they come: a kill costs only what is being asked."""

import contextlib
import json
import threading
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import TextIO

from captioner.engine import Reply
from captioner.worklist import Unit

_NEW = ".new"  # behind the name of the file that is to replace what is there


class KeptReplies:
    """The first replies of units whose rows are not published yet; told of them from any thread.

    Failures are not kept: they are asked again. Nor is the disk waited for: what a power cut takes is asked again too.
    """

    def __init__(self, path: Path) -> None:
        """Read what an earlier start left.

        Args:
            path: A line a reply, only ever appended to until they are published.
        """
        self._path, self._lock = path, threading.Lock()
        self._lines = _read(path)
        self._fresh: list[Unit] = []
        self._file = self._begun()

    def _begun(self) -> TextIO:
        """The file with what is here, to be appended to; without the half line of a kill, or the next would join it.

        Under another name until it is whole, and no disk is waited for: replies come meanwhile.
        """
        path = self._path.with_name(f"{self._path.name}{_NEW}")
        path.write_text("".join(self._lines.values()), encoding="utf-8")
        path.replace(self._path)
        return self._path.open("a", encoding="utf-8")

    def find(self, caption_id: str) -> Reply | None:
        """The reply that stands for this caption, if one has come."""
        line = self._lines.get(caption_id)
        return _understood(line)[1] if line is not None else None

    def keep(self, unit: Unit, reply: Reply) -> None:
        """Write down a reply; one without text is no caption, and left to be asked again."""
        with self._lock:
            self._fresh.append(unit)
            if reply.text.strip():
                line = json.dumps({"caption_id": unit.caption_id, **asdict(reply)}) + "\n"
                self._lines[unit.caption_id] = line
                self._file.write(line)
                self._file.flush()

    def fresh(self) -> list[Unit]:
        """Units whose replies have come since this was last asked."""
        with self._lock:
            fresh, self._fresh = self._fresh, []
            return fresh

    def settle(self, caption_ids: Iterable[str]) -> None:
        """Drop these: they are published."""
        with self._lock:
            for name in caption_ids:
                self._lines.pop(name, None)
            self._file.close()
            self._file = self._begun()

    def close(self) -> None:
        """Leave what is not published to the next start."""
        self._file.close()


def _read(path: Path) -> dict[str, str]:
    found = {}
    if path.is_file():
        for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
            with contextlib.suppress(ValueError):  # a kill may leave half a line
                found[_understood(line)[0]] = line + "\n"
    return found


def _understood(line: str) -> tuple[str, Reply]:
    entry = json.loads(line)
    return entry.pop("caption_id"), Reply(**entry)
