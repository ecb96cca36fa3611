"""The best k rows of each of many queries so far.

Of two rows with the same similarity the first is the better: which rows are kept does not depend on the order in which
they were offered. Half as many again as k are collected before the worst are let go of, all at once: a heap would take
several times as long for hundreds of neighbours.
"""

from itertools import count
from threading import Lock
from typing import Any

import numpy as np
import numpy.typing as npt

from index_builder.metadata.metadata_rows import Rows
from index_builder.numerics.compiled import compiled
from index_builder.numerics.selection import best_first, thin_out

Similarities = npt.NDArray[np.float32]

_MORE = 32  # rows collected beside k at least
_PARTS = 4  # of the queries: a thread adds to one while others add to others


class BestK:
    """Keeps the best k of all that is offered to each query.

    Attributes:
        k: How many are kept of each query.
    """

    def __init__(self, q: int, k: int) -> None:
        self.k = k
        room = k + max(_MORE, k // 2)
        self._values = np.empty((q, room), dtype=np.float32)
        self._rows = np.empty((q, room), dtype=np.int64)
        self._counts = np.zeros(q, dtype=np.int64)
        self._least = np.full(q, -np.inf, dtype=np.float32)
        self._ends = np.linspace(0, q, _PARTS + 1).astype(np.int64)
        self._locks, self._turns = [Lock() for _ in range(_PARTS)], count()

    def least(self) -> Similarities:
        """What a row must have at least to be of use to each query, -inf for anything; shape (q,).

        It is what is looked at within, and rises while rows are added. Read meanwhile it is never too high.
        """
        return self._least

    def add(self, queries: npt.NDArray[np.int64], rows: Rows, scores: Similarities) -> None:
        """Keep what is among the best of single rows offered to single queries, (p,) each; none is offered twice.

        Any number of threads may do so at the same time.
        """
        turn = next(self._turns)  # so that threads that come together begin with other parts
        for part in range(turn, turn + _PARTS):
            with self._locks[part % _PARTS]:
                ends = self._ends[part % _PARTS : part % _PARTS + 2]
                _add(self._values, self._rows, self._counts, self._least, self.k, ends, queries, rows, scores)

    def add_all(self, first: int, rows: Rows, scores: Similarities) -> None:
        """Keep what is among the best of rows (n,) offered to all queries from `first` on; scores are (m, n)."""
        _add_all(self._values, self._rows, self._counts, self._least, self.k, first, rows, scores)

    def results(self) -> tuple[Similarities, Rows]:
        """Similarities and rows, each (q, k), not sorted; row -1 with -inf where fewer than k were offered so far."""
        values = np.full((len(self._values), self.k), -np.inf, dtype=np.float32)
        rows = np.full(values.shape, -1, dtype=np.int64)
        _collect(self._values, self._rows, self._counts, values, rows)
        return values, rows

    def begin(self, first: int, values: Similarities, rows: Rows) -> Similarities:
        """Begin with rows of the queries from `first` on, and take none from now on that is below all of a query's.

        Args:
            first: Number of the first query.
            values: Similarities, as `results` gives them; shape (q, some).
            rows: Their rows; -1 for none.

        Returns:
            What a row must have at least for each of these queries, -inf for one with a row missing; shape (q,).
        """
        queries, places = np.nonzero(rows >= 0)
        self.add(queries + first, rows[queries, places], values[queries, places])
        least: Similarities = values.min(axis=1)
        mine = self._least[first : first + len(least)]
        np.maximum(mine, least, out=mine)
        return least

    def restore(self, values: Similarities, rows: Rows) -> None:
        """Go on from the `results` of as many queries and the same k."""
        self._counts[:], self._least[:] = 0, -np.inf
        there = rows >= 0
        self.add(np.nonzero(there)[0], rows[there], values[there])


@compiled
def _add(
    values: Any, kept: Any, counts: Any, least: Any, k: int, ends: Any, queries: Any, rows: Any, scores: Any
) -> None:
    first, last = ends
    for i in range(len(queries)):
        q = queries[i]
        if first <= q < last and scores[i] >= least[q]:
            place = counts[q]
            values[q, place], kept[q, place] = scores[i], rows[i]
            counts[q] = place + 1
            if place + 1 == values.shape[1]:
                _let_go(values, kept, counts, least, k, q)


@compiled
def _add_all(
    values: Any, kept: Any, counts: Any, least: Any, k: int, first: int, rows: Any, scores: Any
) -> None:
    for i in range(len(scores)):
        q = first + i
        for j in range(len(rows)):
            if scores[i, j] >= least[q]:
                place = counts[q]
                values[q, place], kept[q, place] = scores[i, j], rows[j]
                counts[q] = place + 1
                if place + 1 == values.shape[1]:
                    _let_go(values, kept, counts, least, k, q)


@compiled
def _let_go(values: Any, kept: Any, counts: Any, least: Any, k: int, q: int) -> None:
    counts[q], least[q] = thin_out(values[q], kept[q], counts[q], k)


@compiled
def _collect(values: Any, kept: Any, counts: Any, best: Any, rows: Any) -> None:
    k = best.shape[1]
    for q in range(len(values)):
        if counts[q] > k:
            best_first(values[q], kept[q], counts[q], k)
        for i in range(min(k, counts[q])):
            best[q, i], rows[q, i] = values[q, i], kept[q, i]
