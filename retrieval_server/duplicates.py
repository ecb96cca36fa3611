"""Near-duplicates as clip-retrieval's deduplicate forms them: everything that a chain of likenesses connects.

`index_builder.near_duplicates` forms tighter groups, without chains, for datasets; on the wire the
answer must be the one that clients know.
"""

import numpy as np
import numpy.typing as npt

from spine.tables import Vectors

_BLOCK = 256  # rows compared at a time; of what is multiplied twice, half a block a row
_SCREENED = 256  # dimensions that rule most pairs out
_ROUNDING = 1e-4  # of squared distances; a pair within it is looked at exactly
_MAX_PAIRS = 4_000  # of a block looked at one by one; with more of them one product is cheaper


def first_of_component(vectors: Vectors, threshold: float) -> npt.NDArray[np.int64]:
    """For each row the lowest row that it is connected with, by similarities above `threshold`.

    Of unit vectors |x - y|^2 = 2 - 2 x.y, and any few dimensions' part of it is a lower bound: where that is
    above 2 - 2 threshold the pair is ruled out. About n * n / 2 * 256 multiplications; n * n / 2 * d at worst.

    Args:
        vectors: Shape (n, d), rows of L2 norm 1.
        threshold: Two rows above this similarity are connected.

    Returns:
        Shape (n,); a row's own number where nothing lower is connected.
    """
    first = np.arange(len(vectors), dtype=np.int64)
    left, right = _screens(vectors)
    for start in range(0, len(vectors), _BLOCK):
        similar = _similar(vectors, left, right, start, threshold)
        for row in np.flatnonzero(similar.any(axis=1)):
            others = np.flatnonzero(similar[row])
            joined = np.unique(first[start + np.append(others, row)])
            if len(joined) > 1:
                first[np.isin(first, joined)] = joined[0]
    return first


def _screens(vectors: Vectors) -> tuple[Vectors, Vectors]:
    """Two arrays (n, 258) whose inner product is -1/2 of a pair's squared distance in the widest dimensions."""
    if vectors.shape[1] > _SCREENED:
        widest = np.sort(np.argpartition(vectors.var(axis=0), -_SCREENED)[-_SCREENED:])
        vectors = vectors[:, widest]
    half = np.einsum("ij,ij->i", vectors, vectors)[:, None] / 2
    one = np.ones_like(half)
    return np.hstack([vectors, -half, one]), np.hstack([vectors, one, -half])


def _similar(
    vectors: Vectors, left: Vectors, right: Vectors, start: int, threshold: float
) -> npt.NDArray[np.bool_]:
    """Which rows of a block are similar above `threshold` to which later ones; shape (block, n - start)."""
    similar = left[start : start + _BLOCK] @ right[start:].T > threshold - 1 - _ROUNDING
    similar[:, :_BLOCK] = np.triu(similar[:, :_BLOCK], k=1)  # each pair once, and none with itself
    count = np.count_nonzero(similar)
    if count > _MAX_PAIRS:
        similar &= vectors[start : start + _BLOCK] @ vectors[start:].T > threshold
    elif count:
        rows, others = np.nonzero(similar)
        products = np.einsum("ij,ij->i", vectors[start + rows], vectors[start + others])
        similar[rows, others] = products > threshold
    return similar
