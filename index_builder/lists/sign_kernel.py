"""RaBitQ's codes, one bit a dimension, scored for all queries that want a list, compiled.

FAISS rounds what a query has beyond the list's centroid to a few bits a dimension, adds up the whole numbers where a
row's bits are set, and estimates the similarity from that sum and two numbers kept with the row. Here the sums of
several queries and rows are one product of 8-bit numbers: exact, so that the similarities are FAISS's to float32
rounding.

Source: Gao and Long, "RaBitQ", SIGMOD 2024; the estimator is that of FAISS's `RaBitQuantizer`.
"""

import math
from typing import Any

import numba
import numpy as np

from index_builder.numerics.compiled import address, compiled, compiled_exactly, compiled_sums
from index_builder.numerics.pair_products import dot
from index_builder.numerics.panel_products import LANES, QUERIES, ROWS, multiplied

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
    beyond, rounded, of_queries, panel, products, addresses, of_rows, kept, estimates = room
    found_pair, found_row, found_similarity = found
    quarter = 2 * width
    fours, ones = _fours(), _ones()
    floats = kept.view(np.float32)
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
                _of_query(queries[q], own[q], centroids[t], levels, shift, beyond, rounded[i], of_queries[i])
            for start in range(0, n, ROWS):
                here = min(ROWS, n - start)
                _spread(
                    stored[start : start + here], width, panel, quarter, fours, ones, of_rows, kept, floats
                )
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
def _of_query(
    query: Any, own: Any, centroid: Any, levels: int, shift: int, beyond: Any, rounded: Any, of_query: Any
) -> None:
    """Round what a query has beyond a centroid, and tell what an estimate takes of it."""
    d = len(query)
    unit = np.float32(1 / math.sqrt(d))
    lowest, step = _rounded(query, centroid, levels, shift, beyond, rounded)
    total = np.int32(0)
    for j in range(d):
        total += np.int32(rounded[j])
    # A query's value is lowest + step * number, a sum one of numbers less `shift`.
    lowest += np.float32(shift) * step
    of_query[0] = (own - dot(beyond, beyond)) / np.float32(2)
    of_query[1] = np.float32(2) * unit * lowest
    of_query[2] = -unit * (step * np.float32(total) + np.float32(d) * lowest)
    of_query[3] = np.float32(2) * unit * step


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


@compiled_exactly  # halves must round as FAISS rounds them
def _rounded(query: Any, centroid: Any, levels: int, shift: int, beyond: Any, numbers: Any) -> Any:
    """What a query has beyond a centroid, and the same as whole numbers: lowest + step * number."""
    for j in range(len(query)):
        beyond[j] = query[j] - centroid[j]
    # As whole numbers in the order of what they stand for: of these the ends are found many at once.
    bits, ends = beyond.view(np.int32), np.empty(2, dtype=np.int32)
    least, most = np.int32(0x7FFFFFFF), np.int32(-0x80000000)
    for j in range(len(query)):
        ordered = bits[j] ^ ((bits[j] >> np.int32(31)) & np.int32(0x7FFFFFFF))
        least, most = min(least, ordered), max(most, ordered)
    ends[0] = least ^ ((least >> np.int32(31)) & np.int32(0x7FFFFFFF))
    ends[1] = most ^ ((most >> np.int32(31)) & np.int32(0x7FFFFFFF))
    lowest, highest = ends.view(np.float32)
    step = (highest - lowest) / np.float32(levels)
    scale = np.float32(1) / max(step, np.float32(1e-30))
    for j in range(len(query)):
        # None is below zero: cutting off then rounds, halves up, as FAISS does.
        numbers[j] = np.int8(np.int32((beyond[j] - lowest) * scale + np.float32(0.5)) - shift)
    return lowest, step


@compiled
def _spread(
    stored: Any,
    width: int,
    panel: Any,
    quarter: int,
    fours: Any,
    ones: Any,
    of_rows: Any,
    kept: Any,
    floats: Any,
) -> None:
    """A panel of rows' bits; and of each row what an estimate takes."""
    lanes = panel.reshape(2, quarter, LANES)
    for r in range(len(stored)):
        g, lane = r // LANES, r % LANES
        bits = np.int32(0)
        for b in range(width):
            byte = stored[r, b]
            bits += ones[byte]
            lanes[g, 2 * b, lane] = fours[byte & 15]
            lanes[g, 2 * b + 1, lane] = fours[byte >> 4]
        for place in range(2):
            number = np.uint32(0)
            for j in range(4):
                number |= np.uint32(stored[r, width + 4 * place + j]) << np.uint32(8 * j)
            kept[place] = number
        # Its squared distance to the centroid, by inner product less its squared norm; and what turns the inner product
        # with its bits, as ±1/√d, into one with what it has beyond the centroid.
        of_rows[0, r], of_rows[1, r] = -floats[0] / np.float32(2), floats[1]
        of_rows[2, r] = floats[1] * np.float32(bits)


@compiled_sums
def _estimated(sums: Any, of_query: Any, of_rows: Any, here: int, most: float, estimates: Any) -> Any:
    """Similarities of a query to the rows of a panel, and the highest."""
    constant, by_bits, by_scale, by_sum = of_query[0], of_query[1], of_query[2], of_query[3]
    for r in range(ROWS):
        estimate = constant + of_rows[0, r] + by_bits * of_rows[2, r]
        estimate += of_rows[1, r] * (by_scale + by_sum * np.float32(sums[r]))
        estimates[r] = min(estimate, most)
    highest = np.float32(-np.inf)
    for r in range(here):
        highest = max(highest, estimates[r])
    return highest
