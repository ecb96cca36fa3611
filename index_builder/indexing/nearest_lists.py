"""A few queries moved as an index moves them, and given their nearest lists, compiled.

FAISS reads all centroids for each of a few queries, megabytes each time; here once for four of them.
"""

from typing import Any

import numpy as np

from index_builder.numerics.compiled import compiled, compiled_sums
from index_builder.numerics.pair_products import dot
from index_builder.numerics.selection import best_first


@compiled_sums
def products_of_few(queries: Any, vectors: Any) -> Any:
    """Inner products of queries (q, d) with vectors (n, d); shape (q, n), float32."""
    products = np.empty((len(queries), len(vectors)), dtype=np.float32)
    whole = len(queries) // 4 * 4
    for q in range(0, whole, 4):
        first, second, third, fourth = queries[q], queries[q + 1], queries[q + 2], queries[q + 3]
        for row in range(len(vectors)):
            vector = vectors[row]
            one, two, three, four = np.float32(0), np.float32(0), np.float32(0), np.float32(0)
            for i in range(len(vector)):
                one += vector[i] * first[i]
                two += vector[i] * second[i]
                three += vector[i] * third[i]
                four += vector[i] * fourth[i]
            products[q, row], products[q + 1, row] = one, two
            products[q + 2, row], products[q + 3, row] = three, four
    for row in range(len(vectors)):
        for q in range(whole, len(queries)):
            products[q, row] = dot(queries[q], vectors[row])
    return products


@compiled
def nearest_lists(queries: Any, centroids: Any, halves: Any, nprobe: int) -> Any:
    """The nearest lists of each query, the nearest first.

    Args:
        queries: Shape (q, d), float32, as the lists have them.
        centroids: Shape (nlist, d).
        halves: What is taken off a query's inner products with them: zeros, or of each half its squared norm, which
            leaves squared distances in their order; (nlist,).
        nprobe: How many, at most as many as there are.

    Returns:
        Shape (q, nprobe), int64.
    """
    nlist = len(centroids)
    products = products_of_few(queries, centroids)
    wanted = np.empty((len(queries), nprobe), dtype=np.int64)
    for q in range(len(queries)):
        near, numbers = products[q] - halves, np.arange(nlist)
        best_first(near, numbers, nlist, nprobe)
        wanted[q] = numbers[:nprobe][np.argsort(-near[:nprobe])]
    return wanted
