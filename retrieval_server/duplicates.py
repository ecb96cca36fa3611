"""Near-duplicates as clip-retrieval's deduplicate forms them: everything that a chain of likenesses connects.

`index_builder.near_duplicates` forms tighter groups, without chains, for datasets; on the wire the
answer must be the one that clients know.
"""

import numpy as np
import numpy.typing as npt

from spine.tables import Vectors

_BLOCK = 256  # rows compared at a time; of what is multiplied twice, half a block a row


def first_of_component(vectors: Vectors, threshold: float) -> npt.NDArray[np.int64]:
    """For each row the lowest row that it is connected with, by similarities above `threshold`.

    About n * n / 2 * d multiplications.

    Args:
        vectors: Shape (n, d), rows of L2 norm 1.
        threshold: Two rows above this similarity are connected.

    Returns:
        Shape (n,); a row's own number where nothing lower is connected.
    """
    first = np.arange(len(vectors), dtype=np.int64)
    for start in range(0, len(vectors), _BLOCK):
        similar = vectors[start : start + _BLOCK] @ vectors[start:].T > threshold
        similar[:, :_BLOCK] = np.triu(similar[:, :_BLOCK], k=1)  # each pair once, and none with itself
        for row in np.flatnonzero(similar.any(axis=1)):
            others = np.flatnonzero(similar[row])
            joined = np.unique(first[start + np.append(others, row)])
            if len(joined) > 1:
                first[np.isin(first, joined)] = joined[0]
    return first
