"""The best k rows of each of many queries so far, in FAISS's heaps."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from index_builder.metadata.metadata_rows import Rows
from index_builder.numerics.faiss_library import load_faiss

Similarities = npt.NDArray[np.float32]

_EMPTY = np.finfo(np.float32).min  # what FAISS fills an empty heap with


@dataclass(frozen=True, slots=True)
class Offer:
    """Rows offered to queries, laid out as FAISS's heaps take them.

    Where a heap is full and two of its lowest are equal, FAISS lets go of the one with the smaller label. Rows go
    in as negative labels, so that of equals the first row stays.
    """

    queries: npt.NDArray[np.int64]
    """Each once, shape (m,)."""
    scores: Similarities
    """Shape (m, n), contiguous."""
    labels: Rows
    """Shape (n,) where all queries are offered the same rows, else (m, n)."""

    @classmethod
    def of_all(cls, queries: npt.NDArray[np.int64], scores: Similarities, rows: Rows) -> "Offer":
        """Every row to each of these queries.

        Args:
            queries: Shape (m,), each once.
            scores: Shape (m, n), contiguous.
            rows: Shape (n,).
        """
        return cls(queries, scores, -2 - rows)  # -1 marks an empty place

    @classmethod
    def of_pairs(
        cls, queries: npt.NDArray[np.int64], asking: npt.NDArray[np.intp], scores: Similarities, rows: Rows
    ) -> "Offer":
        """Single rows to single queries.

        Args:
            queries: Shape (m,), each once.
            asking: Of each pair the place of its query in `queries`, ascending; shape (p,), one at least.
            scores: Of each pair; shape (p,).
            rows: Of each pair; shape (p,).
        """
        counts = np.bincount(asking, minlength=len(queries))
        some = np.flatnonzero(counts)
        line = np.cumsum(counts > 0)[asking] - 1
        column = np.arange(len(asking)) - (np.cumsum(counts) - counts)[asking]
        padded = np.full((len(some), int(counts.max())), _EMPTY, dtype=np.float32)  # enters no heap
        labels = np.full(padded.shape, -1, dtype=np.int64)
        padded[line, column], labels[line, column] = scores, -2 - rows
        return cls(queries[some], padded, labels)


class BestK:
    """Keeps the best k of all that is offered to each query.

    Attributes:
        k: How many are kept of each query.
    """

    def __init__(self, q: int, k: int) -> None:
        faiss = load_faiss()
        self.k = k
        self._values = np.empty((q, k), dtype=np.float32)
        self._labels = np.empty((q, k), dtype=np.int64)
        self._heaps = faiss.float_minheap_array_t()
        self._heaps.k, self._heaps.nh = k, q
        self._heaps.val, self._heaps.ids = faiss.swig_ptr(self._values), faiss.swig_ptr(self._labels)
        self._heaps.heapify()

    def least(self, queries: npt.NDArray[np.int64]) -> Similarities:
        """What a row must have at least to be among the best of each of these queries; -inf with fewer than k yet."""
        least: Similarities = self._values[queries, 0]
        least[least == _EMPTY] = -np.inf
        return least

    def add(self, offer: Offer) -> None:
        """Keep what is among the best."""
        faiss = load_faiss()
        self._heaps.addn_query_subset_with_ids(
            len(offer.queries),
            faiss.swig_ptr(offer.queries),
            offer.scores.shape[1],
            faiss.swig_ptr(offer.scores),
            faiss.swig_ptr(offer.labels),
            offer.labels.shape[1] if offer.labels.ndim == 2 else 0,
        )

    def state(self) -> tuple[Similarities, Rows]:
        """The heaps as they are, to be kept and given to `restore`."""
        return self._values, self._labels

    def restore(self, values: Similarities, labels: Rows) -> None:
        """Go on from a `state` of as many queries and the same k."""
        self._values[:], self._labels[:] = values, labels  # in place: FAISS holds the addresses

    def results(self) -> tuple[Similarities, Rows]:
        """Similarities and rows, each (q, k), not sorted; row -1 with -inf where fewer than k were offered."""
        empty = self._labels == -1
        self._values[empty] = -np.inf
        np.subtract(-2, self._labels, out=self._labels)  # -1 stays -1
        return self._values, self._labels
