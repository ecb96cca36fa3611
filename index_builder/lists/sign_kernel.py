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
from index_builder.numerics.sign_blocks import BLOCK, lay_out
from index_builder.numerics.sign_scores import room_for_scores, round_for, scored

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
    room = room_for_scores(queries.shape[1], codes)
    near = room[2][2]
    count = 0
    for t in range(len(lists)):
        n, place = lists[t, 2], lists[t, 0]
        rows = numba.carray(address(lists[t, 1]), (n,), np.int64)
        if blocks is not None:
            lay_out(place, codes, n, blocks)
            place = np.int64(blocks.ctypes.data)
        for p in range(starts[t], starts[t + 1]):
            q = numbers[p]
            limit = least[q]
            rounded = round_for(queries[q], own[q], centroids[t], codes, blocks, room)
            for start in range(0, n, BLOCK):
                here = min(BLOCK, n - start)
                if scored(place, start, here, codes, blocks, rounded, room) < limit:
                    continue
                for r in range(here):
                    similarity = min(near[r], most)
                    if similarity >= limit:
                        found_pair[count], found_row[count] = p, rows[start + r]
                        found_similarity[count] = similarity
                        count += 1
    return count
