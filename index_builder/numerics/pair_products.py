"""Inner products of single pairs of vectors, where they lie: nothing is gathered first."""

from typing import Any

import numpy as np
import numpy.typing as npt

from index_builder.numerics.compiled import compiled_sums, float_of_half
from spine.tables import Vectors

Rows = npt.NDArray[np.int64]


def pairwise_products(
    first: npt.NDArray[Any], rows: Rows, second: Vectors, others: Rows
) -> npt.NDArray[np.float32]:
    """Inner products of one vector of `first` with one of `second` each; equal vectors get equal ones.

    In one thread. Pairs of the same row of `first` that follow each other are the fastest: it is widened once.

    Args:
        first: Shape (n, d), float16, finite; may be memory-mapped.
        rows: Of each pair the row of `first`, 0 to n - 1; shape (p,).
        second: Shape (m, d), float32.
        others: Of each pair the row of `second`, 0 to m - 1; shape (p,).

    Returns:
        Shape (p,).
    """
    products = np.empty(len(rows), dtype=np.float32)
    _of_halves(first.view(np.uint16), rows, second, others, products)
    return products


@compiled_sums
def dot(first: Any, second: Any) -> Any:
    """The inner product of two vectors, float32; for what is compiled."""
    total = np.float32(0)
    for i in range(len(first)):
        total += first[i] * second[i]
    return total


@compiled_sums
def _of_halves(first: Any, rows: Any, second: Any, others: Any, products: Any) -> None:
    wide = np.empty(first.shape[1], dtype=np.float32)
    last = np.int64(-1)
    for p in range(len(rows)):
        if rows[p] != last:
            last = rows[p]
            stored = first[last]
            for i in range(len(stored)):
                wide[i] = float_of_half(stored[i])
        other = second[others[p]]
        total = np.float32(0)
        for i in range(len(other)):
            total += wide[i] * other[i]
        products[p] = total
