"""Candidates of many queries ranked on the vectors themselves, in one pass over their file.

Query by query, the same vectors are fetched and widened from float16 again and again, here and there in the file.
Sorted by row, each is read and widened once, for all queries that it is a candidate of.
"""

import warnings
from functools import cache, partial
from typing import Any

import numpy as np
import numpy.typing as npt

from index_builder.lists.ordered_threads import mapped_in_order
from index_builder.metadata.metadata_rows import Rows
from index_builder.numerics.faiss_library import load_faiss
from index_builder.numerics.half_floats import widened
from index_builder.numerics.pair_products import pairwise_products
from spine.tables import Vectors

QUERIES_LEAST = 16
"""Rows of queries that are multiplied at least. With fewer, OpenBLAS takes kernels that round the last columns
otherwise: equal vectors would get similarities that differ in the last bit, and lose the order of their rows."""

_ROWS = 512  # different ones, read and widened at once: in the cache
MANY_PAIRS = 40_000
"""Of a query and a candidate, from which one pass takes less than FAISS query by query: a hundred queries or so."""


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
        some = starts[first : first + _ROWS]
        stop = int(starts[first + _ROWS]) if first + _ROWS < len(starts) else len(rows)
        pairs = order[some[0] : stop]
        stretch = widened(np.take(vectors, rows[some], axis=0, mode="clip"))
        places = np.repeat(np.arange(len(some)), np.diff(some, append=stop))
        similarities[pairs] = pairwise_products(stretch, places, queries, pairs // candidates.shape[1])

    one_thread = partial(faiss.omp_set_num_threads, 1)
    stretches = iter(range(0, len(starts), _ROWS))
    for _ in mapped_in_order(rank, stretches, faiss.omp_get_max_threads(), one_thread):
        pass
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


@cache
def _torch() -> Any:
    import torch

    warnings.filterwarnings("ignore", message="Sparse CSR tensor support is in beta")
    return torch
