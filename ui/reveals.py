"""Who looked at which blurred picture: a line each, in a file that only grows."""

import json
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path


class Reveals:
    """The log of clear pictures that were asked for though pages blur them. Used from several threads."""

    def __init__(self, path: Path, is_hidden: Callable[[str], bool]) -> None:
        """Args: path: The log. is_hidden: Tells by SHA-256 which pictures pages blur."""
        self._path, self._is_hidden = path, is_hidden
        self._lock = threading.Lock()

    def note(self, sha256: str, curator: str) -> None:
        """A clear picture was given to this curator; written down if pages blur it."""
        if not self._is_hidden(sha256):
            return
        entry = {
            "time": datetime.now(UTC).isoformat(timespec="seconds"),
            "curator": curator,
            "sha256": sha256,
        }
        with self._lock, self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(entry) + "\n")
