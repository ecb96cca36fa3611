"""Rows that a chain of similarities connects, compiled: all pairs of a query's results, of which hardly any is similar.

The similarity of unit vectors is one with how far apart they are, and in some of their dimensions they are no further
apart than in all. A few hundred dimensions in 8-bit whole numbers are compared for every pair, and only pairs that are
near enough in these are looked at in full.
"""

import math
from typing import Any

import numpy as np

from index_builder.numerics.compiled import compiled, compiled_sums
from index_builder.numerics.pair_products import dot
from index_builder.numerics.panel_products import QUERIES, ROWS, laid_out, multiplied

_MOST = 2.0**28  # no squared distance in whole numbers is as large
_STEP = 32  # dimensions
_SAMPLED = 2_048  # pairs at most
_IN_FULL = 16_384  # dimensions in whole numbers that take as long as one similarity in full


@compiled_sums
def moments(vectors: Any, sums: Any, squares: Any) -> None:
    """Add to sums and squares, each (d,), those of the rows (n, d)."""
    for i in range(vectors.shape[0]):
        for j in range(vectors.shape[1]):
            sums[j] += vectors[i, j]
            squares[j] += vectors[i, j] * vectors[i, j]


@compiled
def dimensions_to_compare(vectors: Any, widest: Any, within: float) -> int:
    """How many of the dimensions, the widest first, rule most out for the least work, judged by some pairs.

    Args:
        vectors: Shape (n, d).
        widest: Dimensions, shape (d,), from the widest to the narrowest.
        within: Squared distance up to which two rows may be similar.
    """
    n, d = vectors.shape
    steps = -(-d // _STEP)
    left = np.zeros(steps + 1, dtype=np.int64)  # pairs by the steps that they take
    sampled = min(_SAMPLED, 2 * n)
    for pair in range(sampled):
        first = pair * 7919 % n
        second = (first + 1 + pair * 104729 % (n - 1)) % n
        apart, step = np.float32(0), 0
        while step < steps and apart <= within:
            for place in range(step * _STEP, min(d, (step + 1) * _STEP)):
                difference = vectors[first, widest[place]] - vectors[second, widest[place]]
                apart += difference * difference
            step += 1
        left[step if apart > within else steps] += 1
    best: int = d
    least, found = np.inf, 0
    for step in range(1, steps + 1):
        found += left[step] if step < steps else 0
        cost = sampled * step * _STEP + (sampled - found) * _IN_FULL
        if cost < least:
            best, least = min(d, step * _STEP), cost
    return best


@compiled_sums
def in_whole_numbers(
    vectors: Any, means: Any, dimensions: Any, step: float, numbers: Any, lengths: Any, sums: Any
) -> Any:
    """Some dimensions of rows, less their means, in steps; and by how much the rows are off at most.

    Args:
        vectors: Shape (n, d).
        means: Of all dimensions, shape (d,).
        dimensions: Those that are taken, shape (s,).
        step: So large that none is beyond 127 steps.
        numbers: Takes them; shape (n, s or more), int8, zeros.
        lengths: Takes the rows' squared lengths in steps; shape (n,), int32.
        sums: Takes the sums of the rows' numbers; shape (n,), int32.
    """
    scale, size, worst = np.float32(1 / step), np.float32(step), np.float32(0)
    row = np.empty(len(dimensions), dtype=np.float32)
    for i in range(len(vectors)):
        for place in range(len(dimensions)):
            row[place] = vectors[i, dimensions[place]] - means[dimensions[place]]
        error, length, total = np.float32(0), np.float32(0), np.float32(0)
        for place in range(len(dimensions)):
            whole = np.rint(row[place] * scale)
            numbers[i, place] = np.int8(np.int32(whole))
            off = row[place] - whole * size
            error += off * off
            length += whole * whole  # exact: below 2^24
            total += whole
        lengths[i], sums[i] = np.int32(length), np.int32(total)
        worst = max(worst, error)
    return math.sqrt(worst)


@compiled
def connect_few(vectors: Any, threshold: Any, first: Any) -> None:
    """Connect the rows that are similar, looking at every pair in full; arguments as of `connect`."""
    for row in range(len(vectors)):
        for other in range(row):
            one, lowest = _lowest(first, row), _lowest(first, other)
            if one != lowest and dot(vectors[row], vectors[other]) > threshold:
                first[max(one, lowest)] = min(one, lowest)
    _settle(first)


@compiled
def connect(
    vectors: Any, threshold: Any, numbers: Any, lengths: Any, sums: Any, within: float, room: Any, first: Any
) -> int:
    """Connect the rows that are similar, and count the pairs that were looked at in full.

    Args:
        vectors: Shape (n, d).
        threshold: Similarity above which two rows are connected, float32.
        numbers: Of `in_whole_numbers`, as are lengths and sums.
        lengths: Shape (n,).
        sums: Shape (n,).
        within: Squared distance in steps up to which two rows are looked at in full.
        room: A panel's rows (ROWS, s) as uint8, a panel and products as `multiplied` has them, addresses (QUERIES,).
        first: Each row's own number, (n,); becomes the lowest that it is connected with.
    """
    eights, panel, products, addresses = room
    n, stride = numbers.shape
    quarter, whole = stride // 4, numbers.ctypes.data
    most = np.int32(min(within, _MOST))
    of_rows = np.empty(ROWS, dtype=np.int32)
    looked = 0
    for start in range(0, n, ROWS):
        here = min(ROWS, n - start)
        for r in range(here):
            for place in range(stride):
                eights[r, place] = np.uint8(np.int32(numbers[start + r, place]) + 128)
            # 2 a.b >= |a|^2 + |b|^2 - within, in halves that are rounded up
            of_rows[r] = (most - lengths[start + r]) // 2 + 1
        for r in range(here, ROWS):
            of_rows[r] = -(2**30)
        laid_out(eights, panel, here)
        for block in range(0, start + here, QUERIES):
            some = min(QUERIES, start + here - block)
            for i in range(QUERIES):
                addresses[i] = whole + (block + min(i, some - 1)) * stride
            multiplied(panel, addresses, quarter, products)
            for i in range(some):
                row = block + i
                least = lengths[row] // 2 + 128 * sums[row]
                nearest = products[i, 0] + of_rows[0]
                for r in range(ROWS):
                    nearest = max(nearest, products[i, r] + of_rows[r])
                if nearest < least:
                    continue
                for r in range(max(0, row + 1 - start), here):
                    if products[i, r] + of_rows[r] >= least:
                        one, other = _lowest(first, row), _lowest(first, start + r)
                        if one != other:
                            looked += 1
                            if dot(vectors[row], vectors[start + r]) > threshold:
                                first[max(one, other)] = min(one, other)
    _settle(first)
    return looked


@compiled
def _settle(first: Any) -> None:
    for row in range(len(first)):
        first[row] = first[first[row]]  # lower rows are settled


@compiled
def _lowest(first: Any, row: int) -> int:
    while first[row] != row:
        first[row] = first[first[row]]
        row = first[row]
    return row
