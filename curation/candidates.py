"""Candidates: the neighbours within the depth that fetch went to. Fetch, select and refill all read them here."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from spine.errors import DataError
from spine.run import Run, part_paths
from spine.stage import Manifest, read_manifest
from spine.tables import NEIGHBOURS, read_table

Ints = npt.NDArray[np.int64]

_KEYS = ("centroid_id", "rank", "id", "similarity")


def read_candidates(
    run: Run, depths: Sequence[int] | None = None, columns: Sequence[str] = _KEYS
) -> pa.Table:
    """The neighbours within depth, sorted by centroid and rank.

    Args:
        run: With finished neighbours.
        depths: For each centroid id how many of its neighbours count; None for all there are.
        columns: Of spine.tables.NEIGHBOURS; centroid_id and rank come in any case.
    """
    names = list(dict.fromkeys(("centroid_id", "rank", *columns)))
    schema = pa.schema([NEIGHBOURS.field(name) for name in names])
    limits = None if depths is None else np.asarray(depths, dtype=np.int64)
    parts = []
    for path in part_paths(run.neighbours):
        part = read_table(path, schema)
        if limits is not None and part.num_rows:
            part = part.filter(pa.array(_within(part, limits)))
        parts.append(part)
    table = pa.concat_tables(parts) if parts else schema.empty_table()
    centroid, rank = column(table, "centroid_id"), column(table, "rank")
    if np.any(np.diff(centroid) < 0) or np.any((np.diff(centroid) == 0) & (np.diff(rank) <= 0)):
        raise DataError(
            f"{run.neighbours}: not sorted by centroid and rank; run `popfactory retrieve` again with --force"
        )
    return table


def _within(part: pa.Table, limits: Ints) -> npt.NDArray[np.bool_]:
    centroid = column(part, "centroid_id")
    known = centroid < len(limits)
    depth = np.zeros(len(centroid), dtype=np.int64)
    depth[known] = limits[centroid[known]]
    return column(part, "rank") < depth


def column(table: pa.Table, name: str) -> Ints:
    """A column of whole numbers without nulls, shape (n,), int64."""
    return np.asarray(table.column(name).to_numpy(), dtype=np.int64)


def available(neighbours: pa.Table) -> Ints:
    """How many neighbours each centroid id has, shape (largest centroid id + 1,)."""
    return np.bincount(column(neighbours, "centroid_id")).astype(np.int64)


def depths_of(images: Manifest) -> list[int]:
    """The depths that fetch went to."""
    return [int(depth) for depth in images.parameters["depths"]]


def fetched_depths(run: Run) -> list[int]:
    """The depths of the finished images.

    Raises:
        DataError: Fetch isn't finished.
    """
    return depths_of(read_manifest(run.images))


@dataclass(frozen=True, slots=True)
class Pictures:
    """The distinct pictures among candidates."""

    ids: Ints
    """Shape (m,), ascending."""
    of_row: Ints
    """For each candidate its place in `ids`, shape (n,)."""
    first_row: Ints
    """For each picture the first candidate it is in, shape (m,)."""


def distinct(table: pa.Table) -> Pictures:
    """The distinct pictures of candidates."""
    ids, first, inverse = np.unique(column(table, "id"), return_index=True, return_inverse=True)
    return Pictures(ids, inverse.astype(np.int64), first.astype(np.int64))


def rows_of(table: pa.Table, ids: Ints) -> pa.Table:
    """For each id the row of `table` that has it, all null where none has.

    Args:
        table: With a column id, each once.
        ids: Shape (m,).
    """
    wanted = pc.index_in(pa.array(ids), value_set=table.column("id").combine_chunks())
    return table.take(wanted)
