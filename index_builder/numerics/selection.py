"""The best of many rows by similarity, brought to the front; for what is compiled."""

from typing import Any

from index_builder.numerics.compiled import compiled


@compiled
def _better(score: float, row: int, other: float, other_row: int) -> bool:
    return score > other or (score == other and row < other_row)


@compiled
def best_first(values: Any, rows: Any, count: int, k: int) -> None:
    """Bring the best k of the first `count` to the front, the worst of these to place k - 1: Hoare's selection."""
    low, high, place = 0, count - 1, k - 1
    while low < high:
        middle = (low + high) // 2
        # The middle one of three: what comes sorted is cut in halves as well.
        if _better(values[middle], rows[middle], values[low], rows[low]):
            _swap(values, rows, low, middle)
        if _better(values[high], rows[high], values[low], rows[low]):
            _swap(values, rows, low, high)
        if _better(values[high], rows[high], values[middle], rows[middle]):
            _swap(values, rows, middle, high)
        score, row = values[middle], rows[middle]
        i, j = low, high
        while i <= j:
            while _better(values[i], rows[i], score, row):
                i += 1
            while _better(score, row, values[j], rows[j]):
                j -= 1
            if i <= j:
                _swap(values, rows, i, j)
                i += 1
                j -= 1
        if place <= j:
            high = j
        elif place >= i:
            low = i
        else:
            return


@compiled
def _swap(values: Any, rows: Any, i: int, j: int) -> None:
    values[i], values[j] = values[j], values[i]
    rows[i], rows[j] = rows[j], rows[i]
