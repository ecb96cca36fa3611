"""What a search found, put in order: by similarity, and candidates of coarse codes by the vectors themselves."""

from math import ceil
from typing import Any

import numpy as np
import numpy.typing as npt

from index_builder.metadata.metadata_rows import Rows
from index_builder.numerics.faiss_library import load_faiss
from index_builder.numerics.half_floats import widened
from spine.tables import Vectors

_TOGETHER = 128  # candidates widened and multiplied at once: in the cache


OVER_FETCH = 4.0
"""Candidates a neighbour, where no index says what it needs."""

_MORE = 240  # few neighbours need relatively more


def candidates_for(k: int, over_fetch: float) -> int:
    """How many candidates of coarse codes are ranked exactly for k neighbours: over_fetch · k + 240."""
    return ceil(over_fetch * k) + _MORE


def in_order(
    similarities: npt.NDArray[np.float32], rows: npt.NDArray[np.int64]
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
    """Results (q, k) by falling similarity; equals, whose order FAISS leaves open, by row."""
    if not (similarities[:, 1:] <= similarities[:, :-1]).all():
        order = np.argsort(-similarities, axis=1)
        similarities = np.take_along_axis(similarities, order, axis=1)
        rows = np.take_along_axis(rows, order, axis=1)
    equal = np.zeros(rows.shape, dtype=np.bool_)  # to the one before
    equal[:, 1:] = similarities[:, 1:] == similarities[:, :-1]
    if not equal.any():
        return similarities, rows  # as a rule
    among = equal.copy()
    among[:, :-1] |= equal[:, 1:]
    places, runs = np.flatnonzero(among), np.cumsum(~equal)  # each run of equals has a number
    flat = rows.ravel().copy()
    flat[places] = flat[places][np.lexsort((flat[places], runs[places]))]
    return similarities, flat.reshape(rows.shape)


def ranked_exactly(queries: Vectors, candidates: Rows, vectors: Any) -> tuple[Vectors, Rows]:
    """Candidates (q, depth) by falling similarity on the vectors themselves (n, d); -1, for none, comes last."""
    numbers = np.sort(candidates, axis=1)  # in the order of the file
    exact = np.empty(candidates.shape, dtype=np.float32)
    for i, query in enumerate(queries):
        for start in range(0, numbers.shape[1], _TOGETHER):
            some = slice(start, start + _TOGETHER)
            exact[i, some] = widened(vectors[np.maximum(numbers[i, some], 0)]) @ query
    exact[numbers < 0] = -np.inf
    order = np.argsort(-exact, axis=1, kind="stable")
    return np.take_along_axis(exact, order, axis=1), np.take_along_axis(numbers, order, axis=1)


def ranked_by_faiss(index: Any, vectors: Any) -> Any:
    """A FAISS index that searches `index` and ranks what it finds on the vectors themselves, all in one call.

    Side by side, threads of ours would wait for Python's lock between the steps of `ranked_exactly`.

    Args:
        index: By inner product.
        vectors: Shape (n, d), float16, contiguous; must outlive the result, which reads them where they lie.
    """
    faiss = load_faiss()
    n, d = vectors.shape
    stored = faiss.IndexScalarQuantizer(d, faiss.ScalarQuantizer.QT_fp16, faiss.METRIC_INNER_PRODUCT)
    content = faiss.swig_ptr(vectors.view(np.uint8).reshape(-1))
    stored.codes = faiss.MaybeOwnedVectorUInt8.create_view(content, vectors.nbytes, stored.codes.owner)
    stored.ntotal = n
    return faiss.IndexRefine(index, stored)
