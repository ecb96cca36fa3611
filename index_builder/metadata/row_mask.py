"""Which rows of an index pass a predicate: one bit a row."""

from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt

from index_builder.metadata.metadata_rows import Rows
from index_builder.numerics.faiss_library import load_faiss


class RowMask:
    """A set of row numbers.

    Attributes:
        n: Rows of the index.
        count: How many of them are in the set.
    """

    def __init__(self, n: int, pieces: Iterable[npt.NDArray[np.bool_]]) -> None:
        """Pack what is said of rows 0, 1, ... piece by piece; together they have n entries."""
        self.n, self.count = n, 0
        self._bits = np.zeros(-(-n // 8), dtype=np.uint8)
        start, left = 0, np.empty(0, dtype=bool)
        for piece in pieces:
            self.count += int(np.count_nonzero(piece))
            whole = np.concatenate([left, piece]) if len(left) else piece
            end = len(whole) // 8 * 8
            self._bits[start // 8 : (start + end) // 8] = np.packbits(whole[:end], bitorder="little")
            start, left = start + end, whole[end:]
        if len(left):
            self._bits[start // 8] = np.packbits(left, bitorder="little")[0]
        if start + len(left) != n:
            raise ValueError(f"{start + len(left):,} entries for {n:,} rows")

    def has(self, rows: Rows) -> npt.NDArray[np.bool_]:
        """Whether each of these rows is in the set; shape as `rows`."""
        inside: npt.NDArray[np.bool_] = (self._bits[rows >> 3] >> (rows & 7).astype(np.uint8)) & 1 == 1
        return inside

    def rows(self, start: int, stop: int) -> Rows:
        """The rows of the set from start (a multiple of 8) to stop, ascending."""
        bits = np.unpackbits(self._bits[start // 8 : -(-stop // 8)], bitorder="little")[: stop - start]
        return np.flatnonzero(bits) + start

    @property
    def bits(self) -> npt.NDArray[np.uint8]:
        """The set, a bit a row, the lowest bit of a byte first; shape (n / 8,), rounded up."""
        return self._bits

    def selector(self) -> Any:
        """The set for FAISS; lives as long as this mask."""
        faiss = load_faiss()
        selector = faiss.IDSelectorBitmap(len(self._bits), faiss.swig_ptr(self._bits))
        selector.mask = self  # what owns the bits
        return selector
