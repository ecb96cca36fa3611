"""Tables of a run read from their files, checked against their columns."""

from collections.abc import Callable, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from spine.errors import DataError
from spine.manifest import MANIFEST
from spine.run import part_paths, written_by

_ANEW = "take damage away with `popfactory verify RUN --remove-damaged`, then run the stage again"
_ADDED = frozenset(
    [
        "violence",
        "violence_model",
        "small_path",
        "opt_out",
        "md5",
        "pdq",
        "take",
        "clean_caption",
        "prompt_tokens",
        "truncated",
        "repetition",
        "speculation",
        "interpretation",
        "refusal",
        "language",
        "retried_for",
        "other_raw_caption",
        "captioner",
    ]
)
"""Columns that came later: in a table from before they are null throughout."""


def read_parts(folder: Path, schema: pa.Schema, columns: Sequence[str] | None = None) -> pa.Table:
    """Read a table kept in parts.

    Args:
        folder: Holds part-*.parquet; none gives an empty table.
        schema: What the parts must have.
        columns: Those to read, in this order; None for all of the schema.

    Raises:
        DataError: A part is damaged, or lacks a column.
    """
    wanted = list(columns) if columns is not None else schema.names
    narrowed = pa.schema([schema.field(name) for name in wanted])
    tables = [read_table(path, narrowed) for path in part_paths(folder)]
    return pa.concat_tables(tables) if tables else narrowed.empty_table()


def read_table(path: Path, schema: pa.Schema) -> pa.Table:
    """Read one Parquet file with these columns, checking its page checksums.

    Raises:
        DataError: The file is missing, damaged, or lacks a column or has another type in it.
    """

    def read(file: pq.ParquetFile) -> pa.Table:
        present = set(file.schema_arrow.names)
        return file.read(columns=[name for name in schema.names if name in present])

    return _read(path, schema, read)


def find_rows(paths: Sequence[Path], schema: pa.Schema, picture_id: int) -> pa.Table:
    """The rows of one picture in the parts of a table, found by their ids alone.

    Args:
        paths: The parts.
        schema: What is read of them; with an id.
        picture_id: Whose.

    Raises:
        DataError: As read_table.
    """

    def read(file: pq.ParquetFile) -> pa.Table:
        present = set(file.schema_arrow.names)
        columns = [name for name in schema.names if name in present]
        found = [file.schema_arrow.empty_table().select(columns)]
        for group in range(file.num_row_groups):
            ids = file.read_row_group(group, columns=["id"]).column("id")
            at = pc.indices_nonzero(pc.equal(ids, picture_id))
            if len(at):
                found.append(file.read_row_group(group, columns=columns).take(at))
        return pa.concat_tables(found)

    return pa.concat_tables([schema.empty_table(), *(_read(path, schema, read) for path in paths)])


def _read(path: Path, schema: pa.Schema, read: Callable[[pq.ParquetFile], pa.Table]) -> pa.Table:
    """What `read` takes of a file, with the columns of `schema`."""
    try:
        # Not pq.read_table: that refuses a column it doesn't find before we can say anything of it.
        with pq.ParquetFile(path, page_checksum_verification=True) as file:
            table = read(file)
        for name in _ADDED.intersection(schema.names).difference(table.column_names):
            table = table.append_column(name, pa.nulls(table.num_rows, schema.field(name).type))
    except FileNotFoundError:
        finished = (path.parent / MANIFEST).is_file()
        raise DataError(f"{path}: missing; {_ANEW if finished else written_by(path)}") from None
    except (pa.ArrowInvalid, OSError) as error:
        raise DataError(f"{path}: can't be read ({_first_line(error)}); {_ANEW}") from None
    missing = [name for name in schema.names if name not in table.column_names]
    if missing:
        raise DataError(f"{path}: no column {', '.join(missing)}; found {', '.join(table.column_names)}")
    try:
        return table.select(schema.names).cast(schema)
    except (pa.ArrowInvalid, ValueError) as error:
        raise DataError(f"{path}: its columns are not what they should be ({_first_line(error)})") from None


def _first_line(error: Exception) -> str:
    """What Arrow says first: dumps of bytes may follow."""
    return (str(error).splitlines() or [type(error).__name__])[0]
