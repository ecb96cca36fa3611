"""Many queries against one index: arrays in, tables out, in bounded memory.

On an index with inverted lists the queries are answered together, in one pass over the lists
(`index_builder.lists.list_pass`), where that costs less than FAISS's search; otherwise block by block.
"""

import time
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from index_builder.indexing.candidate_ranking import in_order
from index_builder.indexing.index_file import memory_bytes
from index_builder.indexing.index_folder import IndexFolder
from index_builder.lists.best_k import Similarities
from index_builder.lists.exact_ranking import exact_similarities, ranked_together
from index_builder.lists.filtered_search import search_all, search_by_depth
from index_builder.lists.inverted_lists import Numbers
from index_builder.lists.kept_arrays import KeptArrays, search_key
from index_builder.lists.list_pass import GROWN, ListPass, open_list_pass
from index_builder.lists.ordered_threads import mapped_in_order
from index_builder.lists.search_plan import SearchPlan, plan_search
from index_builder.metadata.metadata_rows import Rows
from index_builder.metadata.row_mask import RowMask
from spine.errors import DataError
from spine.progress import SILENT, Progress
from spine.tables import Vectors

BLOCK = 256
"""Queries in a table."""

PASS_RESULTS = 32 * 2**20
"""Results that one pass over the lists may hold, 12 bytes each: 10,000 queries with k = 3,000."""

_TOGETHER = 1_024  # queries of one table's blocks: FAISS's threads wait for each other at the end of each

_CANDIDATES = 2**19  # found at once

_TABLES = 2  # blocks whose metadata is brought while others are used

_KEPT_AFTER_S = 60.0  # of a search for candidates
_KEY = np.array([2])  # of what this version keeps of one, which another one doesn't go on from

RESULTS = pa.schema(
    [
        ("query", pa.int32()),
        ("rank", pa.int32()),
        ("row", pa.int64()),
        ("similarity", pa.float32()),
    ]
)
"""Columns of an answer, before those of the metadata."""

SEARCHED = pa.schema([("query", pa.int32()), ("lists", pa.int32()), ("found", pa.int32())])
"""What was searched for each query: lists gone through (null where the index has none), and neighbours found."""


@dataclass(frozen=True, slots=True)
class Answers:
    """Of a block of queries."""

    neighbours: pa.Table
    """RESULTS and the metadata, sorted by query and rank."""
    searched: pa.Table
    """SEARCHED, a row a query."""


@dataclass(frozen=True, slots=True)
class _Found:
    """Of a block of queries, from the one numbered `start`."""

    start: int
    similarities: Similarities
    """Shape (q, k), highest first; -inf where there are fewer."""
    rows: Rows
    """Shape (q, k); -1 where there are fewer."""
    lists: Numbers | None
    """How many each query went through, shape (q,); None for an index without."""


def bulk_query(
    index: IndexFolder,
    queries: Vectors,
    k: int,
    *,
    nprobe: int = 0,
    columns: Sequence[str] | None = None,
    block: int = BLOCK,
    mask: RowMask | None = None,
    similarity_min: float | None = None,
    progress: Progress = SILENT,
    done: Collection[int] = (),
    keep: Path | None = None,
) -> Iterator[Answers]:
    """The k nearest neighbours of many queries.

    Args:
        index: What is searched.
        queries: Shape (q, d), finite; of L2 norm 1 for similarities of -1 to 1.
        k: Neighbours a query, 1 at least.
        nprobe: Lists searched a query; 0 for the index's own.
        columns: Metadata to bring; None for all, empty for none.
        block: Queries in a table; memory holds k rows of metadata for each, of three tables.
        mask: Rows that may be found, see `index_builder.metadata.predicates`; None for all. A query goes on to
            further lists until there are k such rows, several times over, or no list is left.
        similarity_min: Leave out neighbours below; None for none.
        progress: Told of lists, where one pass answers all.
        done: Numbers of blocks that need no answer. Those that share a pass with others are searched nevertheless: a
            product's last bit depends on what it is multiplied with.
        keep: File for what a long pass has found so far, so that after a stop the same call goes on from there; None
            keeps nothing.

    Yields:
        Answers to each block of queries that isn't done, in order: query is the row of `queries`, rank counts from 0,
        the nearest; equal similarities by row. A query with fewer than k neighbours has fewer rows.

    Raises:
        DataError: The queries don't fit the index, k or nprobe is out of bounds, or a column is unknown.
    """
    if block < 1:
        raise DataError(f"block = {block}, 1 or more was needed")
    queries = index.checked(queries, k, nprobe)
    index.metadata(np.empty(0, dtype=np.int64), columns)  # an unknown column is told before the search
    found = _found(index, queries, k, nprobe, block, mask, progress, frozenset(done), keep)
    needed = (each for each in found if each.start // block not in done)
    answers = partial(_answers, index, columns=columns, similarity_min=similarity_min)
    yield from mapped_in_order(answers, needed, _TABLES, ahead=_TABLES)


def _answers(
    index: IndexFolder, found: _Found, *, columns: Sequence[str] | None, similarity_min: float | None
) -> Answers:
    """Tables of what was found for a block."""
    there = found.rows >= 0
    if similarity_min is not None:
        there &= found.similarities >= similarity_min
    query, rank = np.nonzero(there)
    taken = found.rows[query, rank]
    neighbours = pa.table(
        [
            pa.array(query + found.start, pa.int32()),
            pa.array(rank, pa.int32()),
            pa.array(taken, pa.int64()),
            pa.array(found.similarities[query, rank], pa.float32()),
        ],
        schema=RESULTS,
    )
    q = len(found.rows)
    searched = pa.table(
        [
            pa.array(range(found.start, found.start + q), pa.int32()),
            pa.nulls(q, pa.int32()) if found.lists is None else pa.array(found.lists, pa.int32()),
            pa.array(there.sum(axis=1), pa.int32()),
        ],
        schema=SEARCHED,
    )
    return Answers(with_metadata(neighbours, index.metadata(taken, columns)), searched)


def nearest(
    index: IndexFolder,
    queries: Vectors,
    k: int,
    *,
    nprobe: int = 0,
    columns: Sequence[str] | None = None,
    mask: RowMask | None = None,
) -> pa.Table:
    """`bulk_query` in one table: the k nearest neighbours of all queries."""
    answers = bulk_query(index, queries, k, nprobe=nprobe, columns=columns, block=_TOGETHER, mask=mask)
    none = index.metadata(np.empty(0, dtype=np.int64), columns)
    tables = [answer.neighbours for answer in answers]
    return pa.concat_tables(tables or [with_metadata(RESULTS.empty_table(), none)])


def explain(index: IndexFolder, n_queries: int, k: int, nprobe: int = 0) -> str:
    """How `bulk_query` would answer so many queries, and why, in a line or two.

    Args:
        index: What is searched.
        n_queries: How many queries at once.
        k: Neighbours a query.
        nprobe: Lists searched a query; 0 for the index's own.
    """
    plan, _ = _plan(index, n_queries, k, nprobe)
    if index.exact_vectors is not None:
        depth = index.depth(k)
        ranked = f"{plan.reason}; {depth:,} candidates a query are ranked on the vectors themselves"
        if _in_memory(index.exact_vectors):
            return f"{ranked}, query by query: memory holds them"
        return f"{ranked}, for {_queries_a_pass(depth, 1):,} queries in one pass sorted by row"
    if not plan.list_major:
        return plan.reason
    passes = -(-n_queries // _queries_a_pass(k, 1))
    return f"{plan.reason}; {passes:,} pass{'' if passes == 1 else 'es'} for k = {k:,}"


def answers_together(index: IndexFolder, n_queries: int, k: int, nprobe: int = 0) -> bool:
    """Whether so many queries would be answered in one pass, over lists or vectors, not block by block."""
    return index.exact_vectors is not None or _plan(index, n_queries, k, nprobe)[0].list_major


def _plan(index: IndexFolder, n_queries: int, k: int, nprobe: int) -> tuple[SearchPlan, ListPass | None]:
    lists = None
    if index.nlist and index.n:
        lists = index.kept("list pass", lambda: open_list_pass(index.faiss_index(), index.path))
    if index.on_gpus(k, nprobe):
        # Which is no estimate: no GPU has been measured. A predicate still goes through the lists here.
        return SearchPlan(False, "FAISS's batch search on GPUs: they have a copy of the index"), lists
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
        memory_bytes=memory_bytes(),
        list_size=lists.lists.usual_size if lists is not None else 0,
    )
    return plan, lists


def _in_memory(vectors: Any) -> bool:
    """Whether memory will hold these vectors, once they have been read."""
    return bool(vectors.nbytes <= memory_bytes() // 2)


def _queries_a_pass(k: int, block: int) -> int:
    """Whole blocks of queries whose results fit."""
    return max(1, PASS_RESULTS // (k * block)) * block


def _found(
    index: IndexFolder,
    queries: Vectors,
    k: int,
    nprobe: int,
    block: int,
    mask: RowMask | None,
    progress: Progress,
    done: frozenset[int],
    keep: Path | None,
) -> Iterator[_Found]:
    """What is found, block by block; of a pass all blocks, unless none of them is needed."""
    plan, lists = _plan(index, len(queries), k, nprobe)
    if index.exact_vectors is not None and index.n:
        codes = lists if plan.list_major or mask is not None else None
        yield from _ranked(index, codes, queries, k, nprobe, block, mask, progress, done, keep)
        return
    k = min(k, max(1, index.n))
    size = _queries_a_pass(k, block)
    if lists is not None and (plan.list_major or mask is not None):
        for first in _needed(len(queries), size, block, done):
            some = queries[first : first + size]
            found = lists.search(some, k, nprobe or index.nprobe, mask, progress, keep)
            yield from _in_blocks(first, *found, block)
    elif mask is not None and index.n:
        for first in _needed(len(queries), size, block, done):
            some = queries[first : first + size]
            if index.nlist:
                by_lists = search_by_depth(index, some, k, nprobe or index.nprobe, mask, GROWN * k)
                yield from _in_blocks(first, *by_lists, block)
            else:
                yield from _in_blocks(first, *search_all(index, some, k, mask), None, block)
    else:
        for start in _needed(len(queries), block, block, done):
            some = queries[start : start + block]
            yield _Found(start, *index.search(some, k, nprobe=nprobe), _fixed(index, nprobe, len(some)))


def _needed(q: int, size: int, block: int, done: frozenset[int]) -> Iterator[int]:
    """Where each pass of `size` queries begins that has a block which isn't done."""
    for first in range(0, q, size):
        if not done.issuperset(range(first // block, -(-min(first + size, q) // block))):
            yield first


def _ranked(
    index: IndexFolder,
    codes: ListPass | None,
    queries: Vectors,
    k: int,
    nprobe: int,
    block: int,
    mask: RowMask | None,
    progress: Progress,
    done: frozenset[int],
    keep: Path | None,
) -> Iterator[_Found]:
    """The same of candidates, found in a pass over codes or by FAISS, and ranked in one over the vectors."""
    depth = min(index.depth(k), index.n)
    size = _queries_a_pass(depth, block)
    for first in _needed(len(queries), size, block, done):
        asked = queries[first : first + size]
        lists: Numbers | None
        if codes is not None:
            near, rows, lists = codes.search(
                asked, depth, nprobe or index.nprobe, mask, progress, keep, depth
            )
        elif mask is not None:
            near, rows, lists = search_by_depth(index, asked, depth, nprobe or index.nprobe, mask, depth)
        else:
            near, rows = _candidates(index, asked, k, nprobe, block, keep)
            lists = _fixed(index, nprobe, len(asked))
        if _in_memory(index.exact_vectors):
            ranked = ranked_together(asked, rows, near, index.exact_vectors, min(k, depth))
            yield from _in_blocks(first, *ranked, lists, block)
            continue
        similarities = exact_similarities(asked, rows, index.exact_vectors)
        for found in _in_blocks(first, similarities, rows, lists, block):
            yield _Found(found.start, found.similarities[:, :k], found.rows[:, :k], found.lists)


def _candidates(
    index: IndexFolder, asked: Vectors, k: int, nprobe: int, block: int, keep: Path | None
) -> tuple[Similarities, Rows]:
    """Candidates of each query (q, depth), block by block; kept every _KEPT_AFTER_S, so that a stop costs no more."""
    kept = None
    found: list[tuple[Similarities, Rows]] = []
    # Of many queries those that are alike are searched together.
    block *= max(1, _CANDIDATES // (index.depth(k) * block))
    if keep is not None:
        sizes = np.array([index.depth(k), nprobe or index.nprobe, block, index.n])
        kept = KeptArrays(keep, search_key([_KEY, asked, sizes]))
        before = kept.read()
        found = [(before["similarities"], before["rows"])] if before is not None else []
    written = time.monotonic()
    for start in range(sum(len(rows) for _, rows in found), len(asked), block):
        found.append(index.candidates(asked[start : start + block], k, nprobe=nprobe))
        if kept is not None and time.monotonic() - written > _KEPT_AFTER_S:
            found = [_together(found)]
            kept.write(similarities=found[0][0], rows=found[0][1])
            written = time.monotonic()
    return _together(found)


def _together(found: list[tuple[Similarities, Rows]]) -> tuple[Similarities, Rows]:
    return np.concatenate([near for near, _ in found]), np.concatenate([rows for _, rows in found])


def _in_blocks(
    first: int, similarities: Similarities, rows: Rows, lists: Numbers | None, block: int
) -> Iterator[_Found]:
    """Results of queries from number `first` on, sorted, in blocks."""
    for start in range(0, len(rows), block):
        inside = slice(start, start + block)
        ordered = in_order(similarities[inside], rows[inside])
        yield _Found(first + start, *ordered, None if lists is None else lists[inside])


def _fixed(index: IndexFolder, nprobe: int, q: int) -> Numbers | None:
    return np.full(q, min(nprobe or index.nprobe, index.nlist)) if index.nlist else None


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
