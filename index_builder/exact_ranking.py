"""Candidates of many queries ranked on the vectors themselves, in one pass over their file.

Query by query, the same vectors are fetched and widened from float16 again and again, here and there in the file.
Sorted by row, each stretch of the file is read and widened once, for all queries that have a candidate in it.
"""

from typing import Any

import numpy as np
import numpy.typing as npt

from index_builder.metadata_rows import Rows
from spine.tables import Vectors

_ROWS = 4_096  # read and widened at once: 13 MB at d = 768
_PAIRS = 512  # of a query and a row, multiplied at once: in the cache


def exact_similarities(queries: Vectors, candidates: Rows, vectors: Any) -> npt.NDArray[np.float32]:
    """Inner products of each query with its candidates.

    Memory holds 28 bytes for each candidate beside the result.

    Args:
        queries: Shape (q, d), float32.
        candidates: Row numbers, shape (q, depth), in any order; -1 for none.
        vectors: Shape (n, d), float16, may be memory-mapped; read from front to back, where candidates are.

    Returns:
        Shape (q, depth), float32; -inf where there is no candidate.
    """
    similarities = np.full(candidates.size, -np.inf, dtype=np.float32)
    flat = candidates.ravel()
    order = np.argsort(flat, kind="stable")
    order = order[np.searchsorted(flat, 0, sorter=order) :]  # without the -1
    rows, asking = flat[order], order // max(1, candidates.shape[1])
    start = 0
    while start < len(rows):
        first = int(rows[start])
        end = int(np.searchsorted(rows, first + _ROWS))
        stretch = np.asarray(vectors[first : int(rows[end - 1]) + 1]).astype(np.float32)
        for one in range(start, end, _PAIRS):
            pairs = slice(one, min(one + _PAIRS, end))
            products = np.einsum("ij,ij->i", stretch[rows[pairs] - first], queries[asking[pairs]])
            similarities[order[pairs]] = products
        start = end
    return similarities.reshape(candidates.shape)
