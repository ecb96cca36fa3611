"""RaBitQ's codes, one bit a dimension, scored for all queries that want a list, compiled.

FAISS rounds what a query has beyond the list's centroid to a few bits a dimension, adds up the whole numbers where a
row's bits are set, and estimates the similarity from that sum and two numbers kept with the row. The sums here are the
same, so that the similarities are FAISS's to float32 rounding.

Source: Gao and Long, "RaBitQ", SIGMOD 2024; the estimator is that of FAISS's `RaBitQuantizer`.
"""

from typing import Any

import numba
import numpy as np

from index_builder.numerics.compiled import address, compiled
from index_builder.numerics.sign_blocks import (
    BLOCK,
    block_bytes,
    estimate_block,
    into_tables,
    lay_out,
    room_for_tables,
)
from index_builder.numerics.sign_codes import estimate_rows, room_for_query, round_query
from index_builder.numerics.sign_sums import into_planes, room_for_planes

SHARED = 8
"""Queries of a list from which it is worth laying its rows out in blocks: that takes as long as scoring for four."""


@compiled
def score_signs(
    lists: Any, centroids: Any, pairs: Any, asked: Any, codes: Any, blocks: Any, found: Any
) -> int:
    """Score the rows of some lists for their queries.

    Args:
        lists: As for `index_builder.lists.list_kernel.score_lists`.
        centroids: Of each list, shape (t, d).
        pairs: Likewise; nothing is added to products.
        asked: Queries (q, d), of each its own part, as `round_query` has it, and the most that a similarity can be.
        codes: As `SignCodes.for_kernels` gives it.
        blocks: Room for the rows of any of the lists in blocks; None: they are scored one by one.
        found: As for `score_lists`.

    Returns:
        How many were found.
    """
    starts, numbers, least, _ = pairs
    queries, own, most = asked
    found_pair, found_row, found_similarity = found
    room, planes = room_for_query(queries.shape[1], codes), room_for_planes(codes[1])
    tables = room_for_tables(room[1])
    near, size_bytes = tables[2], block_bytes(codes[1])
    count = 0
    for t in range(len(lists)):
        n, place = lists[t, 2], lists[t, 0]
        rows = numba.carray(address(lists[t, 1]), (n,), np.int64)
        if blocks is not None:
            lay_out(place, codes, n, blocks)
        for p in range(starts[t], starts[t + 1]):
            q = numbers[p]
            limit = least[q]
            rounded = round_query(queries[q], own[q], centroids[t], codes, room)
            if blocks is None:
                into_planes(room[1], planes)
            else:
                into_tables(room[1], tables)
            for start in range(0, n, BLOCK):
                here = min(BLOCK, n - start)
                if blocks is None:
                    first = place + start * codes[0]
                    largest = estimate_rows(first, here, codes, planes, rounded, near)
                else:
                    block = blocks.ctypes.data + start // BLOCK * size_bytes
                    largest = estimate_block(block, codes[1], rounded, tables)
                if largest < limit:
                    continue
                for r in range(here):
                    similarity = min(near[r], most)
                    if similarity >= limit:
                        found_pair[count], found_row[count] = p, rows[start + r]
                        found_similarity[count] = similarity
                        count += 1
    return count
