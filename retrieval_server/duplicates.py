"""Near-duplicates as clip-retrieval's deduplicate forms them: everything that a chain of likenesses connects.

`index_builder.numerics.near_duplicates` forms tighter groups, without chains, for datasets; on the wire the
answer must be the one that clients know.
"""

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

from index_builder.numerics.pair_products import pairwise_products
from spine.tables import Vectors

_BLOCK = 256  # rows compared at a time; of what is multiplied twice, half a block a row
_SCREENED = 256  # dimensions that rule most pairs out
_SHARE = 0.59  # of the variance, in the directions looked at first
_MOST_DIRECTIONS = 192  # turning vectors into them costs n * d * as many
_ROUNDING = 1e-4  # of similarities; a pair within it is looked at exactly
_PAIRS = 4_096  # looked at one by one in one call, or a block's
_CROWDED = 8  # of a block's pairs one in so many, from which one product is cheaper

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

    About n * n / 2 * 128 to 256 multiplications; n * n / 2 * d at worst.

    Args:
        vectors: Shape (n, d), rows of L2 norm 1.
        threshold: Two rows above this similarity are connected.
        directions: Of `widest_directions`, to look at first; without them the widest dimensions are.

    Returns:
        Shape (n,); a row's own number where nothing lower is connected.
    """
    vectors = np.ascontiguousarray(vectors, dtype=np.float32)
    first = np.arange(len(vectors), dtype=np.int64)
    held: list[tuple[Rows, Rows]] = []
    for pairs in _maybe_similar(vectors, threshold - _ROUNDING, directions):
        held.append(pairs)
        if sum(len(rows) for rows, _ in held) >= _PAIRS:
            first = _joined(first, vectors, threshold, held)
            held = []
    return _joined(first, vectors, threshold, held) if held else first


def _joined(first: Rows, vectors: Vectors, threshold: float, held: list[tuple[Rows, Rows]]) -> Rows:
    """`first` with those of these pairs connected that are similar."""
    rows, others = (np.concatenate(each) for each in zip(*held, strict=True))
    apart = first[rows] != first[others]
    rows, others = rows[apart], others[apart]
    similar = pairwise_products(vectors, rows, vectors, others) > threshold
    rows, others = rows[similar], others[similar]
    while (first[rows] != first[others]).any():
        lowest = np.arange(len(first))
        np.minimum.at(lowest, np.maximum(first[rows], first[others]), np.minimum(first[rows], first[others]))
        first = lowest[first]
    return first


def _maybe_similar(vectors: Vectors, least: float, directions: Vectors | None) -> Iterator[tuple[Rows, Rows]]:
    """Pairs of rows, each once: all whose similarity is `least` or more, and some others; block by block."""
    seen, n = _seen(vectors, directions), len(vectors)
    later_rows = np.tri(_BLOCK, k=-1, dtype=np.bool_)  # each pair once, and none with itself
    # One room for all blocks: fresh memory costs as much as the comparison.
    products = np.empty(_BLOCK * n, dtype=np.float32)
    flags = np.empty(_BLOCK * n + 8, dtype=np.bool_)
    for start in range(0, n, _BLOCK):
        block, later = seen[start : start + _BLOCK], seen[start:]
        shape, size = (len(later), len(block)), len(later) * len(block)
        bounds = np.matmul(later, block.T, out=products[:size].reshape(shape))
        similar = np.greater_equal(bounds, least, out=flags[:size].reshape(shape))
        similar[:_BLOCK] &= later_rows[: len(similar), : len(block)]
        if np.count_nonzero(similar) > size // _CROWDED:
            exact = np.matmul(vectors[start:], vectors[start : start + _BLOCK].T, out=bounds)
            similar &= exact >= least
        flags[size : size + 8] = False
        places = _places(flags[: -(-size // 8) * 8])
        if len(places):
            rows, others = np.divmod(places, len(block))
            yield start + rows, start + others


def _seen(vectors: Vectors, directions: Vectors | None) -> Vectors:
    """Vectors of fewer numbers, whose inner products are no lower.

    Of a unit vector some directions are seen, and of the rest its length: two such rests have the highest product
    where they point the same way.
    """
    if directions is not None and len(vectors) > _BLOCK:
        seen = vectors @ directions
    elif vectors.shape[1] > _SCREENED and len(vectors) > _BLOCK:
        seen = vectors[:, np.sort(np.argpartition(vectors.var(axis=0), -_SCREENED)[-_SCREENED:])]
    else:
        return vectors
    rests = np.sqrt(np.maximum(1 - np.einsum("ij,ij->i", seen, seen), 0))
    return np.hstack([seen, rests[:, None]])


def _places(flags: npt.NDArray[np.bool_]) -> Rows:
    """Where flags (8m,), most of them false, are true. Eight at a time: one by one it takes as long as the product."""
    words = np.flatnonzero(flags.view(np.uint64))
    among = np.flatnonzero(flags.reshape(-1, 8)[words])
    places: Rows = words[among // 8] * 8 + among % 8
    return places
