"""Vectors rounded to 8-bit numbers for products by whole numbers, and by how much that puts a product off, compiled."""

import math
from typing import Any

import numpy as np

from index_builder.numerics.compiled import compiled_sums

_LEVELS = 127


@compiled_sums
def round_rows(rows: Any, bits: Any, count: int, numbers: Any) -> Any:
    """Rows in 8-bit numbers, 128 added; of all of them the step, the longest after rounding, the largest error.

    `bits` are the rows as whole numbers: without their sign these are in the order of what they stand for, and their
    largest is found many at once, which that of floats is not.
    """
    d = rows.shape[1]
    largest = np.int32(0x0DA24260)  # 1e-30
    for i in range(count):
        row = bits[i]
        for j in range(d):
            largest = max(largest, row[j] & np.int32(0x7FFFFFFF))
    kept = np.empty(1, dtype=np.int32)
    kept[0] = largest
    step = kept.view(np.float32)[0] / np.float32(_LEVELS)
    scale = np.float32(1) / step
    longest, worst = np.float32(0), np.float32(0)
    for i in range(count):
        row, eights = rows[i], numbers[i]
        length, error = np.float32(0), np.float32(0)
        for j in range(d):
            whole = np.rint(row[j] * scale)
            eights[j] = np.uint8(np.int32(whole) + 128)
            left = whole * step - row[j]
            length += whole * whole
            error += left * left
        longest, worst = max(longest, length), max(worst, error)
    return step, step * math.sqrt(longest), math.sqrt(worst)


@compiled_sums
def round_queries(queries: Any, numbers: Any, steps: Any, errors: Any, norms: Any, sums: Any) -> None:
    """Round queries to 8-bit numbers.

    Args:
        queries: Shape (q, d), float32.
        numbers: Takes the numbers, shape (q, d) or wider, zero where wider.
        steps: Takes the length of one level of each query, and so do the others; (q,).
        errors: The norm of what rounding left over.
        norms: The norm of the query.
        sums: 128 times the sum of the numbers.
    """
    for q in range(len(queries)):
        query, eights = queries[q], numbers[q]
        largest = np.float32(1e-30)
        for j in range(len(query)):
            largest = max(largest, abs(query[j]))
        step = largest / np.float32(_LEVELS)
        scale = np.float32(1) / step
        length, error, total = np.float32(0), np.float32(0), np.int32(0)
        for j in range(len(query)):
            whole = np.rint(query[j] * scale)
            eights[j] = np.int8(whole)
            left = whole * step - query[j]
            length += query[j] * query[j]
            error += left * left
            total += np.int32(whole)
        steps[q], errors[q], norms[q], sums[q] = step, math.sqrt(error), math.sqrt(length), 128 * total
