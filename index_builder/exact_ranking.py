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
# With fewer query rows OpenBLAS takes kernels that round the last columns otherwise: equal vectors would
# get similarities that differ in the last bit, and lose the order of their rows.
_QUERIES_LEAST = 16


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
        inside = slice(start, end)
        similarities[order[inside]] = pair_products(queries, asking[inside], stretch, rows[inside] - first)
        start = end
    return similarities.reshape(candidates.shape)


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
    if len(some) < _QUERIES_LEAST:
        few = np.zeros((_QUERIES_LEAST, queries.shape[1]), dtype=np.float32)
        few[: len(some)] = queries[some]
        products: npt.NDArray[np.float32] = (few @ vectors.T)[: len(some)]
    else:
        products = np.take(queries, some, axis=0) @ vectors.T
    return products


def pair_products(
    queries: Vectors, asking: npt.NDArray[np.intp], vectors: Vectors, places: npt.NDArray[np.intp]
) -> npt.NDArray[np.float32]:
    """Inner products of single pairs of a query and a vector.

    Args:
        queries: Shape (q, d).
        asking: The query of each pair, shape (p,).
        vectors: Shape (n, d).
        places: The vector of each pair, shape (p,).

    Returns:
        Shape (p,).
    """
    products = np.empty(len(asking), dtype=np.float32)
    for start in range(0, len(asking), _PAIRS):
        some = slice(start, start + _PAIRS)
        pairs = np.take(queries, asking[some], axis=0), np.take(vectors, places[some], axis=0)
        np.einsum("ij,ij->i", *pairs, out=products[some])
    return products
