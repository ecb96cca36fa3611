"""Candidates of a query multiplied with the vectors themselves, float16 rows here and there in a file, compiled.

What takes the time is waiting for rows from memory. While one is multiplied, the CPU is told which come next.
"""

from typing import Any

import numpy as np

from index_builder.numerics.compiled import compiled, compiled_sums, float_of_half, wanted_soon

_AHEAD = 4  # rows
_LINE = 64  # bytes that come from memory at once


@compiled_sums
def products_with_halves(query: Any, rows: Any, vectors: Any, products: Any) -> None:
    """Inner products of a query with rows of float16 vectors; equal rows get equal ones.

    Args:
        query: Shape (d,), float32.
        rows: Row numbers, shape (m,); below 0 for none.
        vectors: Shape (n, d), float16, finite, as uint16; contiguous.
        products: Takes them, shape (m,), float32; -inf where there is no row.
    """
    d = vectors.shape[1]
    begin, size = vectors.ctypes.data, 2 * d
    for place in range(-_AHEAD, len(rows)):
        if place + _AHEAD < len(rows) and rows[place + _AHEAD] >= 0:
            soon = begin + rows[place + _AHEAD] * size
            for line in range(0, size, _LINE):
                wanted_soon(soon + line)
        if place < 0:
            continue
        if rows[place] < 0:
            products[place] = -np.inf
            continue
        stored = vectors[rows[place]]
        total = np.float32(0)
        for i in range(d):
            total += float_of_half(stored[i]) * query[i]
        products[place] = total


@compiled
def rank_halves(queries: Any, candidates: Any, vectors: Any, similarities: Any, rows: Any) -> None:
    """The nearest of each query's candidates, highest similarity first, equals by row.

    Args:
        queries: Shape (q, d), float32.
        candidates: Row numbers, shape (q, m); below 0 for none.
        vectors: As of `products_with_halves`.
        similarities: Takes as many as it has room for, m at most; shape (q, k).
        rows: Takes theirs, shape (q, k).
    """
    k = rows.shape[1]
    for q in range(len(queries)):
        numbers = candidates[q]
        exact = np.empty(len(numbers), dtype=np.float32)
        products_with_halves(queries[q], numbers, vectors, exact)
        near = np.arange(len(exact))
        if k < len(exact):
            near = np.flatnonzero(exact >= np.partition(exact, len(exact) - k)[len(exact) - k])
        near = near[np.argsort(numbers[near])]
        numbers, exact = numbers[near], exact[near]
        order = np.argsort(-exact, kind="mergesort")  # which leaves equals in the order of their rows
        for i in range(k):
            similarities[q, i], rows[q, i] = exact[order[i]], numbers[order[i]]
