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
from spine.table_files import read_table
from spine.tables import NEIGHBOURS

Ints = npt.NDArray[np.int64]

_KEYS = ("centroid_id", "rank", "id", "similarity")


@dataclass(frozen=True, slots=True)
class Reach:
    """Which neighbours are candidates: those within depth, and what people keep beyond it."""

    depths: Sequence[int]
    """For each centroid id how many of its neighbours count."""
    kept: Sequence[int] = ()
    """Ids of pictures that count wherever they stand."""

    @classmethod
    def of(cls, images: Manifest) -> "Reach":
        """What fetch brought in."""
        return cls(
            [int(depth) for depth in images.parameters["depths"]],
            [int(number) for number in images.parameters.get("kept", ())],
        )


def read_candidates(run: Run, reach: Reach | None = None, columns: Sequence[str] = _KEYS) -> pa.Table:
    """The neighbours within reach, sorted by centroid and rank.

    Args:
        run: With finished neighbours.
        reach: None for all there are.
        columns: Of spine.tables.NEIGHBOURS; centroid_id and rank come in any case.
    """
    names = list(dict.fromkeys(("centroid_id", "rank", *columns)))
    schema = pa.schema([NEIGHBOURS.field(name) for name in [*names, *({"id"} - set(names))]])
    limits = None if reach is None else np.asarray(reach.depths, dtype=np.int64)
    parts = []
    for path in part_paths(run.neighbours):
        part = read_table(path, schema)
        if reach is not None and limits is not None and part.num_rows:
            inside = _within(part, limits)
            if reach.kept:
                inside |= np.isin(column(part, "id"), np.asarray(reach.kept, dtype=np.int64))
            part = part.filter(pa.array(inside))
        parts.append(part.select(names))
    table = pa.concat_tables(parts) if parts else schema.empty_table().select(names)
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


def fetched_reach(run: Run) -> Reach:
    """The reach of the finished images.

    Raises:
        DataError: Fetch isn't finished.
    """
    return Reach.of(read_manifest(run.images))


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


def counted(values: pa.ChunkedArray) -> dict[str, int]:
    """How often each value stands there, nulls aside."""
    pairs = values.drop_null().value_counts().to_pylist()
    return {pair["values"]: pair["counts"] for pair in pairs}
