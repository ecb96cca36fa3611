"""Embeddings that exist already, published as if their pictures had been embedded here: no picture is opened.

Same columns, same ids where address and text are the same, same statuses. What is of L2 norm 1 stays as it is,
to the last bit of its float16, since LAION's NSFW detector looks values up exactly; other rows are scaled.
"""

import itertools
from collections import Counter
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from index_builder.metadata.foreign_columns import as_new_metadata
from index_builder.sources.known_ids import KnownIds
from index_builder.sources.statuses import complete_shards, embedded_ids
from index_builder.sources.vector_files import VectorFiles, blocks_of
from spine.progress import Progress
from spine.publish import publish_table
from spine.run import part_path
from spine.shards import write_shard
from spine.tables import STATUSES, Vectors

SHARD_ROWS = 32_768
"""Vectors a shard at most; a new file begins a new shard."""

_UNIT_WITHIN = 2e-3
"""How far the norm of a unit vector may be from 1 once its values are rounded to float16."""


def take_embeddings(folder: Path, found: VectorFiles, progress: Progress) -> None:
    """Publish given embeddings as shards with statuses, going on where an earlier start was stopped.

    A row of zeros or of values that are no numbers fails as bad_embedding, a row that nothing names as missing.

    Args:
        folder: The collection's folder.
        found: The files.
        progress: Told of rows.

    Raises:
        DataError: A file is damaged.
    """
    shards = [(file, block) for file in found.files for block in range(blocks_of(file.rows, SHARD_ROWS))]
    sizes = [min(SHARD_ROWS, file.rows - block * SHARD_ROWS) for file, block in shards]
    done = complete_shards(folder, sizes)
    seen = embedded_ids(folder / "statuses")
    progress.begin(f"embed {folder.name}", found.rows, "embeddings", sum(sizes[:done]))
    for file, group in itertools.groupby(enumerate(shards[done:], done), key=lambda each: each[1][0]):
        numbers = [(number, block) for number, (_, block) in group]
        blocks = file.blocks(SHARD_ROWS, first=numbers[0][1])
        for (number, block), (vectors, table) in zip(numbers, blocks, strict=True):
            named = f"{file.vectors}::{{}}"
            first = block * SHARD_ROWS
            names = pa.array([named.format(row) for row in range(first, first + len(vectors))])
            failures = _publish(folder, number, vectors, as_new_metadata(table), names, seen)
            progress.advance(len(vectors), dict(failures))


def _publish(
    folder: Path, number: int, vectors: Vectors, rows: pa.Table, names: pa.Array, seen: KnownIds
) -> Counter[str]:
    """One shard: its vectors and metadata where there are any, its statuses last; gives the failures."""
    unit, good = unit_where_needed(vectors)
    ids = rows.column("id")
    named = ids.is_valid().to_numpy()
    usable = np.flatnonzero(good & named)
    numbers = ids.take(pa.array(usable)).to_numpy()
    fresh = seen.first_of_each(numbers)
    embedded = usable[fresh]
    if len(embedded):
        write_shard(folder, number, unit[embedded], rows.take(pa.array(embedded)).combine_chunks())
    status = np.full(len(vectors), "failed", dtype=object)
    status[usable], status[embedded] = "duplicate", "embedded"
    failed = pa.array(status == "failed")
    reason = np.where(named, "bad_embedding", "missing")
    message = np.where(
        named, "the vector is of zeros, or of values that are no numbers", "no address, hash or path names it"
    )
    null = pa.scalar(None, pa.string())
    table = pa.table(
        {
            "input": pc.coalesce(rows.column("url"), rows.column("image_path"), names),
            "status": pa.array(status, pa.string()),
            "reason": pc.if_else(failed, pa.array(reason), null),
            "id": pc.if_else(failed, pa.scalar(None, pa.int64()), ids),
            "message": pc.if_else(failed, pc.binary_join_element_wise(names, pa.array(message), ": "), null),
        },
        schema=STATUSES,
    )
    publish_table(part_path(folder / "statuses", number), table)
    seen.extend(numbers[fresh])
    return Counter(reason[status == "failed"].tolist())


def unit_where_needed(vectors: Vectors) -> tuple[Vectors, npt.NDArray[np.bool_]]:
    """Vectors of L2 norm 1, and which of them are vectors at all.

    Args:
        vectors: Shape (n, d), as stored.

    Returns:
        Shape (n, d): rows whose norm was 1 within rounding to float16 are unchanged, others are divided by it;
        and shape (n,): False for rows of zeros, or with values that are no finite numbers.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        norms = np.sqrt(np.einsum("ij,ij->i", vectors, vectors, dtype=np.float64))
        good = np.isfinite(norms) & (norms > 1e-6)
        other = good & (np.abs(norms - 1) > _UNIT_WITHIN)
    unit = vectors
    if other.any():
        unit = vectors.copy()
        unit[other] = (vectors[other] / norms[other, None]).astype(np.float32)
    return unit, good
