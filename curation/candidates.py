"""Candidates: the neighbours within the depth that fetch went to. Fetch, select and refill all read them here."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from curation.verdicts import Verdicts
from spine.errors import DataError
from spine.manifest import Manifest, read_manifest
from spine.run import Run, part_paths
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
    found: pa.Table | None = None
    """Rows of spine.tables.NEIGHBOURS beside them: pictures that a search found and people keep."""

    @classmethod
    def of(cls, run: Run, images: Manifest) -> "Reach":
        """What fetch brought in."""
        return cls(
            [int(depth) for depth in images.parameters["depths"]],
            [int(number) for number in images.parameters.get("kept", ())],
            read_table(run.found_table, NEIGHBOURS) if "found" in images.parameters else None,
        )

    def standing(self, verdicts: Verdicts) -> "Reach":
        """The same without what was found and is kept no more."""
        if self.found is None:
            return self
        kept = pa.array([picture for picture, _ in verdicts.found()], pa.int64())
        return replace(self, found=self.found.filter(pc.is_in(self.found["id"], value_set=kept)))


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
    if reach is not None and reach.found is not None and reach.found.num_rows:
        table = pa.concat_tables([table, reach.found.select(names)])
        table = table.sort_by([("centroid_id", "ascending"), ("rank", "ascending")])
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
    return Reach.of(run, read_manifest(run.images))


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
