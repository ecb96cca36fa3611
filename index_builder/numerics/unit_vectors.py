"""Rows of vectors checked and at L2 norm 1, as clustering and search need them."""

from typing import Any

import numpy as np
import numpy.typing as npt

from spine.errors import ConfigError, DataError
from spine.tables import Vectors

_TOLERANCE = 1e-3  # of a norm; float16 storage moves it by a tenth of that
_CANCELLED = 1e-3  # norm below which nothing of a direction is left


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


def scaled_rows(vectors: Vectors) -> Vectors:
    """Rows (n, d) scaled to L2 norm 1 where they lie, whatever theirs is, and given back; those of zeros stay."""
    norms = np.sqrt(np.einsum("ij,ij->i", vectors, vectors))[:, None]
    norms[norms == 0] = 1
    vectors /= norms
    return vectors


def scaled_rows_of(stored: Any, rows: npt.NDArray[np.int64]) -> Vectors:
    """Some rows of float16 vectors (n, d), finite, as float32, scaled to L2 norm 1; shape (m, d)."""
    from index_builder.numerics.half_rows import scale_halves

    vectors = np.empty((len(rows), stored.shape[1]), dtype=np.float32)
    scale_halves(stored.view(np.uint16), rows, vectors)
    return vectors


def pulled(queries: Vectors, shift: Vectors) -> Vectors:
    """Unit queries moved by one vector and scaled to norm 1 again: clip-retrieval's aesthetic query.

    Args:
        queries: Shape (q, d), rows of L2 norm 1.
        shift: Weight times rating vector, shape (d,).

    Raises:
        ConfigError: A query is cancelled out.
    """
    moved = queries + shift
    norms = np.linalg.norm(moved, axis=1, keepdims=True)
    if (norms < _CANCELLED).any():
        raise ConfigError("the aesthetic query cancels a centroid out; choose another weight")
    unit: Vectors = np.asarray(moved / norms, dtype=np.float32)
    return unit
