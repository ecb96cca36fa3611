"""Rows of float16 vectors here and there in a file, compiled.

What takes the time is waiting for rows from memory. While one is worked on, the CPU is told which come next.
"""

import math
from typing import Any

import numpy as np

from index_builder.numerics.compiled import compiled_sums, compiled_within, float_of_half, wanted_soon

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
    for place in range(-_AHEAD, len(rows)):
        _announce(rows, place + _AHEAD, vectors)
        if place < 0:
            continue
        if rows[place] < 0:
            products[place] = -np.inf
            continue
        stored = vectors[rows[place]]
        total = np.float32(0)
        for i in range(len(query)):
            total += float_of_half(stored[i]) * query[i]
        products[place] = total


@compiled_sums
def scale_halves(vectors: Any, rows: Any, scaled: Any) -> None:
    """Rows of float16 vectors as float32, scaled to L2 norm 1; those of zeros stay.

    Args:
        vectors: As of `products_with_halves`.
        rows: Row numbers, shape (m,).
        scaled: Takes them, shape (m, d), float32.
    """
    for place in range(-_AHEAD, len(rows)):
        _announce(rows, place + _AHEAD, vectors)
        if place < 0:
            continue
        stored, row = vectors[rows[place]], scaled[place]
        squares = np.float32(0)
        for i in range(len(row)):
            value = float_of_half(stored[i])
            row[i] = value
            squares += value * value
        if squares > 0:
            scale = np.float32(1 / math.sqrt(squares))
            for i in range(len(row)):
                row[i] *= scale


@compiled_within
def _announce(rows: Any, place: int, vectors: Any) -> None:
    """Have the row at a place of `rows` brought from memory, if there is one."""
    if place < len(rows) and rows[place] >= 0:
        size = 2 * vectors.shape[1]
        soon = vectors.ctypes.data + rows[place] * size
        for line in range(0, size, _LINE):
            wanted_soon(soon + line)
