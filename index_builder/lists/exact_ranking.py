"""Candidates of many queries ranked on the vectors themselves, in one pass over their file.

Query by query, the same vectors are fetched and widened from float16 again and again, here and there in the file.
Sorted by row, each stretch of the file is read and widened once, for all queries that have a candidate in it.
"""

import warnings
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt

from index_builder.metadata.metadata_rows import Rows
from index_builder.numerics.half_floats import widened
from spine.tables import Vectors

QUERIES_LEAST = 16
"""Rows of queries that are multiplied at least. With fewer, OpenBLAS takes kernels that round the last columns
otherwise: equal vectors would get similarities that differ in the last bit, and lose the order of their rows."""

_ROWS = 4_096  # read and widened at once: 13 MB at d = 768
_PAIRS = 128  # of a query and a row, gathered and multiplied at once: in the cache
MANY_PAIRS = 500_000
"""Of a query and a candidate, from which torch saves more than loading it takes."""


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
    # Sorted so, a pair that comes twice, which torch's pattern can't hold, is its own neighbour.
    again = bool(((rows[1:] == rows[:-1]) & (asking[1:] == asking[:-1])).any())
    start = 0
    while start < len(rows):
        first = int(rows[start])
        end = int(np.searchsorted(rows, first + _ROWS))
        stretch = widened(vectors[first : int(rows[end - 1]) + 1])
        inside = slice(start, end)
        if len(rows) >= MANY_PAIRS and not again:
            counts = np.bincount(rows[inside] - first, minlength=len(stretch))
            products = pair_products(stretch, counts, queries, asking[inside])
        else:
            products = _gathered_products(queries, asking[inside], stretch, rows[inside] - first)
        similarities[order[inside]] = products
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
    asking = np.zeros((max(len(some), QUERIES_LEAST), queries.shape[1]), dtype=np.float32)
    np.take(queries, some, axis=0, out=asking[: len(some)], mode="clip")
    # The vectors first: with few queries OpenBLAS takes half the time.
    return np.ascontiguousarray((vectors @ asking.T)[:, : len(some)].T)


def pair_products(first: Vectors, counts: Rows, second: Vectors, places: Rows) -> npt.NDArray[np.float32]:
    """Inner products of single pairs, one after the other of the first row, then of the second.

    torch's sampled product takes a twelfth of the time of gathering both sides, and nothing is copied.

    Args:
        first: Shape (m, d), contiguous.
        counts: How many pairs each of its rows has, shape (m,).
        second: Shape (n, d), contiguous.
        places: Of each pair the row of `second`, shape (p,); a pair comes once.

    Returns:
        Shape (p,).
    """
    torch = _torch()
    starts = np.zeros(len(first) + 1, dtype=np.int64)
    np.cumsum(counts, out=starts[1:])
    pattern = torch.sparse_csr_tensor(
        torch.from_numpy(starts),
        torch.from_numpy(np.asarray(places, dtype=np.int64)),
        torch.zeros(len(places)),
        size=(len(first), len(second)),
        check_invariants=False,
    )
    sampled = torch.sparse.sampled_addmm(
        pattern, torch.from_numpy(first), torch.from_numpy(second).T, beta=0.0
    )
    products: npt.NDArray[np.float32] = sampled.values().numpy()
    return products


def _gathered_products(
    queries: Vectors, asking: Rows, vectors: Vectors, places: Rows
) -> npt.NDArray[np.float32]:
    """The same by NumPy alone."""
    products = np.empty(len(asking), dtype=np.float32)
    for start in range(0, len(asking), _PAIRS):
        some = slice(start, start + _PAIRS)
        np.einsum("ij,ij->i", queries[asking[some]], vectors[places[some]], out=products[some])
    return products


@cache
def _torch() -> Any:
    import torch

    warnings.filterwarnings("ignore", message="Sparse CSR tensor support is in beta")
    return torch
