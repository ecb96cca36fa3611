"""Large tables of a run as Arrow files mapped into memory: of millions of rows only those looked at are read.

Parquet can't be mapped, and held in memory the tables of two million pictures take gigabytes. So each is
written once more, as it is in memory, into a folder that is a cache: what is missing is made again.
"""

import errno
import fcntl
import hashlib
import logging
import os
from collections.abc import Callable, Iterable
from pathlib import Path

import pyarrow as pa
import pyarrow.ipc as ipc

from spine.publish import publishing, sweep

_logger = logging.getLogger(__name__)

_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES)
_BATCH_ROWS = 100_000
"""Rows are taken batch by batch: few large ones are quicker than many small ones."""


class TableCache:
    """The folder of mapped tables. Used from several threads and processes."""

    def __init__(self, folder: Path) -> None:
        """Args: folder: Made when the first table is."""
        self._folder = folder

    def table(
        self, name: str, of: object, schema: pa.Schema, parts: Callable[[], Iterable[pa.Table]]
    ) -> pa.Table:
        """A table mapped from its file, which is made first where there is none.

        Args:
            name: Its name; what it was made of before is removed.
            of: What it is made of, told from all else by its repr.
            schema: What the parts have.
            parts: Gives the rows, when they are needed.

        Where there is no room for the file, or the folder can't be written, the table is held in memory instead.
        """
        key = hashlib.sha256(f"{of!r} {schema}".encode()).hexdigest()[:16]
        path = self._folder / f"{name}-{key}.arrow"
        try:
            return self._from_file(name, path, schema, parts)
        except OSError as error:
            if error.errno not in _NO_ROOM:
                raise
            _logger.warning(
                "%s: can't be written (%s), so the table is held in memory; free some space or make the folder "
                "writable, and start the board again",
                path,
                os.strerror(error.errno),
            )
            return _whole(schema, parts())

    def _from_file(
        self, name: str, path: Path, schema: pa.Schema, parts: Callable[[], Iterable[pa.Table]]
    ) -> pa.Table:
        if not path.is_file():
            self._make(name, path, schema, parts)
        try:
            return _mapped(path)
        except pa.ArrowInvalid:  # damaged
            path.unlink()
            self._make(name, path, schema, parts)
            return _mapped(path)

    def _make(
        self, name: str, path: Path, schema: pa.Schema, parts: Callable[[], Iterable[pa.Table]]
    ) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        with (self._folder / ".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # another board on this run may be making it
            if path.is_file():
                return
            sweep(self._folder)
            # Who has an old one mapped keeps it until it is let go.
            for old in self._folder.glob(f"{name}-????????????????.arrow"):
                old.unlink()
            with publishing(path) as temporary:
                _write(temporary, schema, parts())
        pa.default_memory_pool().release_unused()


def _write(path: Path, schema: pa.Schema, parts: Iterable[pa.Table]) -> None:
    with pa.OSFile(str(path), "wb") as file, ipc.new_file(file, schema) as writer:
        waiting: list[pa.Table] = []
        for part in parts:
            waiting.append(part.cast(schema))
            if sum(each.num_rows for each in waiting) >= _BATCH_ROWS:
                writer.write_table(pa.concat_tables(waiting).combine_chunks())
                waiting.clear()
        if waiting:
            writer.write_table(pa.concat_tables(waiting).combine_chunks())


def _whole(schema: pa.Schema, parts: Iterable[pa.Table]) -> pa.Table:
    """All rows in memory, in one batch."""
    tables = [part.cast(schema) for part in parts]
    return pa.concat_tables(tables).combine_chunks() if tables else schema.empty_table()


def _mapped(path: Path) -> pa.Table:
    return ipc.open_file(pa.memory_map(str(path))).read_all()
