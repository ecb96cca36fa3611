"""Candidates of a query ranked on the vectors themselves, as few as will do, compiled."""

import math
from typing import Any

import numpy as np

from index_builder.numerics.compiled import compiled
from index_builder.numerics.half_rows import products_with_halves
from index_builder.numerics.selection import best_first

_BEST = 32  # candidates beyond k that are multiplied whatever they are, those with the highest estimates
_SAMPLE = 32  # of the others, more or less
_SPREAD = np.uint64(0x9E3779B97F4A7C15)  # 2^64 by the golden ratio: its products with row numbers spread out
_DEVIATIONS = 4  # standard ones that a product may be off what its estimate stands for
_ROUNDED = 1e-5  # what float32 rounds away, and more


@compiled
def rank_halves(
    queries: Any, candidates: Any, estimates: Any, vectors: Any, similarities: Any, rows: Any
) -> None:
    """The nearest of each query's candidates, highest similarity first, equals by row.

    First those with the highest estimates are multiplied, and a sample of the others. These tell what an estimate may
    stand for; those that even so are below the k-th best are left alone.

    Args:
        queries: Shape (q, d), float32.
        candidates: Row numbers, shape (q, m); below 0 for none.
        estimates: Of their similarities, shape (q, m).
        vectors: As of `products_with_halves`.
        similarities: Takes as many as it has room for, m at most; shape (q, k).
        rows: Takes theirs, shape (q, k).
    """
    k, m = rows.shape[1], candidates.shape[1]
    best = min(m, k + _BEST)
    # Those whose numbers, multiplied, are below this: the same in whatever order candidates come.
    limit = np.uint64(2**32 * min(1.0, _SAMPLE / max(1, m - best)))
    exact = np.empty(m, dtype=np.float32)
    for q in range(len(queries)):
        numbers, guessed = candidates[q].copy(), np.empty(m, dtype=np.float32)
        for i in range(m):
            guessed[i] = estimates[q, i] if numbers[i] >= 0 else -np.inf
        first = best
        if best < m:
            best_first(guessed, numbers, m, best)
            for i in range(best, m):
                if (np.uint64(numbers[i]) * _SPREAD) >> np.uint64(32) < limit:
                    guessed[i], guessed[first] = guessed[first], guessed[i]
                    numbers[i], numbers[first] = numbers[first], numbers[i]
                    first += 1
        count = first
        products_with_halves(queries[q], numbers[:first], vectors, exact)
        if first < m:
            slope, start, most = _line(guessed[:first], exact)
            kth = np.partition(exact[:first], first - k)[first - k]
            for i in range(first, m):
                if numbers[i] >= 0 and start + slope * guessed[i] + most >= kth:
                    numbers[count] = numbers[i]
                    count += 1
            products_with_halves(queries[q], numbers[first:count], vectors, exact[first:])
        near = np.arange(count)
        if k < count:
            near = np.flatnonzero(exact[:count] >= np.partition(exact[:count], count - k)[count - k])
        near = near[np.argsort(numbers[near])]
        own, nearest = numbers[near], exact[near]
        order = np.argsort(-nearest, kind="mergesort")  # which leaves equals in the order of their rows
        for i in range(k):
            similarities[q, i], rows[q, i] = nearest[order[i]], own[order[i]]


@compiled
def _line(guessed: Any, exact: Any) -> Any:
    """The straight line through products by their estimates, its slope and where it starts, and how far one is off it.

    Estimates that are high are too high as a rule, the more so the coarser they are.
    """
    count, x, y, xx, xy, yy = 0, 0.0, 0.0, 0.0, 0.0, 0.0
    for i in range(len(guessed)):
        if guessed[i] > -np.inf:
            g, e = float(guessed[i]), float(exact[i])
            count, x, y, xx, xy, yy = count + 1, x + g, y + e, xx + g * g, xy + g * e, yy + e * e
    if not count:
        return 0.0, 0.0, np.inf
    x, y = x / count, y / count
    wide, both, high = xx / count - x * x, xy / count - x * y, yy / count - y * y
    slope = both / wide if wide > 1e-12 else 0.0
    left = max(0.0, high - slope * both)
    return slope, y - slope * x, _DEVIATIONS * math.sqrt(left) + _ROUNDED
