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
from spine.publish import publish_text


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
        self._here = _read(path)
        self._fresh: list[Unit] = []
        self._file = self._begun()

    def _begun(self) -> TextIO:
        """The file with what is here, to be appended to; without the half line of a kill, or the next would join it."""
        publish_text(self._path, "".join(_line(name, reply) for name, reply in self._here.items()))
        return self._path.open("a", encoding="utf-8")

    def find(self, caption_id: str) -> Reply | None:
        """The reply that stands for this caption, if one has come."""
        return self._here.get(caption_id)

    def keep(self, unit: Unit, reply: Reply) -> None:
        """Write down a reply; one without text is no caption, and left to be asked again."""
        with self._lock:
            self._fresh.append(unit)
            if reply.text.strip():
                self._here[unit.caption_id] = reply
                self._file.write(_line(unit.caption_id, reply))
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
                self._here.pop(name, None)
            self._file.close()
            self._file = self._begun()

    def close(self) -> None:
        """Leave what is not published to the next start."""
        self._file.close()


def _line(caption_id: str, reply: Reply) -> str:
    return json.dumps({"caption_id": caption_id, **asdict(reply)}) + "\n"


def _read(path: Path) -> dict[str, Reply]:
    found = {}
    if path.is_file():
        for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
            with contextlib.suppress(ValueError):  # a kill may leave half a line
                entry = json.loads(line)
                name = entry.pop("caption_id")
                found[name] = Reply(**entry)
    return found
