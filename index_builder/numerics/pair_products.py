"""Inner products of single pairs of vectors, where they lie: nothing is gathered first."""

import numpy as np
import numpy.typing as npt

from index_builder.numerics.faiss_library import load_faiss
from spine.tables import Vectors

Rows = npt.NDArray[np.int64]


def pairwise_products(first: Vectors, rows: Rows, second: Vectors, others: Rows) -> npt.NDArray[np.float32]:
    """Inner products of one vector of `first` with one of `second` each; equal vectors get equal ones.

    By FAISS, in as many threads as it has. Pairs that follow each other in memory are the fastest.

    Args:
        first: Shape (n, d), float32, contiguous.
        rows: Of each pair the row of `first`, 0 to n - 1; shape (p,).
        second: Shape (m, d), float32, contiguous.
        others: Of each pair the row of `second`, 0 to m - 1; shape (p,).

    Returns:
        Shape (p,).
    """
    faiss = load_faiss()
    rows, others = np.ascontiguousarray(rows, np.int64), np.ascontiguousarray(others, np.int64)
    products = np.empty(len(rows), dtype=np.float32)
    pointers = [faiss.swig_ptr(array) for array in (first, rows, second, others, products)]
    faiss.pairwise_indexed_inner_product(first.shape[1], len(rows), *pointers)
    return products
