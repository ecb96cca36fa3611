"""A sample of each list's rows, scored first: it tells how similar a row must be to be of use.

Without it a query's best rows so far are a low bar for long: of some thousand rows several times k are looked at
closely and let go of again. The bar is set so low that k rows are expected above it with room to spare; whoever sets it
looks afterwards whether they were.
"""

import math
from enum import Enum

_SHARE = 8  # of so many rows one is in the sample
_SURE = 3.5  # standard deviations of what a sample gives that its bar is put lower
_ROWS = 192  # of a list
_WORTH = 0.4  # of k: with more rows to be found in the sample than so much there is little to win


class Part(Enum):
    """Which of a list's rows."""

    ALL = 0
    SAMPLE = 1
    REST = 2


def rows_of(part: Part, number: int, n: int) -> slice:
    """The rows of a part: the sample is the beginning of every other list and the end of the others.

    Args:
        part: Which part.
        number: The list's.
        n: How many rows it has.
    """
    if part is Part.ALL:
        return slice(0, n)
    size = -(-n // _SHARE)
    cut = size if number % 2 == 0 else n - size
    return slice(0, cut) if (part is Part.SAMPLE) == (number % 2 == 0) else slice(cut, n)


def neighbours_in_sample(k: int, rows: float, rows_a_list: float) -> int:
    """Of how many rows of the sample the last is the bar; 0 where a sample isn't worth it.

    Args:
        k: Neighbours wanted of all rows.
        rows: Of how many, on average.
        rows_a_list: How many of them are in a list: of short ones parts aren't worth the trouble.
    """
    # With r of the sample above a bar, 8 r of all are, give or take 8 times the root of r.
    expected = k / _SHARE
    needed = math.ceil(((_SURE + math.sqrt(_SURE**2 + 4 * expected)) / 2) ** 2)
    return needed if needed <= _WORTH * k and rows >= 4 * k and rows_a_list >= _ROWS else 0
