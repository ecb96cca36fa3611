"""Search among rows that pass a predicate, where there are no lists or FAISS alone can score their codes."""

from typing import Any

import numpy as np

from index_builder.indexing.index_folder import IndexFolder
from index_builder.lists.best_k import BestK, Similarities
from index_builder.lists.exact_ranking import inner_products
from index_builder.lists.inverted_lists import InvertedLists, Numbers
from index_builder.lists.list_pairs import Wanted, pair_up
from index_builder.lists.list_pass import moved_by, parts_of
from index_builder.metadata.metadata_rows import Rows
from index_builder.metadata.row_mask import RowMask
from index_builder.numerics.faiss_library import load_faiss
from spine.errors import DataError
from spine.tables import Vectors

_ROWS = 16_384  # vectors looked at together: 50 MB at d = 768
_QUERIES = 1_024  # scored against them at a time


def search_by_depth(
    index: IndexFolder, queries: Vectors, k: int, nprobe: int, mask: RowMask, wanted: int
) -> tuple[Similarities, Rows, Numbers]:
    """FAISS's own search over rows of the mask, each query over as many lists as it takes.

    Queries that take about the same number of lists are searched together, with the number of the one that takes most.

    Args:
        index: An index with inverted lists.
        queries: Shape (q, d), float32.
        k: Neighbours a query.
        nprobe: Lists a query at least.
        mask: Rows that may be found.
        wanted: Rows of the mask that a query's lists hold, where the index has so many.

    Returns:
        Similarities and rows, (q, k), not sorted, -inf and -1 where there are fewer; lists each query took, (q,).
    """
    faiss, whole = load_faiss(), index.faiss_index()
    depths = _depths(whole, index, queries, nprobe, mask, wanted)
    depths = np.minimum(nprobe * 2 ** np.ceil(np.log2(depths / nprobe)).astype(np.int64), index.nlist)
    similarities = np.full((len(queries), k), -np.inf, dtype=np.float32)
    rows = np.full((len(queries), k), -1, dtype=np.int64)
    for depth in np.unique(depths).tolist():
        some = np.flatnonzero(depths == depth)
        parameters = faiss.SearchParametersIVF(nprobe=depth, sel=mask.selector())
        if isinstance(whole, faiss.IndexPreTransform):
            parameters = faiss.SearchParametersPreTransform(index_params=parameters)
        found, numbers = whole.search(queries[some], k, params=parameters)
        found = 1 - found / 2 if index.metric == "l2" else found
        similarities[some], rows[some] = np.where(numbers >= 0, found, -np.inf), numbers
    return similarities, rows, depths


def _depths(
    whole: Any, index: IndexFolder, queries: Vectors, nprobe: int, mask: RowMask, wanted: int
) -> Numbers:
    """Lists that each query takes."""
    transforms, ivf = parts_of(whole)
    moved = moved_by(transforms, queries)
    lists = InvertedLists(ivf, index.path)
    passing = Wanted(lists.passing(mask), wanted)
    depths, start = [np.empty(0, dtype=np.int64)], 0
    while start < len(moved):
        depths.append(pair_up(ivf, lists.order, moved[start:], nprobe, passing).lists)
        start += len(depths[-1])
    return np.concatenate(depths)


def search_all(index: IndexFolder, queries: Vectors, k: int, mask: RowMask) -> tuple[Similarities, Rows]:
    """Exact search over the rows of the mask as an index without lists keeps them, each looked at once for all queries.

    A graph would have to be walked through rows that don't pass, further the fewer do.

    Returns:
        Similarities and rows, (q, k), not sorted; row -1 with -inf where there are fewer.

    Raises:
        DataError: The index gives no vectors back.
    """
    best, whole = BestK(len(queries), k), index.faiss_index()
    far = index.metric == "l2"
    norms = np.einsum("ij,ij->i", queries, queries)
    for start in range(0, mask.n, _ROWS):
        rows = mask.rows(start, min(start + _ROWS, mask.n))
        if not len(rows):
            continue
        try:
            vectors = whole.reconstruct_batch(rows)
        except RuntimeError as error:
            raise DataError(
                f"{index.folder}: this kind of index keeps no vectors, and a filter needs them ({error})"
            ) from None
        lengths = np.einsum("ij,ij->i", vectors, vectors)
        for at in range(0, len(queries), _QUERIES):
            some = np.arange(at, min(at + _QUERIES, len(queries)))
            scores = inner_products(queries, some, vectors)
            if far:
                scores += 1 - (lengths + norms[some, None]) / 2  # 1 - |q - v|² / 2
            best.add_all(at, rows, scores)
    return best.results()
