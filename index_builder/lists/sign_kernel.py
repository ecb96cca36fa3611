"""RaBitQ's codes, one bit a dimension, scored for all queries that want a list, compiled.

FAISS rounds what a query has beyond the list's centroid to a few bits a dimension, adds up the whole numbers where a
row's bits are set, and estimates the similarity from that sum and two numbers kept with the row. Here the sums of
several queries and rows are one product of 8-bit numbers: exact, so that the similarities are FAISS's to float32
rounding.

Source: Gao and Long, "RaBitQ", SIGMOD 2024; the estimator is that of FAISS's `RaBitQuantizer`.
"""

from typing import Any

import numba
import numpy as np

from index_builder.numerics.compiled import address, compiled, compiled_sums, float_at
from index_builder.numerics.panel_products import LANES, QUERIES, ROWS, multiplied
from index_builder.numerics.sign_codes import estimate, round_query

TOGETHER = 1_024
"""Queries rounded before rows are looked at."""


@compiled
def score_signs(lists: Any, centroids: Any, pairs: Any, asked: Any, codes: Any, room: Any, found: Any) -> int:
    """Score the rows of some lists for their queries.

    Args:
        lists: As for `index_builder.lists.list_kernel.score_lists`.
        centroids: Of each list, shape (t, d).
        pairs: Likewise; nothing is added to products.
        asked: Queries (q, d), and of each 2 if similarities are 1 - |q - v|² / 2, its squared norm if they are inner
            products; (q,).
        codes: Bytes of a code, of them of bits, the highest level of a query's numbers, and what is taken off these.
        room: As `SignScorer` makes it.
        found: As for `score_lists`.

    Returns:
        How many were found.
    """
    starts, numbers, least, _ = pairs
    queries, own, most = asked
    size, width, levels, shift = codes
    beyond, rounded, of_queries, panel, products, addresses, of_rows, estimates = room
    found_pair, found_row, found_similarity = found
    quarter = 2 * width
    fours, ones = _fours(), _ones()
    whole, stride = rounded.ctypes.data, rounded.shape[1]
    count = 0
    for t in range(len(lists)):
        n = lists[t, 2]
        rows = numba.carray(address(lists[t, 1]), (n,), np.int64)
        stored = numba.carray(address(lists[t, 0]), (n, size), np.uint8)
        for first in range(starts[t], starts[t + 1], TOGETHER):
            stop = min(first + TOGETHER, starts[t + 1])
            for p in range(first, stop):
                q, i = numbers[p], p - first
                round_query(
                    queries[q], own[q], centroids[t], levels, shift, beyond, rounded[i], of_queries[i]
                )
            for start in range(0, n, ROWS):
                here = min(ROWS, n - start)
                _spread(stored[start : start + here], width, panel, quarter, fours, ones, of_rows)
                for some in range(first, stop, QUERIES):
                    for i in range(QUERIES):
                        addresses[i] = whole + (min(some + i, stop - 1) - first) * stride
                    multiplied(panel, addresses, quarter, products)
                    for i in range(min(QUERIES, stop - some)):
                        p = some + i
                        limit = least[numbers[p]]
                        if (
                            _estimated(products[i], of_queries[p - first], of_rows, here, most, estimates)
                            >= limit
                        ):
                            for r in range(here):
                                if estimates[r] >= limit:
                                    found_pair[count], found_row[count] = p, rows[start + r]
                                    found_similarity[count] = estimates[r]
                                    count += 1
    return count


@compiled
def _fours() -> Any:
    """Of each four bits, as bytes of one number, what the bits are."""
    fours = np.zeros(16, dtype=np.int32)
    for bits in range(16):
        for j in range(4):
            fours[bits] |= ((bits >> j) & 1) << (8 * j)
    return fours


@compiled
def _ones() -> Any:
    """How many bits of a byte are set."""
    ones = np.zeros(256, dtype=np.int32)
    for byte in range(256):
        ones[byte] = ones[byte >> 1] + (byte & 1)
    return ones


@compiled
def _spread(stored: Any, width: int, panel: Any, quarter: int, fours: Any, ones: Any, of_rows: Any) -> None:
    """A panel of rows' bits; and of each row what an estimate takes."""
    begin, size = stored.ctypes.data, stored.shape[1]
    lanes = panel.reshape(2, quarter, LANES)
    for r in range(len(stored)):
        g, lane = r // LANES, r % LANES
        bits = np.int32(0)
        for b in range(width):
            byte = stored[r, b]
            bits += ones[byte]
            lanes[g, 2 * b, lane] = fours[byte & 15]
            lanes[g, 2 * b + 1, lane] = fours[byte >> 4]
        place = begin + r * size + width
        of_rows[0, r], of_rows[1, r], of_rows[2, r] = float_at(place), float_at(place + 4), bits


@compiled_sums
def _estimated(sums: Any, of_query: Any, of_rows: Any, here: int, most: float, estimates: Any) -> Any:
    """Similarities of a query to the rows of a panel, and the highest."""
    for r in range(ROWS):
        estimates[r] = min(estimate(sums[r], of_rows[2, r], of_rows[0, r], of_rows[1, r], of_query), most)
    highest = np.float32(-np.inf)
    for r in range(here):
        highest = max(highest, estimates[r])
    return highest
