"""Near-duplicates as clip-retrieval's deduplicate forms them: everything that a chain of likenesses connects.

`index_builder.numerics.near_duplicates` forms tighter groups, without chains, for datasets; on the wire the
answer must be the one that clients know.
"""

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

from index_builder.numerics.faiss_library import load_faiss
from spine.tables import Vectors

_BLOCK = 256  # rows compared at a time; of what is multiplied twice, half a block a row
_SCREENED = 256  # dimensions that rule most pairs out
_SHARE = 0.61  # of the variance, in the directions looked at first
_MOST_DIRECTIONS = 192  # turning vectors into them costs n * d * as many
_ROUNDING = 1e-4  # of squared distances; a pair within it is looked at exactly
_MAX_PAIRS = 80_000  # of a block looked at one by one; with more of them one product is cheaper

Rows = npt.NDArray[np.int64]


def widest_directions(samples: Sequence[Vectors]) -> Vectors | None:
    """The few directions in which the vectors of an index differ most, to rule pairs of results out by.

    CLIP's vectors differ in some directions far more than in others, none of which is a single dimension.

    Args:
        samples: Vectors that should differ as results do, each (m, d), rows of L2 norm 1: some of the whole index,
            or the results of some queries.

    Returns:
        Orthonormal columns, shape (d, s), that hold _SHARE of the variance; None where dimensions as they are serve
        as well.
    """
    d = samples[0].shape[1] if samples else 0
    if d <= _SCREENED or sum(map(len, samples)) < 4 * d:
        return None
    apart = np.concatenate([sample - sample.mean(axis=0) for sample in samples])
    learnt, held_out = apart[::2], apart[1::2]  # of what they were learnt from, directions hold too much
    directions = np.linalg.eigh(learnt.T @ learnt)[1][:, ::-1]
    variances = np.square(held_out @ directions).sum(axis=0)
    shares = np.cumsum(variances) / max(float(variances.sum()), 1e-30)
    count = int(np.searchsorted(shares, _SHARE)) + 1
    if count > _MOST_DIRECTIONS:
        return None
    return np.ascontiguousarray(directions[:, :count], dtype=np.float32)


def first_of_component(
    vectors: Vectors, threshold: float, directions: Vectors | None = None
) -> npt.NDArray[np.int64]:
    """For each row the lowest row that it is connected with, by similarities above `threshold`.

    Of unit vectors |x - y|^2 = 2 - 2 x.y, and its part in any few directions is a lower bound: where that is
    above 2 - 2 threshold the pair is ruled out. About n * n / 2 * 128 to 256 multiplications; n * n / 2 * d at worst.

    Args:
        vectors: Shape (n, d), rows of L2 norm 1.
        threshold: Two rows above this similarity are connected.
        directions: Of `widest_directions`, to look at first; without them the widest dimensions are.

    Returns:
        Shape (n,); a row's own number where nothing lower is connected.
    """
    vectors = np.ascontiguousarray(vectors, dtype=np.float32)
    first = np.arange(len(vectors), dtype=np.int64)
    for rows, others in _similar_pairs(vectors, threshold, directions):
        for pairs in np.split(np.arange(len(rows)), np.flatnonzero(np.diff(rows)) + 1):
            joined = {int(first[rows[pairs[0]]]), *first[others[pairs]].tolist()}
            lowest = min(joined)
            for label in joined - {lowest}:
                first[first == label] = lowest
    return first


def _similar_pairs(
    vectors: Vectors, threshold: float, directions: Vectors | None
) -> Iterator[tuple[Rows, Rows]]:
    """Pairs of rows that are similar above `threshold`, the lower one first and ascending; block by block."""
    left, right = _screens(vectors, directions)
    # One room for all blocks: fresh memory costs as much as the comparison.
    products = np.empty(_BLOCK * len(vectors), dtype=np.float32)
    flags = np.empty(_BLOCK * len(vectors), dtype=np.bool_)
    for start in range(0, len(vectors), _BLOCK):
        block, later = left[start : start + _BLOCK], right[start:]
        shape, size = (len(block), len(later)), len(block) * len(later)
        screened = np.matmul(block, later.T, out=products[:size].reshape(shape))
        similar = np.greater(screened, threshold - 1 - _ROUNDING, out=flags[:size].reshape(shape))
        similar[:, :_BLOCK] = np.triu(similar[:, :_BLOCK], k=1)  # each pair once, and none with itself
        if np.count_nonzero(similar) > _MAX_PAIRS:
            rows, others = np.flatnonzero(similar.any(axis=1)), np.flatnonzero(similar.any(axis=0))
            similar[np.ix_(rows, others)] &= vectors[start + rows] @ vectors[start + others].T > threshold
            rows, others = _places(similar)
        else:
            rows, others = _places(similar)
            near = _products(vectors, start + rows, start + others) > threshold
            rows, others = rows[near], others[near]
        if len(rows):
            yield start + rows, start + others


def _places(flags: npt.NDArray[np.bool_]) -> tuple[Rows, Rows]:
    """Rows and columns of what is true. np.nonzero takes ten times as long."""
    rows, columns = np.divmod(np.flatnonzero(flags), flags.shape[1])
    return rows, columns


def _screens(vectors: Vectors, directions: Vectors | None) -> tuple[Vectors, Vectors]:
    """Two arrays whose inner product is at least -1/2 of a pair's squared distance."""
    if directions is not None and len(vectors) > _BLOCK:
        seen = vectors @ directions
        # What is not seen has a length, and two lengths differ by no more than what they are of.
        lengths = np.einsum("ij,ij->i", vectors, vectors) - np.einsum("ij,ij->i", seen, seen)
        seen = np.hstack([seen, np.sqrt(np.maximum(lengths, 0))[:, None]])
    elif vectors.shape[1] > _SCREENED:
        widest = np.sort(np.argpartition(vectors.var(axis=0), -_SCREENED)[-_SCREENED:])
        seen = vectors[:, widest]
    else:
        seen = vectors
    left = np.empty((len(seen), seen.shape[1] + 2), dtype=np.float32)
    left[:, :-2] = seen
    left[:, -2] = np.einsum("ij,ij->i", seen, seen) / -2
    left[:, -1] = 1
    right = left.copy()
    right[:, -2:] = left[:, :-3:-1]
    return left, right


def _products(vectors: Vectors, rows: Rows, others: Rows) -> Vectors:
    """The inner product of each pair, `rows` ascending. FAISS takes them where they lie, without gathering."""
    if not len(rows):
        return np.empty(0, dtype=np.float32)
    faiss = load_faiss()
    some, starts, counts = np.unique(rows, return_index=True, return_counts=True)
    places = np.arange(len(rows)) - np.repeat(starts, counts)
    lines = np.repeat(np.arange(len(some)), counts)
    numbers = np.full((len(some), counts.max()), -1, dtype=np.int64)  # FAISS passes over -1
    numbers[lines, places] = others
    products = np.zeros(numbers.shape, dtype=np.float32)
    left = np.ascontiguousarray(vectors[some])
    pointers = [faiss.swig_ptr(array) for array in (products, left, vectors, numbers)]
    faiss.fvec_inner_products_by_idx(*pointers, vectors.shape[1], len(some), numbers.shape[1])
    found: Vectors = products[lines, places]
    return found
