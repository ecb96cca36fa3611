"""Candidates of many queries ranked on the vectors themselves, in one pass over their file.

Query by query, the same vectors are fetched and widened from float16 again and again, here and there in the file.
Sorted by row, each is read and widened once, for all queries that it is a candidate of.
"""

from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from index_builder.indexing.candidate_ranking import ranked_exactly
from index_builder.lists.ordered_threads import mapped_in_order
from index_builder.metadata.metadata_rows import Rows
from index_builder.numerics.faiss_library import load_faiss
from index_builder.numerics.pair_products import pairwise_products
from spine.tables import Vectors

QUERIES_LEAST = 16
"""Rows of queries that are multiplied at least. With fewer, OpenBLAS takes kernels that round the last columns
otherwise: equal vectors would get similarities that differ in the last bit, and lose the order of their rows."""

_QUERIES = 64  # whose candidates a thread ranks
_ROWS = 512  # different ones, read and widened at once: in the cache


def exact_similarities(queries: Vectors, candidates: Rows, vectors: Any) -> npt.NDArray[np.float32]:
    """Inner products of each query with its candidates.

    As many threads work as FAISS has. Memory holds 24 bytes for each candidate beside the result.

    Args:
        queries: Shape (q, d), float32, contiguous.
        candidates: Row numbers, shape (q, depth), in any order; -1 for none.
        vectors: Shape (n, d), float16, may be memory-mapped; read from front to back, where candidates are.

    Returns:
        Shape (q, depth), float32; -inf where there is no candidate.
    """
    faiss = load_faiss()
    similarities = np.full(candidates.size, -np.inf, dtype=np.float32)
    # Row and place in one number: so many of these are sorted in a fifth of the time that argsort takes.
    shift = candidates.size.bit_length()
    keys = (candidates.ravel() << shift) + np.arange(candidates.size)
    keys.sort()
    keys = keys[np.searchsorted(keys, 0) :]  # without the -1
    rows, order = keys >> shift, keys & ((1 << shift) - 1)
    starts = np.flatnonzero(np.diff(rows, prepend=-1))  # of each row's pairs

    def rank(first: int) -> None:
        some = slice(
            int(starts[first]), int(starts[first + _ROWS]) if first + _ROWS < len(starts) else len(rows)
        )
        pairs = order[some]
        similarities[pairs] = pairwise_products(vectors, rows[some], queries, pairs // candidates.shape[1])

    one_thread = partial(faiss.omp_set_num_threads, 1)
    stretches = iter(range(0, len(starts), _ROWS))
    for _ in mapped_in_order(rank, stretches, faiss.omp_get_max_threads(), one_thread):
        pass
    return similarities.reshape(candidates.shape)


def ranked_together(
    queries: Vectors, candidates: Rows, estimates: Vectors, vectors: Any, k: int
) -> tuple[npt.NDArray[np.float32], Rows]:
    """`index_builder.indexing.candidate_ranking.ranked_exactly` of many queries, in as many threads as FAISS has.

    Each vector comes from memory as often as it is a candidate: for vectors that memory holds.
    """

    def rank(start: int) -> tuple[Vectors, Rows]:
        some = slice(start, start + _QUERIES)
        return ranked_exactly(queries[some], candidates[some], estimates[some], vectors, k)

    faiss = load_faiss()
    starts = iter(range(0, len(queries), _QUERIES))
    one_thread = partial(faiss.omp_set_num_threads, 1)
    ranked = list(mapped_in_order(rank, starts, faiss.omp_get_max_threads(), one_thread))
    return np.concatenate([found for found, _ in ranked]), np.concatenate([rows for _, rows in ranked])


def inner_products(
    queries: Vectors, some: npt.NDArray[np.int64], vectors: Vectors
) -> npt.NDArray[np.float32]:
    """Inner products of some of the queries with all vectors; equal vectors get equal ones.

    Args:
        queries: Shape (q, d).
        some: Numbers of queries, shape (m,).
        vectors: Shape (n, d).

    Returns:
        Shape (m, n).
    """
    asking = np.zeros((max(len(some), QUERIES_LEAST), queries.shape[1]), dtype=np.float32)
    np.take(queries, some, axis=0, out=asking[: len(some)], mode="clip")
    # The vectors first: with few queries OpenBLAS takes half the time.
    return np.ascontiguousarray((vectors @ asking.T)[:, : len(some)].T)
