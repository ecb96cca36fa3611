"""The best of many rows by similarity, brought to the front; for what is compiled."""

from typing import Any

import numpy as np

from index_builder.numerics.compiled import compiled, compiled_sums, larger_of, smaller_of

_FEW = 64  # fewer are brought in order at once
_HALVINGS = 16
_LOOKED_AT = 15  # places among which a pivot is chosen


@compiled
def _better(score: float, row: int, other: float, other_row: int) -> Any:
    # Without branches: of rows in no order the CPU would guess wrong at every other one.
    return (score > other) | ((score == other) & (row < other_row))


@compiled
def best_first(values: Any, rows: Any, count: int, k: int) -> None:
    """Bring the best k of the first `count` to the front, the worst of these to place k - 1.

    Args:
        values: The higher the better; float32.
        rows: Their rows, of equal ones the lowest is the best; int64.
        count: How many there are, all of the arrays or fewer.
        k: From 1 to `count`.
    """
    low, end, place = 0, count, k - 1
    while end - low > 1:
        _swap(values, rows, _pivot(values, rows, low, end, place), end - 1)
        middle = _divide(values, rows, low, end - 1)
        if middle == low:
            middle = _after_equals(values, rows, low, end) - 1
            if place <= middle:
                return
        if place < middle:
            end = middle
        elif place > middle:
            low = middle + 1
        else:
            return


@compiled
def thin_out(values: Any, rows: Any, count: int, k: int) -> Any:
    """Leave out most of the first `count` that are none of the best k, by a bar that is soon found.

    Args:
        values: As of `best_first`; those above the bar come to the front, and what was left out may be gone.
        rows: Likewise.
        count: Likewise.
        k: Likewise.

    Returns:
        How many are left, hardly more than k, and the bar: what is below it is none of the best k.
    """
    left, enough = count, k + (count - k) // 8
    low, high = _ends(values, count)
    if count >= _FEW and -np.inf < low and high < np.inf:
        for _ in range(_HALVINGS):
            middle = low + (high - low) / 2
            above = _how_many(values, count, middle)
            if above < k:
                high = middle
            else:
                low, left = middle, above
                if left <= enough:
                    break
    if left > enough:
        best_first(values, rows, count, k)
        return k, values[k - 1]
    place = 0
    for i in range(count):
        value, row = values[i], rows[i]
        values[place], rows[place] = value, row
        place += value >= low
    return left, low


@compiled_sums
def _ends(values: Any, count: int) -> Any:
    """The least and the largest of the first `count`."""
    low, high = values[0], values[0]
    for i in range(count):
        low, high = smaller_of(low, values[i]), larger_of(high, values[i])
    return low, high


@compiled_sums
def _how_many(values: Any, count: int, bar: float) -> int:
    """How many of the first `count` are not below the bar."""
    above = np.float32(0)  # whole up to 16 million, and added up sixteen at once
    for i in range(count):
        above += np.float32(1) if values[i] >= bar else np.float32(0)
    return int(above)


@compiled
def _pivot(values: Any, rows: Any, low: int, end: int, place: int) -> int:
    """One that is likely to come close to a place when all from `low` to `end` are in order, rather behind it."""
    n = end - low
    if n < 8 * _LOOKED_AT:
        return (low + end) // 2
    step = n // _LOOKED_AT
    for i in range(_LOOKED_AT):
        at = low + i
        _swap(values, rows, at, at + i * (step - 1))
        while at > low and _better(values[at], rows[at], values[at - 1], rows[at - 1]):
            _swap(values, rows, at, at - 1)
            at -= 1
    expected = (place - low) * _LOOKED_AT // n
    return low + (min(_LOOKED_AT - 1, expected + 1) if 2 * expected < _LOOKED_AT else max(0, expected - 1))


@compiled
def _divide(values: Any, rows: Any, low: int, last: int) -> int:
    """Bring what is better than the last one before it and the others behind it; its place then."""
    score, row, middle = values[last], rows[last], low
    for i in range(low, last):
        value, number = values[i], rows[i]
        values[i], rows[i] = values[middle], rows[middle]
        values[middle], rows[middle] = value, number
        middle += _better(value, number, score, row)
    _swap(values, rows, middle, last)
    return middle


@compiled
def _after_equals(values: Any, rows: Any, low: int, end: int) -> int:
    """Bring all that are the same as the first one beside it; the place after them."""
    after = low + 1
    for i in range(low + 1, end):
        if values[i] == values[low] and rows[i] == rows[low]:
            _swap(values, rows, i, after)
            after += 1
    return after


@compiled
def _swap(values: Any, rows: Any, i: int, j: int) -> None:
    values[i], values[j] = values[j], values[i]
    rows[i], rows[j] = rows[j], rows[i]
