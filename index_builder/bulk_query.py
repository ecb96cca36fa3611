"""Many queries against one index: arrays in, tables out, block by block in bounded memory."""

from collections.abc import Iterator, Sequence

import numpy as np
import pyarrow as pa

from index_builder.index_folder import IndexFolder
from spine.errors import DataError
from spine.tables import Vectors

BLOCK = 256
"""Queries searched at once."""

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
        block: Queries searched at once; memory holds k rows of metadata for each.

    Yields:
        For each block of queries in order, RESULTS and then the metadata, sorted by query (row of
        `queries`) and rank (from 0, the nearest). A query with fewer than k neighbours has fewer rows.

    Raises:
        DataError: The queries don't fit the index, k or nprobe is out of bounds, or a column is unknown.
    """
    if block < 1:
        raise DataError(f"block = {block}, 1 or more was needed")
    for start in range(0, len(queries), block):
        similarities, rows = index.search(queries[start : start + block], k, nprobe=nprobe)
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
