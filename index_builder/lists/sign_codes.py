"""RaBitQ's codes, one bit a dimension, scored for all queries of a list together, as FAISS scores them for each.

FAISS rounds what a query has beyond the list's centroid to a few bits a dimension, adds up the whole numbers where a
row's bits are set, and estimates the similarity from that sum and two numbers kept with the row. The sums of many
queries and rows are one product of whole numbers: exact, so that the similarities are FAISS's to float32 rounding.

Source: Gao and Long, "RaBitQ", SIGMOD 2024; the estimator is that of FAISS's `RaBitQuantizer`.
"""

import threading
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from index_builder.lists.best_k import Similarities
from index_builder.lists.inverted_lists import Codes
from index_builder.lists.list_tiles import BoundedTile, Scored, Tile
from index_builder.numerics.faiss_library import load_faiss
from spine.tables import Vectors

_QUERIES, _ROWS = 128, 256  # scored at once: all of it stays in the CPU's cache
_LEAST = np.float32(1e-30)


class SignCodes:
    """How an index keeps its rows: the bits, and two numbers each.

    Attributes:
        kind: "signs": what scoring costs goes by it.
        levels: What a query's values are rounded to, 0 to this.
    """

    kind = "signs"

    def __init__(self, d: int, query_bits: int) -> None:
        self._d = d
        self._bytes = -(-d // 8)
        self.levels = 2**query_bits - 1

    @classmethod
    def of(cls, ivf: Any) -> "SignCodes | None":
        """Those of an IVF index; None for other kinds, more bits a dimension, and queries that aren't rounded.

        Args:
            ivf: A FAISS index, downcast.
        """
        if type(ivf) is not load_faiss().IndexIVFRaBitQ or ivf.rabitq.nb_bits != 1 or not 1 <= ivf.qb <= 8:
            return None
        return cls(int(ivf.d), int(ivf.qb))

    def bits(self, codes: Codes) -> Codes:
        """Shape (n + 1, d), 0 or 1; of the first row all are 1, so that a product with it is a sum."""
        packed = np.full((len(codes) + 1, self._bytes), 255, dtype=np.uint8)
        packed[1:] = codes[:, : self._bytes]
        return np.unpackbits(packed, axis=1, count=self._d, bitorder="little")

    def counts(self, codes: Codes) -> npt.NDArray[np.float32]:
        """How many bits of each row are set, shape (n,)."""
        counts: npt.NDArray[np.float32] = np.bitwise_count(codes[:, : self._bytes]).sum(1, dtype=np.float32)
        return counts

    def numbers(self, codes: Codes) -> npt.NDArray[np.float32]:
        """What is kept with each row, shape (n, 2).

        Its squared distance to the centroid, by inner product less its squared norm; and what turns the inner product
        with its bits, as ±1/√d, into one with what it has beyond the centroid.
        """
        kept = np.ascontiguousarray(codes[:, self._bytes : self._bytes + 8])
        return kept.view(np.float32)


class SignScorer:
    """Scores tiles of one index for one call's queries, as `TileScorer` does. Any number of threads may use it."""

    def __init__(self, ivf: Any, codes: SignCodes, queries: Vectors, *, l2: bool, fast: bool) -> None:
        """Get ready.

        Args:
            ivf: The FAISS IndexIVF that the tiles are of.
            codes: Its codes.
            queries: Shape (q, d), as the lists have them.
            l2: Whether a similarity is 1 - |q - v|² / 2, not the inner product.
            fast: Whether whole numbers are multiplied as such, by torch; else as floats, which gives the same.
        """
        self._ivf, self._codes, self._queries, self._fast, self._l2 = ivf, codes, queries, fast, l2
        self._room = _Room(queries.shape[1])
        # What brings the numbers into 8 bits with a sign.
        self._shift = np.float32(128 if fast and codes.levels > 127 else 0)
        # A similarity is (own - |q - c|² - the row's) / 2 + estimate.
        self._own = np.full(len(queries), 2, np.float32) if l2 else np.einsum("ij,ij->i", queries, queries)

    def wants_least(self, tile: Tile) -> bool:
        """No: all rows are scored."""
        return False

    def is_light(self, tile: Tile) -> bool:
        """No: tiles are scored one by one."""
        return False

    def score_share(self, share: Sequence[BoundedTile]) -> list[Scored]:
        """What tiles offer: all of their rows to all of their queries."""
        return [self.score(tile) for tile, _ in share]

    def score(self, tile: Tile) -> Scored:
        """What a tile offers."""
        m, n = len(tile.queries), len(tile.rows)
        away, scale = self._codes.numbers(tile.codes).T
        # Beside the sum each estimate is a sum of four products of something of the query and something of the row.
        of_rows = np.stack([np.ones(n, np.float32), -away / 2, scale * self._codes.counts(tile.codes), scale])
        centroid, bits = self._ivf.quantizer.reconstruct(tile.number), self._codes.bits(tile.codes)
        scores = np.empty((m, n), dtype=np.float32)
        for start in range(0, m, _QUERIES):
            some = slice(start, start + _QUERIES)
            self._score(tile.queries[some], centroid, bits, of_rows, scores[some])
        if self._l2:
            np.minimum(scores, 1, out=scores)  # an estimate may be below zero, which no distance is
        none = np.empty(0, dtype=np.intp)
        return Scored(tile, tile.queries, scores, none, none, np.empty(0, dtype=np.float32))

    def _score(
        self,
        asking: npt.NDArray[np.int64],
        centroid: Vectors,
        bits: Codes,
        of_rows: npt.NDArray[np.float32],
        scores: Similarities,
    ) -> None:
        """Fill in `scores` (m, n) of some queries; `bits` are (n + 1, d), `of_rows` (4, n)."""
        m, unit = len(asking), np.float32(len(centroid)) ** np.float32(-0.5)
        beyond, numbers = self._room.beyond[:m], self._room.numbers[:m]
        np.take(self._queries, asking, axis=0, out=beyond, mode="clip")
        beyond -= centroid
        of_queries = np.ones((4, m), dtype=np.float32)
        of_queries[0] = (self._own[asking] - np.einsum("ij,ij->i", beyond, beyond)) / 2
        lowest = beyond.min(axis=1)
        step = (beyond.max(axis=1) - lowest) / np.float32(self._codes.levels)
        beyond -= lowest[:, None]
        beyond *= (1 / np.maximum(step, _LEAST))[:, None]
        beyond += np.float32(0.5)  # none is below zero: cutting off then rounds, halves up, as FAISS does
        np.copyto(numbers, beyond, casting="unsafe")
        if self._shift:
            numbers -= np.uint8(self._shift)
        # A query's value is lowest + step * number, a sum one of numbers less `shift`.
        lowest += self._shift * step
        of_queries[2] = 2 * unit * lowest
        for start in range(0, len(bits), _ROWS):
            sums = self._sums(numbers, bits[start : start + _ROWS])
            if not start:
                of_queries[3] = -unit * (step * sums[:, 0] + len(centroid) * lowest)
                sums = sums[:, 1:]
            beside = self._room.beside[: m * sums.shape[1]].reshape(sums.shape)
            rows = slice(max(0, start - 1), start + _ROWS - 1)
            np.matmul(of_queries.T, of_rows[:, rows], out=beside)
            sums *= (2 * unit * step)[:, None]
            sums *= of_rows[3, rows]
            np.add(sums, beside, out=scores[:, rows])

    def _sums(self, numbers: Codes, bits: Codes) -> npt.NDArray[np.float32]:
        """Of numbers (m, d) the sums where each row's bits (n, d) are set, shape (m, n), to be overwritten."""
        m, n = len(numbers), len(bits)
        sums = self._room.sums[: m * n].reshape(m, n)
        if not self._fast:
            return np.matmul(numbers.astype(np.float32), bits.astype(np.float32).T, out=sums)
        import torch

        whole = torch.from_numpy(self._room.whole[: m * n]).view(m, n)
        torch._int_mm(
            torch.from_numpy(numbers.view(np.int8)), torch.from_numpy(bits.view(np.int8)).T, out=whole
        )
        np.copyto(sums, whole.numpy(), casting="unsafe")
        return sums


class _Room(threading.local):
    """Memory of one thread's own, used again and again: new memory costs more than the arithmetic."""

    def __init__(self, d: int) -> None:
        self.beyond = np.empty((_QUERIES, d), dtype=np.float32)
        self.numbers = np.empty((_QUERIES, d), dtype=np.uint8)
        self.whole = np.empty(_QUERIES * _ROWS, dtype=np.int32)
        self.sums = np.empty(_QUERIES * _ROWS, dtype=np.float32)
        self.beside = np.empty(_QUERIES * _ROWS, dtype=np.float32)
