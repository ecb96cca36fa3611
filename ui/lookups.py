"""Rows of large tables by picture id, and pictures by the hash of their bytes."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

ORDER = pa.schema([("key", pa.int64()), ("place", pa.int64())])
"""Keys in ascending order, each with its row; of equal ones in the rows' order."""

_SHA256 = "^[0-9a-f]{64}$"
_KEY_DIGITS = 8

Ints = npt.NDArray[np.int64]
KeepOrder = Callable[[Callable[[], pa.Table]], pa.Table]
"""Has an order made, or knows it from before."""


def _make(order: Callable[[], pa.Table]) -> pa.Table:
    return order()


class ById:
    """A table whose rows are looked up by picture id."""

    def __init__(self, table: pa.Table, keep: KeepOrder = _make) -> None:
        """Args: table: With an id; of several rows with one id the last counts. keep: Of its order of ids."""
        self.table = table
        order = keep(lambda: _order(_numbers(table.column("id"))))
        self.ids, self._places = _numbers(order.column("key")), _numbers(order.column("place"))
        self._batches = table.to_batches()
        self._starts = np.cumsum([0, *(batch.num_rows for batch in self._batches)])

    def rows(self, wanted: Ints) -> pa.Table:
        """The rows of these ids, in their order; a row of nulls where there is none."""
        if not len(self.ids) or not len(wanted):
            return self.table.schema.empty_table().take(pa.nulls(len(wanted), pa.int64()))
        return self._at(self.places(wanted))

    def places(self, wanted: Ints) -> Ints:
        """The row of each of these ids in the table, -1 where there is none."""
        if not len(self.ids):
            return np.full(len(wanted), -1, np.int64)
        found = np.maximum(np.searchsorted(self.ids, wanted, side="right") - 1, 0)
        return np.where(self.ids[found] == wanted, self._places[found], -1)

    def _at(self, places: Ints) -> pa.Table:
        # Batch by batch: taken from a table of several, Arrow first copies all of its texts into one.
        batch_of = np.searchsorted(self._starts, places, side="right") - 1  # -1 for those that are missing
        pieces, order = [], np.empty(len(places), np.int64)
        taken = 0
        for number in np.unique(batch_of).tolist():
            here = np.flatnonzero(batch_of == number)
            order[here] = taken + np.arange(len(here))
            taken += len(here)
            if number < 0:
                batch, local = self._batches[0].slice(0, 0), pa.nulls(len(here), pa.int64())
            else:
                batch, local = self._batches[number], pa.array(places[here] - self._starts[number])
            pieces.append(batch.take(local))
        return pa.Table.from_batches(pieces).combine_chunks().take(pa.array(order))


@dataclass(frozen=True, slots=True)
class Picture:
    """Where a picture's bytes are, and what block lists know it by."""

    picture_id: int
    sha256: str
    place: str
    url: str | None
    md5: str | None = None
    pdq: str | None = None


class Pictures:
    """Pictures by the SHA-256 of their bytes."""

    def __init__(self, table: pa.Table, keep: KeepOrder = _make) -> None:
        """Args: table: Rows with id, sha256, image_path, url and maybe md5 and pdq. keep: Of its order of hashes."""
        self._table = table
        order = keep(lambda: _order_of_hashes(table))
        self._keys, self._places = _numbers(order.column("key")), _numbers(order.column("place"))

    def find(self, sha256: str) -> Picture | None:
        """The picture with this hash, None where the run has none whose place is known."""
        key = int(_keys(pa.array([sha256]))[0])
        for found in range(int(np.searchsorted(self._keys, key)), len(self._keys)):
            if self._keys[found] != key:
                break
            row = self._table.slice(int(self._places[found]), 1).to_pylist()[0]
            if row["sha256"] == sha256:
                return Picture(
                    row["id"], sha256, row["image_path"], row["url"], row.get("md5"), row.get("pdq")
                )
        return None


def _order_of_hashes(table: pa.Table) -> pa.Table:
    keys, places, first = [np.empty(0, np.int64)], [np.empty(0, np.int64)], 0
    for batch in table.select(["sha256", "image_path"]).to_batches():
        hashes = batch.column(0)
        usable = pc.and_(pc.match_substring_regex(hashes, _SHA256), batch.column(1).is_valid())
        at = pc.indices_nonzero(usable)
        keys.append(_keys(hashes.take(at)))
        places.append(first + at.to_numpy().astype(np.int64))
        first += batch.num_rows
    return _order(np.concatenate(keys), np.concatenate(places))


def _keys(hashes: pa.Array) -> Ints:
    """A number of each hash: its first digits as they are written, eight bytes."""
    texts = pc.utf8_slice_codeunits(hashes, 0, _KEY_DIGITS)
    return np.frombuffer(texts.buffers()[2], np.dtype(">i8"), len(texts)).astype(np.int64)


def _order(keys: Ints, places: Ints | None = None) -> pa.Table:
    order = np.argsort(keys, kind="stable")
    return pa.table([keys[order], order if places is None else places[order]], schema=ORDER)


def _numbers(column: pa.ChunkedArray) -> Ints:
    """A column as NumPy has it; a mapped one of one batch stays on the disk."""
    if column.num_chunks == 1:
        return np.asarray(column.chunk(0).to_numpy(), dtype=np.int64)
    return np.asarray(column.to_numpy(), dtype=np.int64)
