"""What a search found, put in order: by similarity, and candidates of coarse codes by the vectors themselves."""

from math import ceil
from typing import Any

import numpy as np
import numpy.typing as npt

from index_builder.metadata.metadata_rows import Rows
from spine.tables import Vectors

OVER_FETCH = 4.0
"""Candidates a neighbour, where no index says what it needs."""

_MORE = 240  # few neighbours need relatively more


def candidates_for(k: int, over_fetch: float) -> int:
    """How many candidates of coarse codes are ranked exactly for k neighbours: over_fetch · k + 240."""
    return ceil(over_fetch * k) + _MORE


def in_order(
    similarities: npt.NDArray[np.float32], rows: npt.NDArray[np.int64]
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
    """Results (q, k) by falling similarity; equals, whose order FAISS leaves open, by row."""
    if not (similarities[:, 1:] <= similarities[:, :-1]).all():
        order = np.argsort(-similarities, axis=1)
        similarities = np.take_along_axis(similarities, order, axis=1)
        rows = np.take_along_axis(rows, order, axis=1)
    equal = np.zeros(rows.shape, dtype=np.bool_)  # to the one before
    equal[:, 1:] = similarities[:, 1:] == similarities[:, :-1]
    if not equal.any():
        return similarities, rows  # as a rule
    among = equal.copy()
    among[:, :-1] |= equal[:, 1:]
    places, runs = np.flatnonzero(among), np.cumsum(~equal)  # each run of equals has a number
    flat = rows.ravel().copy()
    flat[places] = flat[places][np.lexsort((flat[places], runs[places]))]
    return similarities, flat.reshape(rows.shape)


def ranked_exactly(
    queries: Vectors, candidates: Rows, estimates: Vectors, vectors: Any, k: int
) -> tuple[Vectors, Rows]:
    """The k nearest of candidates by the vectors themselves, highest first, equals by row; -1, for none, comes last.

    Vectors are read only of candidates that may be among the k nearest: what an estimate stands for is told by the best
    ones and a sample of the others, four standard deviations more or less.

    Args:
        queries: Shape (q, d), float32, contiguous.
        candidates: Rows, shape (q, depth); -1 for none.
        estimates: Their similarities by their codes, (q, depth).
        vectors: Shape (n, d), float16, contiguous; may be memory-mapped.
        k: At most depth.

    Returns:
        Similarities (q, k), -inf for none, and rows (q, k).
    """
    from index_builder.indexing.ranking_kernel import rank_halves

    similarities = np.empty((len(queries), k), dtype=np.float32)
    rows = np.empty((len(queries), k), dtype=np.int64)
    rank_halves(queries, candidates, estimates, vectors.view(np.uint16), similarities, rows)
    return similarities, rows
