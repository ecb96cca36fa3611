"""Near-duplicates by their embeddings: which picture stands for which.

Greedy, best first, without chains: a picture is a duplicate only of one that is itself kept, so that
two pictures of one group are always as similar as the threshold asks to the one that stands for them.
Connected components, as clip-retrieval forms them, join pictures that have nothing in common through
a row of others in between.
"""

import numpy as np
import numpy.typing as npt

from spine.tables import Vectors

_BLOCK = 1024  # rows compared at a time
_CHUNK = 8192  # kept rows they are compared with at a time: 32 MB of similarities


def near_duplicate_groups(
    vectors: Vectors, threshold: float, order: npt.NDArray[np.integer] | None = None
) -> npt.NDArray[np.int64]:
    """For each row, the row that stands for it: its own number where it has no better duplicate.

    In order, each row is compared with the rows kept so far; the first of them with a similarity of at
    least `threshold` stands for it, and where there is none, it is kept itself. Exact; about
    n * kept * d multiplications, and a copy of the vectors in memory.

    Args:
        vectors: Shape (n, d), float32, rows of L2 norm 1.
        threshold: Similarity from which two rows are one; 1 and above finds none.
        order: A permutation of 0 to n - 1, best first; None for the order of the rows.

    Returns:
        Shape (n,), row numbers.
    """
    n = len(vectors)
    best_first = np.arange(n) if order is None else np.asarray(order, dtype=np.int64)
    if len(best_first) != n or not np.array_equal(np.sort(best_first), np.arange(n)):
        raise ValueError(f"order must be a permutation of {n} rows")
    if threshold >= 1 or n == 0:
        return np.arange(n, dtype=np.int64)
    rows = np.ascontiguousarray(vectors[best_first], dtype=np.float32)
    stands = np.arange(n, dtype=np.int64)  # in best-first positions
    kept = np.empty(n, dtype=np.int64)
    count = 0
    for start in range(0, n, _BLOCK):
        block = rows[start : start + _BLOCK].copy()
        found = _first_similar(block, rows[:count], threshold)
        known = np.flatnonzero(found >= 0)
        stands[start + known] = kept[found[known]]
        new = np.flatnonzero(found < 0)
        own = _among_themselves(block[new], threshold)
        stands[start + new] = start + new[own]
        fresh = new[own == np.arange(len(new))]
        # Kept rows move to the front of the same array: they are never more than the rows read.
        rows[count : count + len(fresh)] = block[fresh]
        kept[count : count + len(fresh)] = start + fresh
        count += len(fresh)
    groups = np.empty(n, dtype=np.int64)
    groups[best_first] = best_first[stands]
    return groups


def _first_similar(block: Vectors, kept: Vectors, threshold: float) -> npt.NDArray[np.int64]:
    """For each row of block the first kept row that is similar enough, -1 where there is none."""
    found = np.full(len(block), -1, dtype=np.int64)
    for start in range(0, len(kept), _CHUNK):
        waiting = np.flatnonzero(found < 0)
        if len(waiting) == 0:
            break
        similar = block[waiting] @ kept[start : start + _CHUNK].T >= threshold
        any_similar = similar.any(axis=1)
        found[waiting[any_similar]] = start + similar[any_similar].argmax(axis=1)
    return found


def _among_themselves(rows: Vectors, threshold: float) -> npt.NDArray[np.int64]:
    """The same rule within rows that have no earlier duplicate."""
    own = np.arange(len(rows), dtype=np.int64)
    similar = rows @ rows.T >= threshold
    for row in np.flatnonzero(np.triu(similar, 1).any(axis=1)):
        if own[row] == row:
            later = row + 1 + np.flatnonzero(similar[row, row + 1 :])
            own[later[own[later] == later]] = row
    return own
