"""A few queries moved as an index moves them, and given their nearest lists, compiled.

FAISS reads all centroids for each of a few queries, megabytes each time; here once for four of them, in float16.
"""

import math
from typing import Any

import numpy as np

from index_builder.numerics.compiled import compiled, compiled_sums, float_of_half
from index_builder.numerics.pair_products import dot
from index_builder.numerics.selection import best_first


@compiled_sums
def products_of_few(queries: Any, vectors: Any) -> Any:
    """Inner products of queries (q, d) with vectors (n, d), float32 or float16's bits; shape (q, n), float32."""
    products = np.empty((len(queries), len(vectors)), dtype=np.float32)
    whole = len(queries) // 4 * 4
    for q in range(0, whole, 4):
        first, second, third, fourth = queries[q], queries[q + 1], queries[q + 2], queries[q + 3]
        for row in range(len(vectors)):
            vector = vectors[row]
            one, two, three, four = np.float32(0), np.float32(0), np.float32(0), np.float32(0)
            for i in range(len(vector)):
                value = float_of_half(vector[i])
                one += value * first[i]
                two += value * second[i]
                three += value * third[i]
                four += value * fourth[i]
            products[q, row], products[q + 1, row] = one, two
            products[q + 2, row], products[q + 3, row] = three, four
    for row in range(len(vectors)):
        vector = vectors[row]
        for q in range(whole, len(queries)):
            query, total = queries[q], np.float32(0)
            for i in range(len(vector)):
                total += float_of_half(vector[i]) * query[i]
            products[q, row] = total
    return products


@compiled
def nearest_lists(queries: Any, centroids: Any, coarse: Any, nprobe: int) -> Any:
    """The nearest lists of each query, the nearest first.

    Args:
        queries: Shape (q, d), float32, as the lists have them.
        centroids: Shape (nlist, d).
        coarse: The same in float16's bits, or as they are; the longest of what that leaves of one; and what is taken
            off a query's inner products with them: zeros, or of each half its squared norm, which leaves squared
            distances in their order, (nlist,).
        nprobe: How many, at most as many as there are.

    Returns:
        Shape (q, nprobe), int64.
    """
    rounded, left, halves = coarse
    nlist = len(centroids)
    products = products_of_few(queries, rounded)
    wanted = np.empty((len(queries), nprobe), dtype=np.int64)
    for q in range(len(queries)):
        near, numbers = products[q] - halves, np.arange(nlist)
        best_first(near, numbers, nlist, nprobe)
        count = nprobe
        if left > 0:
            # By Cauchy and Schwarz no product is off by more; those that may be among the nearest are looked at again.
            bar = near[nprobe - 1] - 2 * left * math.sqrt(dot(queries[q], queries[q]))
            for i in range(nprobe, nlist):
                if near[i] >= bar:
                    numbers[count] = numbers[i]
                    count += 1
            for i in range(count):
                near[i] = dot(queries[q], centroids[numbers[i]]) - halves[numbers[i]]
            best_first(near, numbers, count, nprobe)
        wanted[q] = numbers[:nprobe][np.argsort(-near[:nprobe])]
    return wanted
