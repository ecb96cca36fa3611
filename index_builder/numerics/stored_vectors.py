"""Embeddings left on disk as float16, read as unit float32 rows when they are asked for.

What clusters, trains and builds takes them instead of an array, so that the size of a collection is no
matter to memory.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from index_builder.numerics.half_floats import widened
from index_builder.numerics.unit_vectors import unit_rows
from spine.errors import DataError
from spine.shards import published_shards
from spine.tables import Vectors

BLOCK_BYTES = 2**25
"""Of float32 rows in a block: 10,922 of them at d = 768."""


class VectorSource(Protocol):
    """Rows of unit vectors by number: an array in memory, or `StoredVectors`."""

    @property
    def shape(self) -> tuple[int, ...]:
        """(n, d)."""

    def __len__(self) -> int:
        """The number of rows."""

    def __getitem__(self, rows: Any, /) -> Vectors:
        """The rows of a slice, or of an array of numbers."""


class StoredVectors:
    """The rows of .npy files, one file after the other.

    Attributes:
        n: Rows there are.
        d: Their dimension.
    """

    def __init__(self, paths: Sequence[Path]) -> None:
        """Look at the files' headers.

        Args:
            paths: Each holds shape (any number, d), the same d in all that have rows.

        Raises:
            DataError: A file can't be read, the dimensions differ, or there is no row at all.
        """
        sizes, dimensions = [], set()
        for path in paths:
            rows, d = _opened(path).shape
            sizes.append(rows)
            dimensions |= {d} if rows else set()
        if not dimensions:
            raise DataError(
                f"{_common(paths)}: no vectors; look at the statuses of the embedding for the reasons"
            )
        if len(dimensions) > 1:
            raise DataError(
                f"{_common(paths)}: shards of dimension {sorted(dimensions)}; embed again with --force"
            )
        self._paths = list(paths)
        self._ends = np.cumsum(sizes, dtype=np.int64)
        self.n, self.d = int(self._ends[-1]), dimensions.pop()

    @classmethod
    def of_collection(cls, folder: Path) -> "StoredVectors":
        """The vectors of concepts/ or pool/, finished; every file is read once and compared with the manifest.

        Raises:
            DataError: It isn't finished, a file is not as published, or no picture could be embedded.
        """
        paths = [shard.vectors_path for shard in published_shards(folder)]
        if not any(len(_opened(path)) for path in paths):
            raise DataError(f"{folder}: no picture could be embedded; look at its statuses/ for the reasons")
        return cls(paths)

    @property
    def shape(self) -> tuple[int, int]:
        """(n, d)."""
        return self.n, self.d

    def __len__(self) -> int:
        """The number of rows."""
        return self.n

    def __getitem__(self, rows: slice | npt.NDArray[np.integer[Any]], /) -> Vectors:
        """Rows in the order asked, float32, L2 norm 1; sorted numbers are read from front to back.

        Raises:
            DataError: One of them has not norm 1 within 1e-3, or its file changed.
        """
        if isinstance(rows, slice):
            return self._consecutive(*rows.indices(self.n))
        numbers = np.asarray(rows)
        taken = np.empty((len(numbers), self.d), dtype=np.float32)
        files = np.searchsorted(self._ends, numbers, side="right")
        for file in np.unique(files):
            inside, array = np.flatnonzero(files == file), _opened(self._paths[file])
            taken[inside] = self._unit(file, array[numbers[inside] - (self._ends[file] - len(array))])
        return taken

    def _consecutive(self, start: int, stop: int, step: int) -> Vectors:
        if step != 1:
            raise ValueError(
                f"a step of {step}; rows one after the other, or an array of numbers, was needed"
            )
        taken = np.empty((max(0, stop - start), self.d), dtype=np.float32)
        place = start
        while place < stop:
            file = int(np.searchsorted(self._ends, place, side="right"))
            array, last = _opened(self._paths[file]), min(stop, int(self._ends[file]))
            before = int(self._ends[file]) - len(array)
            taken[place - start : last - start] = self._unit(file, array[place - before : last - before])
            place = last
        return taken

    def _unit(self, file: int, stored: npt.NDArray[Any]) -> Vectors:
        try:
            return unit_rows(widened(stored))
        except DataError as error:
            raise DataError(f"{self._paths[file]}: {error}") from None

    def blocks(self, start: int = 0, stop: int | None = None) -> Iterator[tuple[int, Vectors]]:
        """Rows from `start` to `stop` in order, a bounded number at a time, each block with its first row's number."""
        stop = self.n if stop is None else stop
        step = block_rows(self.d)
        for first in range(start, stop, step):
            yield first, self[first : min(first + step, stop)]


def block_rows(d: int) -> int:
    """Rows of dimension d that make a block."""
    return max(256, BLOCK_BYTES // (4 * d))


def _opened(path: Path) -> npt.NDArray[Any]:
    """The file's array, not read yet. Opened anew each time: thousands of files can't stay open."""
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: can't be read ({error}); embed again with --force") from None
    if array.ndim != 2 or array.dtype.kind != "f":
        raise DataError(f"{path}: shape {array.shape} of {array.dtype}, rows of floats were needed")
    opened: npt.NDArray[Any] = array
    return opened


def _common(paths: Sequence[Path]) -> str:
    return str(paths[0].parent) if paths else "no files"
