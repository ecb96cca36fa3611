"""Near-duplicates as clip-retrieval's deduplicate forms them: everything that a chain of likenesses connects.

`index_builder.numerics.near_duplicates` forms tighter groups, without chains, for datasets; on the wire the
answer must be the one that clients know.
"""

import numpy as np
import numpy.typing as npt

from index_builder.numerics.panel_products import LANES, QUERIES, ROWS, room
from retrieval_server import likeness
from spine.tables import Vectors

_FEW = 96  # rows of which all pairs are looked at in full
_SLACK = 1e-4  # of squared distances: what float32 rounds away, and norms that aren't quite 1


def first_of_component(vectors: Vectors, threshold: float) -> npt.NDArray[np.int64]:
    """For each row the lowest row that it is connected with, by similarities above `threshold`.

    Exact. About n * n / 2 times the dimensions that tell most pairs apart, in 8-bit whole numbers.

    Args:
        vectors: Shape (n, d), rows of L2 norm 1, or of zeros.
        threshold: Two rows above this similarity are connected.

    Returns:
        Shape (n,); a row's own number where nothing lower is connected.
    """
    vectors = np.ascontiguousarray(vectors, dtype=np.float32)
    (n, d), first = vectors.shape, np.arange(len(vectors), dtype=np.int64)
    if n <= _FEW:
        likeness.connect_few(vectors, np.float32(threshold), first)
        return first
    within = 2 - 2 * threshold + _SLACK  # |x - y|^2 = 2 - 2 x.y
    means, variances = np.zeros((2, d), dtype=np.float32)
    likeness.moments(vectors, means, variances)
    means /= n
    variances -= n * means * means
    widest = np.argsort(-variances)
    count = likeness.dimensions_to_compare(vectors, widest, within)
    dimensions = np.sort(widest[:count])
    highest, lowest = vectors.max(axis=0), vectors.min(axis=0)
    largest = np.maximum(highest - means, means - lowest)[dimensions].max()
    step = max(float(largest), 1e-6) / 127
    stride = -(-count // 4) * 4
    numbers = np.zeros((n, stride), dtype=np.int8)
    lengths, sums = np.empty((2, n), dtype=np.int32)
    off = likeness.in_whole_numbers(vectors, means, dimensions, step, numbers, lengths, sums)
    near = ((np.sqrt(within) + 2 * off) / step) ** 2
    space = (
        np.zeros((ROWS, stride), dtype=np.uint8),
        room(2 * (stride // 4) * LANES),
        room(QUERIES, ROWS),
        np.zeros(QUERIES, dtype=np.int64),
    )
    likeness.connect(vectors, np.float32(threshold), numbers, lengths, sums, near, space, first)
    return first


def warm_up() -> None:
    """Compile what the CPU lacks yet, a few seconds in the first process after an installation, and load it."""
    vectors = np.eye(_FEW + 1, dtype=np.float32)
    first_of_component(vectors, 0.5)
    first_of_component(vectors[:2], 0.5)
