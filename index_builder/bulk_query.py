"""Many queries against one index: arrays in, tables out, in bounded memory.

On an index with inverted lists the queries are answered together, in one pass over the lists
(`index_builder.list_pass`), where that costs less than FAISS's search; otherwise block by block.
"""

import os
from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from index_builder.exact_ranking import exact_similarities
from index_builder.index_folder import IndexFolder, candidates_for, in_order
from index_builder.list_pass import ListPass, open_list_pass
from index_builder.metadata_rows import Rows
from index_builder.search_plan import SearchPlan, plan_search
from spine.errors import DataError
from spine.tables import Vectors

BLOCK = 256
"""Queries in a table."""

PASS_RESULTS = 32 * 2**20
"""Results that one pass over the lists may hold, 12 bytes each: 10,000 queries with k = 3,000."""

RESULTS = pa.schema(
    [
        ("query", pa.int32()),
        ("rank", pa.int32()),
        ("row", pa.int64()),
        ("similarity", pa.float32()),
    ]
)
"""Columns of an answer, before those of the metadata."""


def bulk_query(
    index: IndexFolder,
    queries: Vectors,
    k: int,
    *,
    nprobe: int = 0,
    columns: Sequence[str] | None = None,
    block: int = BLOCK,
) -> Iterator[pa.Table]:
    """The k nearest neighbours of many queries.

    Args:
        index: What is searched.
        queries: Shape (q, d), finite; of L2 norm 1 for similarities of -1 to 1.
        k: Neighbours a query, 1 at least.
        nprobe: Lists searched a query; 0 for the index's own.
        columns: Metadata to bring; None for all, empty for none.
        block: Queries in a table; memory holds k rows of metadata for each.

    Yields:
        For each block of queries in order, RESULTS and then the metadata, sorted by query (row of
        `queries`) and rank (from 0, the nearest; equal similarities by row). A query with fewer than k
        neighbours has fewer rows.

    Raises:
        DataError: The queries don't fit the index, k or nprobe is out of bounds, or a column is unknown.
    """
    if block < 1:
        raise DataError(f"block = {block}, 1 or more was needed")
    queries = index.checked(queries, k, nprobe)
    index.metadata(np.empty(0, dtype=np.int64), columns)  # an unknown column is told before the search
    for start, similarities, rows in _found(index, queries, k, nprobe, block):
        query, rank = np.nonzero(rows >= 0)
        taken = rows[query, rank]
        found = pa.table(
            [
                pa.array(query + start, pa.int32()),
                pa.array(rank, pa.int32()),
                pa.array(taken, pa.int64()),
                pa.array(similarities[query, rank], pa.float32()),
            ],
            schema=RESULTS,
        )
        yield with_metadata(found, index.metadata(taken, columns))


def explain(index: IndexFolder, n_queries: int, k: int, nprobe: int = 0) -> str:
    """How `bulk_query` would answer so many queries, and why, in a line or two.

    Args:
        index: What is searched.
        n_queries: How many queries at once.
        k: Neighbours a query.
        nprobe: Lists searched a query; 0 for the index's own.
    """
    plan, _ = _plan(index, n_queries, nprobe)
    if index.exact_vectors is not None:
        return (
            f"{plan.reason}; {candidates_for(k):,} candidates a query are ranked on the vectors themselves, for"
            f" {_queries_a_pass(candidates_for(k), 1):,} queries in one pass sorted by row"
        )
    if not plan.list_major:
        return plan.reason
    passes = -(-n_queries // _queries_a_pass(k, 1))
    return f"{plan.reason}; {passes:,} pass{'' if passes == 1 else 'es'} for k = {k:,}"


def answers_together(index: IndexFolder, n_queries: int, nprobe: int = 0) -> bool:
    """Whether so many queries would be answered in one pass, over lists or vectors, not block by block."""
    return index.exact_vectors is not None or _plan(index, n_queries, nprobe)[0].list_major


def _plan(index: IndexFolder, n_queries: int, nprobe: int) -> tuple[SearchPlan, ListPass | None]:
    lists = None
    if index.nlist and index.n and index.exact_vectors is None:
        lists = open_list_pass(index.faiss_index(), index.path)
    plan = plan_search(
        index.n,
        index.d,
        index.nlist,
        n_queries,
        nprobe or index.nprobe,
        codes=lists.codes if lists is not None else None,
        disk_bytes=lists.lists.bytes_of(lists.lists.order)
        if lists is not None and lists.lists.on_disk
        else 0,
        memory_bytes=_memory_bytes(),
    )
    return plan, lists


def _memory_bytes() -> int:
    """What this machine has; where the system doesn't tell, none that lists on disk would stay in."""
    if not hasattr(os, "sysconf"):
        return 0
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _queries_a_pass(k: int, block: int) -> int:
    """Whole blocks of queries whose results fit."""
    return max(1, PASS_RESULTS // (k * block)) * block


def _found(
    index: IndexFolder, queries: Vectors, k: int, nprobe: int, block: int
) -> Iterator[tuple[int, npt.NDArray[np.float32], Rows]]:
    """First query, similarities and rows of each block."""
    if index.exact_vectors is not None and index.n:
        yield from _ranked(index, queries, k, nprobe, block)
        return
    plan, lists = _plan(index, len(queries), nprobe)
    if lists is None or not plan.list_major:
        for start in range(0, len(queries), block):
            yield start, *index.search(queries[start : start + block], k, nprobe=nprobe)
        return
    k = min(k, index.n)
    size = _queries_a_pass(k, block)
    for first in range(0, len(queries), size):
        similarities, rows = lists.search(queries[first : first + size], k, nprobe or index.nprobe)
        for start in range(0, len(rows), block):
            inside = slice(start, start + block)
            yield first + start, *in_order(similarities[inside], rows[inside])


def _ranked(
    index: IndexFolder, queries: Vectors, k: int, nprobe: int, block: int
) -> Iterator[tuple[int, npt.NDArray[np.float32], Rows]]:
    """The same where FAISS finds candidates by coarse codes: they are ranked in one pass over the vectors."""
    vectors = index.exact_vectors
    size = _queries_a_pass(min(candidates_for(k), index.n), block)
    for first in range(0, len(queries), size):
        asked = queries[first : first + size]
        starts = range(0, len(asked), block)
        rows = np.concatenate([index.candidates(asked[at : at + block], k, nprobe=nprobe) for at in starts])
        similarities = exact_similarities(asked, rows, vectors)
        for at in starts:
            found, numbers = in_order(similarities[at : at + block], rows[at : at + block])
            yield first + at, found[:, :k], numbers[:, :k]


def with_metadata(found: pa.Table, metadata: pa.Table) -> pa.Table:
    """RESULTS and the same rows' metadata side by side.

    A pool's own column of a name in RESULTS makes way: `similarity` becomes `alt_txt_similarity`, as
    everywhere, and any other is left out.
    """
    names = ["alt_txt_similarity" if name == "similarity" else name for name in metadata.column_names]
    taken = set(found.column_names)
    for name, column in zip(names, metadata.columns, strict=True):
        if name not in taken:
            found = found.append_column(name, column)
            taken.add(name)
    return found
