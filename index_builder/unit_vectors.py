"""Rows of vectors checked and at L2 norm 1, as clustering and search need them."""

import numpy as np

from spine.errors import DataError
from spine.tables import Vectors

_TOLERANCE = 1e-3  # of a norm; float16 storage moves it by a tenth of that


def unit_rows(embeddings: Vectors) -> Vectors:
    """A copy of the embeddings with float16's rounding taken out of their norms.

    Args:
        embeddings: Shape (n, d), n and d at least 1.

    Returns:
        Shape (n, d), float32, rows of L2 norm 1, one after the other in memory.

    Raises:
        DataError: There are none, or a row's norm is not 1 within 1e-3: NaN and infinity count so too.
    """
    embeddings = np.ascontiguousarray(embeddings, dtype=np.float32)
    if embeddings.ndim != 2 or 0 in embeddings.shape:
        raise DataError(f"embeddings of shape {embeddings.shape}; one row at least was needed")
    norms = np.sqrt(np.einsum("ij,ij->i", embeddings, embeddings))
    wrong = np.flatnonzero(~(np.abs(norms - 1) <= _TOLERANCE))
    if wrong.size:
        raise DataError(
            f"{wrong.size:,} of {len(embeddings):,} embeddings have not norm 1, row {wrong[0]:,} has"
            f" {norms[wrong[0]]:.4g}; embed them again with --force"
        )
    unit: Vectors = embeddings / norms[:, None]
    return unit
