"""The metadata beside an index: row i belongs to vector i.

Ours are Arrow IPC files with one record batch each, memory-mapped: 40 rows of one file take less than 0.1 ms,
and nothing is read before it is asked for. There is one file up to half a million rows: to write it, memory
has to hold it. The files of others are read as they are: Arrow files with any
number of batches are memory-mapped too (40 rows of 4,000 batches take 0.2 ms; `index_builder.metadata.one_batch` puts
them into one), Parquet files are read into memory.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from spine.errors import DataError
from spine.publish import publishing

Rows = npt.NDArray[np.int64]
"""Row numbers of an index, shape (m,)."""


METADATA_ROWS = 2**19
"""Rows of one file of ours: some 300 bytes each as a rule."""

_TOGETHER = 2**16  # rows brought in one piece
_ROWS_A_TAKE = 10  # slices of one row that cost as much as a take from a batch


class MetadataRows:
    """The rows of a metadata folder, by number.

    Attributes:
        n: Rows there are.
        schema: Their columns.
    """

    def __init__(self, batches: Sequence[pa.RecordBatch], schema: pa.Schema) -> None:
        self.schema = schema
        self._has_large_text = any(pa.types.is_large_string(field.type) for field in schema)
        self._batches = [batch for batch in batches if batch.num_rows]
        bounds = np.cumsum([0, *(batch.num_rows for batch in self._batches)], dtype=np.int64)
        self._starts, self._ends = bounds[:-1], bounds[1:]
        self.n = int(bounds[-1])

    @classmethod
    def open(cls, folder: Path) -> "MetadataRows":
        """Open a metadata folder: its *.arrow files, else its *.parquet files, else every file as Arrow.

        Files count in the order of their paths, as clip-retrieval counts them.

        Raises:
            DataError: There are none, one can't be read, or their columns differ.
        """
        arrow, parquet = sorted(folder.rglob("*.arrow")), sorted(folder.glob("*.parquet"))
        if arrow or not parquet:
            paths = arrow or sorted(path for path in folder.rglob("*") if path.is_file())
            tables = [_read(path, _mapped_batches) for path in paths]
        else:
            paths, tables = parquet, [_read(path, _parquet_batches) for path in parquet]
        if not paths:
            raise DataError(
                f"{folder}: no metadata; .arrow or .parquet files with a row a vector were needed"
            )
        schema = tables[0][0]
        for path, (other, _) in zip(paths, tables, strict=True):
            if not other.equals(schema, check_metadata=False):
                raise DataError(
                    f"{path}: columns {_columns(other)}, in {paths[0].name} {_columns(schema)}; they must agree"
                )
        return cls([batch for _, batches in tables for batch in batches], schema)

    def take(self, rows: Rows, columns: Sequence[str] | None = None) -> pa.Table:
        """These rows, in this order.

        Args:
            rows: Shape (m,), each from 0 to n - 1; one may come twice.
            columns: Those wanted, in this order; None for all. Of none the table has no rows either.

        Raises:
            DataError: A row or a column doesn't exist.
        """
        wanted = self._wanted(columns)
        rows = np.asarray(rows, dtype=np.int64)
        if rows.ndim != 1:
            raise DataError(f"rows of shape {rows.shape}, a plain list of row numbers was needed")
        if rows.size and (rows.min() < 0 or rows.max() >= self.n):
            wrong = rows[(rows < 0) | (rows >= self.n)][0]
            raise DataError(f"there is no row {wrong:,}; they go from 0 to {self.n - 1:,}")
        if not rows.size or not wanted.names:
            table = wanted.empty_table()
        elif len(self._batches) == 1:
            batch = self._batches[0] if columns is None else self._batches[0].select(wanted.names)
            table = pa.Table.from_batches([batch.take(pa.array(rows))])
        else:
            table = self._take_from_many(rows, wanted.names)
        return _plain(table) if self._has_large_text else table

    def renamed(self, names: Mapping[str, str]) -> "MetadataRows":
        """The same rows with fewer columns, under other names.

        Args:
            names: New name to column; they come in this order.
        """
        columns, wanted = list(names.values()), self._wanted(list(names.values()))
        schema = pa.schema([field.with_name(name) for name, field in zip(names, wanted, strict=True)])
        batches = [batch.select(columns).rename_columns(list(names)) for batch in self._batches]
        return MetadataRows(batches, schema)

    def blocks(self, columns: Sequence[str], size: int) -> Iterator[pa.Table]:
        """All rows in order, at most `size` at a time, so many wherever there are more.

        Args:
            columns: Those wanted.
            size: Rows a table.

        Raises:
            DataError: A column doesn't exist.
        """
        names = self._wanted(columns).names
        held: list[pa.RecordBatch] = []
        left = size
        for batch in self._batches:
            start = 0
            while start < batch.num_rows:
                piece = batch.slice(start, left)
                held.append(piece.select(names))
                start, left = start + piece.num_rows, left - piece.num_rows
                if not left:
                    yield pa.Table.from_batches(held)
                    held, left = [], size
        if held:
            yield pa.Table.from_batches(held)

    def _wanted(self, columns: Sequence[str] | None) -> pa.Schema:
        if columns is None:
            return self.schema
        unknown = [name for name in columns if name not in self.schema.names]
        if unknown:
            raise DataError(
                f"the metadata has no column {', '.join(unknown)}; there are: {', '.join(self.schema.names)}"
            )
        return pa.schema([self.schema.field(name) for name in columns])

    def _take_from_many(self, rows: Rows, names: list[str]) -> pa.Table:
        """From each batch what is wanted of it, where that is many rows each; else slices of one row."""
        parts = []
        for start in range(0, len(rows), _TOGETHER):
            some = rows[start : start + _TOGETHER]
            numbers = np.searchsorted(self._ends, some, side="right")
            places = some - self._starts[numbers]
            touched = np.unique(numbers)
            if len(touched) * _ROWS_A_TAKE <= len(some):
                parts.append(self._by_batch(numbers, places, touched, names))
            else:
                parts.append(self._row_by_row(numbers, places, names))
        # In one copy; many rows' text may be more than one array holds.
        return (
            pa.Table.from_batches(parts) if len(parts) == 1 else pa.Table.from_batches(parts).combine_chunks()
        )

    def _by_batch(self, numbers: Rows, places: Rows, touched: Rows, names: list[str]) -> pa.RecordBatch:
        order = np.argsort(numbers, kind="stable")
        bounds = np.searchsorted(numbers[order], touched)
        taken = [
            self._batches[number].select(names).take(pa.array(places[inside]))
            for number, inside in zip(touched.tolist(), np.split(order, bounds[1:]), strict=True)
        ]
        if len(taken) == 1:
            return taken[0]
        back = np.empty_like(order)
        back[order] = np.arange(len(order))
        return pa.concat_batches(taken).take(pa.array(back))

    def _row_by_row(self, numbers: Rows, places: Rows, names: list[str]) -> pa.RecordBatch:
        batches = self._batches
        pairs = zip(numbers.tolist(), places.tolist(), strict=True)
        return pa.concat_batches([batches[number].slice(place, 1) for number, place in pairs]).select(names)


def metadata_paths(folder: Path, n: int) -> list[Path]:
    """The files of ours for n rows; order by name is order by number."""
    count = max(1, -(-n // METADATA_ROWS))
    digits = len(str(count - 1))
    return [folder / f"{number:0{digits}d}.arrow" for number in range(count)]


def write_metadata(path: Path, table: pa.Table) -> None:
    """Publish `table` as an Arrow IPC file with exactly one record batch.

    A text column of 2 GiB and more is stored with 64-bit offsets: one batch can't hold it otherwise.
    """
    fields = [
        pa.field(field.name, pa.large_string())
        if pa.types.is_string(field.type) and table.column(field.name).nbytes >= 2**31 - 1
        else field
        for field in table.schema
    ]
    schema = pa.schema(fields)
    arrays = [
        _one_array(column.cast(field.type)) for column, field in zip(table.columns, schema, strict=True)
    ]
    batch = pa.RecordBatch.from_arrays(arrays, schema=schema)
    with publishing(path) as temporary, pa.ipc.new_file(temporary, schema) as writer:
        writer.write_batch(batch)


def _one_array(column: pa.ChunkedArray) -> pa.Array:
    if column.num_chunks == 0:
        return pa.array([], type=column.type)
    return column.chunk(0) if column.num_chunks == 1 else pa.concat_arrays(column.chunks)


def _plain(table: pa.Table) -> pa.Table:
    """Text with 32-bit offsets, however it is stored: a few rows never need more."""
    for i, field in enumerate(table.schema):
        if pa.types.is_large_string(field.type):
            table = table.set_column(i, pa.field(field.name, pa.string()), table.column(i).cast(pa.string()))
    return table


def _columns(schema: pa.Schema) -> str:
    return ", ".join(f"{field.name} ({field.type})" for field in schema)


_Batches = tuple[pa.Schema, list[pa.RecordBatch]]


def _read(path: Path, read: Callable[[Path], _Batches]) -> _Batches:
    try:
        return read(path)
    except (OSError, pa.ArrowInvalid) as error:
        raise DataError(f"{path}: can't be read as metadata ({error})") from None


def _mapped_batches(path: Path) -> _Batches:
    reader = pa.ipc.open_file(pa.memory_map(str(path)))
    return reader.schema, [reader.get_batch(i) for i in range(reader.num_record_batches)]


def _parquet_batches(path: Path) -> _Batches:
    table = pq.read_table(path)
    return table.schema, table.to_batches()
