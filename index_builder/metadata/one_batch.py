"""An index folder's metadata written once more as one record batch, for files that came as thousands of them.

A row of LAION-5B's files is looked for in its own record batch: 40 rows are 40 slices. In one batch they are one call.
Memory holds a piece at a time, however large the metadata: each column goes to files of its own, which the batch is
put together from.
"""

import contextlib
import json
import logging
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from index_builder.metadata.metadata_rows import MetadataRows
from spine.errors import DataError
from spine.publish import publish_json, publishing

ONE_BATCH_FOLDER = "metadata-one-batch"
"""Beside metadata/: the same rows in one record batch, and what they were made from."""

_BATCH_FILE, _SOURCE_FILE = "0.arrow", "source.json"
_COLUMNS = ".columns-"
_SHORT = 2**31 - 1  # bytes of text from which 32 bits don't tell places any more
_ROWS = 65_536  # held in memory at once

_log = logging.getLogger("popfactory.index")


def write_one_batch(metadata: Path) -> Path:
    """Write metadata/ as one record batch beside it; `open_metadata` reads that from then on.

    A column of texts of 2 GiB and more gets 64-bit offsets. Needs the size of metadata/ on disk twice while it works,
    once afterwards. Killed, it leaves what was there before: metadata/ counts.

    Args:
        metadata: An index folder's metadata/.

    Returns:
        The file.

    Raises:
        DataError: The metadata can't be read, or has a column that is neither text nor numbers.
    """
    rows, source = MetadataRows.open(metadata), _source(metadata)
    wrong = [f"{field.name} ({field.type})" for field in rows.schema if not _is_simple(field.type)]
    if wrong:
        raise DataError(
            f"{metadata}: {', '.join(wrong)}: columns of texts and numbers alone can be put together"
        )
    folder = metadata.with_name(ONE_BATCH_FOLDER)
    folder.mkdir(exist_ok=True)
    path = folder / _BATCH_FILE
    (folder / _SOURCE_FILE).unlink(missing_ok=True)  # what is there is not known until it is whole again
    for left in folder.glob(f"{_COLUMNS}*"):  # of one that was killed
        shutil.rmtree(left)
    with tempfile.TemporaryDirectory(prefix=_COLUMNS, dir=folder) as temporary:
        columns = [_Column(Path(temporary) / str(number), field) for number, field in enumerate(rows.schema)]
        with contextlib.ExitStack() as stack:
            files = [stack.enter_context(column.writing()) for column in columns]
            for table in rows.blocks(rows.schema.names, _ROWS):
                for column, writing, piece in zip(columns, files, table.columns, strict=True):
                    column.add(writing, piece.combine_chunks())
        arrays = [column.read(rows.n) for column in columns]
        batch = pa.RecordBatch.from_arrays(arrays, names=rows.schema.names)
        with publishing(path) as part, pa.ipc.new_file(part, batch.schema) as writer:
            writer.write_batch(batch)
        del arrays, batch
    publish_json(folder / _SOURCE_FILE, {"rows": rows.n, "files": source})
    return path


def open_metadata(metadata: Path) -> MetadataRows:
    """The rows of metadata/, from the one record batch beside it where that was made from these very files.

    Raises:
        DataError: As `MetadataRows.open`.
    """
    folder = metadata.with_name(ONE_BATCH_FOLDER)
    if (folder / _SOURCE_FILE).is_file():
        if _made_from(folder) == _source(metadata):
            return MetadataRows.open(folder)
        _log.warning(
            "%s: made from other files than are in %s now, so it isn't read; `popfactory one-batch %s` makes it anew",
            folder,
            metadata,
            metadata.parent,
        )
    return MetadataRows.open(metadata)


class _Column:
    """One column on its way: which rows have a value, where texts end, and the values themselves."""

    def __init__(self, path: Path, field: pa.Field) -> None:
        self._path, self._text = path, not _is_number(field.type)
        self._binary = pa.types.is_binary(field.type) or pa.types.is_large_binary(field.type)
        self._type = field.type
        self._end, self._nulls = 0, 0

    @contextlib.contextmanager
    def writing(self) -> Iterator[dict[str, IO[bytes]]]:
        """Its files, open; texts' first offset is written."""
        with contextlib.ExitStack() as stack:
            files: dict[str, IO[bytes]] = {
                name: stack.enter_context(self._file(name).open("wb")) for name in ("there", "ends", "values")
            }
            if self._text:
                files["ends"].write(np.zeros(1, dtype=np.int64).data)
            yield files

    def add(self, files: dict[str, IO[bytes]], piece: pa.Array) -> None:
        """Append rows."""
        self._nulls += piece.null_count
        files["there"].write(piece.is_valid().to_numpy(zero_copy_only=False).data)
        if not self._text:
            # fill_null leaves the type as it is; to_numpy alone would make floats of whole numbers with nulls.
            files["values"].write(
                np.ascontiguousarray(pc.fill_null(piece, 0).to_numpy(zero_copy_only=False)).data
            )
            return
        large = piece.cast(pa.large_binary() if self._binary else pa.large_string())
        _, offsets, values = large.buffers()
        ends = np.frombuffer(offsets, dtype=np.int64)[large.offset : large.offset + len(large) + 1]
        files["ends"].write((ends[1:] - ends[0] + self._end).data)
        if ends[-1] > ends[0]:
            files["values"].write(memoryview(values)[int(ends[0]) : int(ends[-1])])
        self._end += int(ends[-1] - ends[0])

    def read(self, n: int) -> pa.Array:
        """The whole column, mapped from its files."""
        bits = self._bits() if self._nulls else None
        values = _mapped(self._file("values"))
        if not self._text:
            return pa.Array.from_buffers(self._type, n, [bits, values], self._nulls)
        if self._end < _SHORT:
            kind, ends = pa.binary() if self._binary else pa.string(), self._short_ends()
        else:
            kind = pa.large_binary() if self._binary else pa.large_string()
            ends = _mapped(self._file("ends"))
        return pa.Array.from_buffers(kind, n, [bits, ends, values], self._nulls)

    def _short_ends(self) -> pa.Buffer:
        """Where texts end in 32 bits: of 64 they are made such in every answer."""
        long, short = np.memmap(self._file("ends"), dtype=np.int64, mode="r"), self._file("short-ends")
        with short.open("wb") as file:
            for start in range(0, len(long), _ROWS):
                file.write(long[start : start + _ROWS].astype(np.int32).data)
        return _mapped(short)

    def _bits(self) -> pa.Buffer:
        there, bits = np.memmap(self._file("there"), dtype=np.bool_, mode="r"), self._file("bits")
        with bits.open("wb") as file:
            for start in range(0, len(there), 8 * _ROWS):
                file.write(np.packbits(there[start : start + 8 * _ROWS], bitorder="little").data)
        return _mapped(bits)

    def _file(self, name: str) -> Path:
        return self._path.with_suffix(f".{name}")


def _mapped(path: Path) -> pa.Buffer:
    if not path.stat().st_size:
        return pa.py_buffer(b"")
    return pa.memory_map(str(path)).read_buffer()


def _made_from(folder: Path) -> object:
    try:
        return json.loads((folder / _SOURCE_FILE).read_text(encoding="utf-8"))["files"]
    except (OSError, ValueError, KeyError, TypeError):
        return None  # equal to no list of files


def _source(metadata: Path) -> list[list[Any]]:
    """What the files of a folder are known by again."""
    files = sorted(path for path in metadata.rglob("*") if path.is_file())
    return [[str(path.relative_to(metadata)), path.stat().st_size, path.stat().st_mtime_ns] for path in files]


def _is_number(kind: pa.DataType) -> bool:
    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind))


def _is_simple(kind: pa.DataType) -> bool:
    texts = (pa.types.is_string, pa.types.is_large_string, pa.types.is_binary, pa.types.is_large_binary)
    return _is_number(kind) or any(is_text(kind) for is_text in texts)
