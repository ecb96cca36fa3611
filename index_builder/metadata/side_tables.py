"""What other tables say of the pictures found, joined by LAION's 64-bit hash: so filters work before a download.

LAION published punsafe, pwatermark, the aesthetic score and sizes apart from its addresses, as Parquet by `hash`
and as sorted records without a header (an int64 key, then one or two float16). Tables are read once from one end
to the other, a bounded number of rows at a time; only the pictures found stay in memory, about 30 bytes each.

Sources: rom1504/laion-prepro, laion5B/aesthetic/aesthetic_ondisk_kv.py and laion5B/usage_guide;
rom1504/static-ondisk-kv, build.py.
"""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from index_builder.metadata.foreign_columns import column_of
from spine.errors import DataError
from spine.ids import laion_id
from spine.places import PARQUET_ERRORS
from spine.tables import METADATA

COLUMNS = ("width", "height", "aesthetic", "pwatermark", "punsafe")
"""What a side table may tell."""

SIDE_VALUES = pa.schema([METADATA.field(name) for name in ("id", *COLUMNS)])
"""What was found for each picture: one row an id, in order."""

_RECORDS = {
    "watermark-safety": ("pwatermark", "punsafe"),
    "aesthetic": ("aesthetic",),
}
"""Part of the name of a file of records to the columns of its values."""

_ROWS = 262_144  # read at a time

Ids = npt.NDArray[np.int64]
Values = dict[str, npt.NDArray[np.float64]]


@dataclass(frozen=True, slots=True)
class SideTable:
    """One file, and which of our columns it has."""

    path: Path
    columns: dict[str, str]
    """Ours to its own name."""
    key: tuple[str, ...]
    """Its hash, or address and text; empty for records."""


def side_tables(named: Sequence[str]) -> list[SideTable]:
    """The files behind [pool] side_tables, folders looked through; see that each can be joined.

    Raises:
        DataError: One isn't there, or has nothing to join by or to tell.
    """
    return [_described(path) for name in named for path in _files(Path(name).expanduser())]


def digest_of(tables: Sequence[SideTable]) -> str:
    """SHA-256 over names, sizes and times of change."""
    lines = []
    for table in tables:
        state = table.path.stat()
        lines.append(f"{table.path.absolute()} {state.st_size} {state.st_mtime_ns}")
    return hashlib.sha256("\n".join(lines).encode("utf-8", "surrogateescape")).hexdigest()


def read_side_values(tables: Sequence[SideTable], ids: Ids) -> pa.Table:
    """Look pictures up in side tables. What an earlier table says stays; a later one fills what it left open.

    Args:
        tables: In order.
        ids: Different ids, sorted.

    Returns:
        SIDE_VALUES, one row an id; null where no table has a value.

    Raises:
        DataError: A table is damaged.
    """
    found: Values = {name: np.full(len(ids), np.nan) for name in COLUMNS}
    for table in tables:
        try:
            for keys, values in _blocks(table):
                _match(ids, found, keys, values)
        except PARQUET_ERRORS as error:
            said = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise DataError(f"{table.path}: can't be read ({said}); get the table again") from None
    columns = {name: pa.array(values, from_pandas=True) for name, values in found.items()}
    for name in ("width", "height"):
        columns[name] = pc.round(columns[name])
    return pa.table({"id": ids} | columns).cast(SIDE_VALUES)


def filled(table: pa.Table, side: pa.Table | None) -> pa.Table:
    """A table with `id` and some of COLUMNS, its nulls filled from SIDE_VALUES that hold each of its ids, if any."""
    if side is None:
        return table
    rows = pa.array(np.searchsorted(side.column("id").to_numpy(), table.column("id").to_numpy()))
    for name in COLUMNS:
        if name in table.column_names:
            own = table.column(name)
            value = pc.coalesce(own, side.column(name).take(rows).cast(own.type))
            table = table.set_column(table.column_names.index(name), name, value)
    return table


def told(side: pa.Table) -> dict[str, int]:
    """How many pictures were looked up, how many any table has, and for each column how many."""
    counts = {name: side.num_rows - side.column(name).null_count for name in COLUMNS}
    some = np.zeros(side.num_rows, dtype=bool)
    for name in COLUMNS:
        some |= side.column(name).is_valid().to_numpy()
    return {"pictures": side.num_rows, "matched": int(some.sum())} | counts


def _files(path: Path) -> list[Path]:
    if path.is_dir():
        found = sorted(path.rglob("*.parquet"))
        if not found:
            raise DataError(f"{path}: no .parquet in it; [pool] side_tables names it")
        return found
    if not path.is_file():
        raise DataError(f"{path}: no such file or folder; [pool] side_tables names it")
    return [path]


def _described(path: Path) -> SideTable:
    if path.suffix != ".parquet":
        return _described_records(path)
    try:
        schema = pq.read_schema(path)
    except PARQUET_ERRORS as error:
        raise DataError(
            f"{path}: can't be read ({str(error).splitlines()[0]}); get the table again"
        ) from None
    columns = {ours: theirs for ours in COLUMNS if (theirs := column_of(schema.names, ours))}
    by_hash = [name for name in schema.names if name.lower() == "hash"]
    key = tuple(by_hash) or tuple(
        name for ours in ("url", "caption") if (name := column_of(schema.names, ours)) is not None
    )
    held = ", ".join(schema.names[:20])
    if not key or (not by_hash and key[0] != column_of(schema.names, "url")):
        raise DataError(f"{path}: neither a hash nor an address to join by; it has {held}")
    if by_hash and not pa.types.is_integer(schema.field(by_hash[0]).type):
        raise DataError(
            f"{path}: its hash is {schema.field(by_hash[0]).type}, LAION's 64-bit number was needed; it has {held}"
        )
    if not columns:
        raise DataError(f"{path}: none of {', '.join(COLUMNS)} in it; it has {held}")
    return SideTable(path, columns, key)


def _described_records(path: Path) -> SideTable:
    for part, names in _RECORDS.items():
        if part in path.name:
            size, record = path.stat().st_size, _record(names).itemsize
            if size % record:
                raise DataError(
                    f"{path}: {size:,} bytes are not records of {record} for {', '.join(names)}; get it again"
                )
            return SideTable(path, {name: name for name in names}, ())
    raise DataError(
        f"{path}: neither .parquet nor LAION's sorted records, whose names hold {' or '.join(_RECORDS)}"
    )


def _record(names: Sequence[str]) -> np.dtype[np.void]:
    return np.dtype([("key", "<i8"), *((name, "<f2") for name in names)])


def _blocks(table: SideTable) -> Iterator[tuple[Ids, Values]]:
    if not table.key:
        kind = _record(list(table.columns))
        with table.path.open("rb") as file:
            while content := file.read(_ROWS * kind.itemsize):
                records = np.frombuffer(content, dtype=kind)
                yield records["key"], {name: records[name].astype(np.float64) for name in table.columns}
        return
    with pq.ParquetFile(table.path, page_checksum_verification=True) as parquet:
        wanted = [*table.key, *table.columns.values()]
        for batch in parquet.iter_batches(batch_size=_ROWS, columns=wanted):
            values = {
                ours: batch.column(theirs).cast(pa.float64()).to_numpy(zero_copy_only=False)
                for ours, theirs in table.columns.items()
            }
            keys, there = _keys([batch.column(name) for name in table.key])
            yield keys, {name: np.where(there, column, np.nan) for name, column in values.items()}


def _keys(columns: list[pa.Array]) -> tuple[Ids, npt.NDArray[np.bool_]]:
    """Keys, and which rows have one."""
    there = columns[0].is_valid().to_numpy(zero_copy_only=False)
    if pa.types.is_integer(columns[0].type):
        return columns[0].cast(pa.int64()).fill_null(0).to_numpy(), there
    texts = columns[1].to_pylist() if len(columns) > 1 else [None] * len(columns[0])
    keys = [
        0 if url is None else laion_id(url, text)
        for url, text in zip(columns[0].to_pylist(), texts, strict=True)
    ]
    return np.array(keys, dtype=np.int64), there


def _match(ids: Ids, found: Values, keys: Ids, values: Values) -> None:
    """Write the values of known keys into `found` where nothing is yet; of repeats the first counts."""
    if not len(ids):
        return
    places = np.minimum(np.searchsorted(ids, keys), len(ids) - 1)
    hits = np.flatnonzero(ids[places] == keys)[::-1]  # NumPy keeps the last of repeated places
    for name, column in values.items():
        column = np.where(np.isfinite(column), column, np.nan)
        new = hits[~np.isnan(column[hits]) & np.isnan(found[name][places[hits]])]
        found[name][places[new]] = column[new]
