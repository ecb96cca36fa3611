"""Inner products of single pairs of vectors, where they lie: nothing is gathered first."""

from typing import Any

import numpy as np
import numpy.typing as npt

from index_builder.numerics.compiled import compiled_sums
from spine.tables import Vectors

Rows = npt.NDArray[np.int64]

_EXPONENT = np.float32(2.0**112)  # float32 counts exponents from 127, float16 from 15


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
def _of_halves(first: Any, rows: Any, second: Any, others: Any, products: Any) -> None:
    """Sign, exponent and fraction lie in float16 as in float32, but for their place and what exponents count from."""
    bits = np.empty(first.shape[1], dtype=np.uint32)
    wide = bits.view(np.float32)
    last = np.int64(-1)
    for p in range(len(rows)):
        if rows[p] != last:
            last = rows[p]
            stored = first[last]
            for i in range(len(stored)):
                half = np.uint32(stored[i])
                bits[i] = ((half & np.uint32(0x7FFF)) << np.uint32(13)) | (
                    (half & np.uint32(0x8000)) << np.uint32(16)
                )
        other = second[others[p]]
        total = np.float32(0)
        for i in range(len(other)):
            total += wide[i] * other[i]
        products[p] = total * _EXPONENT
