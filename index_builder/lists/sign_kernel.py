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
from index_builder.numerics.sign_codes import estimate_at, room_for_query, round_query
from index_builder.numerics.sign_sums import into_planes, room_for_planes


@compiled
def score_signs(lists: Any, centroids: Any, pairs: Any, asked: Any, codes: Any, found: Any) -> int:
    """Score the rows of some lists for their queries.

    Args:
        lists: As for `index_builder.lists.list_kernel.score_lists`.
        centroids: Of each list, shape (t, d).
        pairs: Likewise; nothing is added to products.
        asked: Queries (q, d), of each its own part, as `round_query` has it, and the most that a similarity can be.
        codes: As `SignCodes.for_kernels` gives it.
        found: As for `score_lists`.

    Returns:
        How many were found.
    """
    starts, numbers, least, _ = pairs
    queries, own, most = asked
    found_pair, found_row, found_similarity = found
    room, planes = room_for_query(queries.shape[1], codes), room_for_planes(codes[1])
    count = 0
    for t in range(len(lists)):
        n, place = lists[t, 2], lists[t, 0]
        rows = numba.carray(address(lists[t, 1]), (n,), np.int64)
        for p in range(starts[t], starts[t + 1]):
            q = numbers[p]
            limit = least[q]
            rounded = round_query(queries[q], own[q], centroids[t], codes, room)
            into_planes(room[1], planes)
            for r in range(n):
                similarity = min(estimate_at(place + r * codes[0], codes, planes, rounded), most)
                if similarity >= limit:
                    found_pair[count], found_row[count], found_similarity[count] = p, rows[r], similarity
                    count += 1
    return count
