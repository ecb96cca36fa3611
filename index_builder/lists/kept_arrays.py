"""What a long search had found when it was last written down, so that a stop costs minutes, not the search."""

import hashlib
import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from spine.publish import publishing

Arrays = dict[str, npt.NDArray[Any]]


def search_key(parts: Iterable[npt.NDArray[Any]]) -> str:
    """What tells one search from another: a digest over all that its result depends on."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(f"{part.dtype} {part.shape} ".encode())
        digest.update(np.ascontiguousarray(part).data)
    return digest.hexdigest()


class KeptArrays:
    """One file of arrays, written over again and again, that belongs to one search."""

    def __init__(self, path: Path, key: str) -> None:
        """Name the file and the search.

        Args:
            path: Where they are kept; its folder is there.
            key: See `search_key`.
        """
        self._path, self._key = path, key

    def read(self) -> Arrays | None:
        """What was written last; None where nothing was, another search wrote it, or it can't be read."""
        try:
            with np.load(self._path, allow_pickle=False) as stored:
                if str(stored["key"]) != self._key:
                    return None
                return {name: stored[name] for name in stored.files if name != "key"}
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
            return None

    def write(self, **arrays: Any) -> None:
        """Keep these arrays, in place of what was there."""
        with publishing(self._path) as temporary, temporary.open("wb") as file:
            np.savez(file, key=np.array(self._key), **arrays)
