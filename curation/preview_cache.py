"""Thumbnails of pictures that were shown before they were fetched, and why others gave none: one SQLite file.

A cache: it may be deleted whenever nothing has it open. One process writes, any may read.
"""

import contextlib
import hashlib
import sqlite3
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path

from spine.errors import DataError

MAX_BYTES = 4_000_000_000
"""What the cache may take; then its oldest tenth goes."""

_VERSION = 1
_PAGES = 500  # rows between two looks at its size


@dataclass(frozen=True, kw_only=True, slots=True)
class PreviewRow:
    """What became of one picture that was to be shown."""

    key: str
    """See `preview_key`."""
    asked: float
    """When, in seconds since 1970."""
    reason: str | None = None
    """Why there is no thumbnail; None where there is one."""
    message: str | None = None
    http_status: int | None = None
    opt_out: str | None = None
    """As in spine.tables.IMAGES."""
    sha256: str | None = None
    """Of the picture's bytes; md5 and pdq likewise. All that is kept where a list names them."""
    md5: str | None = None
    pdq: str | None = None
    width: int | None = None
    """Pixels of the picture itself."""
    height: int | None = None
    clear: bytes | None = None
    """The thumbnail as WebP."""
    blurred: bytes | None = None
    """The same with nothing but colours left to see."""


_COLUMNS = tuple(field.name for field in fields(PreviewRow))


def preview_key(place: str | None, url: str | None) -> str:
    """Name of a picture in the cache: 64 hex digits over its place, else over its address."""
    kind, text = ("place", place) if place is not None else ("url", url or "")
    return hashlib.sha256(f"{kind} {text}".encode("utf-8", errors="surrogatepass")).hexdigest()


class PreviewCache:
    """The file; safe to share between threads."""

    def __init__(self, path: Path) -> None:
        """Open it, or begin a new one; one of another version or damaged begins anew.

        Raises:
            DataError: It can't be written: the disk is full, for one.
        """
        self._path, self._lock, self._written = path, threading.Lock(), 0
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            self._database = self._opened()
        except sqlite3.DatabaseError:
            for name in (path.name, f"{path.name}-wal", f"{path.name}-shm"):
                path.with_name(name).unlink(missing_ok=True)
            try:
                self._database = self._opened()
            except sqlite3.OperationalError as error:
                raise DataError(f"{path}: {error}; free some space there, or make it writable") from None

    def close(self) -> None:
        """Let go of the file."""
        with self._lock:
            self._database.close()

    def find(self, key: str) -> PreviewRow | None:
        """The row of this key, None where there is none."""
        with self._asked() as database:
            found = database.execute(
                f"SELECT {', '.join(_COLUMNS)} FROM previews WHERE key = ?", (key,)
            ).fetchone()
        return None if found is None else PreviewRow(**dict(zip(_COLUMNS, found, strict=True)))

    def put(self, row: PreviewRow) -> None:
        """Keep a row, in the place of an earlier one of its key."""
        marks = ", ".join("?" * len(_COLUMNS))
        with self._asked() as database:
            database.execute(
                f"INSERT OR REPLACE INTO previews ({', '.join(_COLUMNS)}) VALUES ({marks})",
                tuple(getattr(row, name) for name in _COLUMNS),
            )
            self._written += 1
            if self._written % _PAGES == 0:
                _shorten(database)

    @contextlib.contextmanager
    def _asked(self) -> Iterator[sqlite3.Connection]:
        with self._lock:
            try:
                yield self._database
            except sqlite3.DatabaseError as error:
                raise DataError(
                    f"{self._path}: {error}; stop the board and delete it: it is a cache"
                ) from None

    def _opened(self) -> sqlite3.Connection:
        database = sqlite3.connect(self._path, timeout=10.0, isolation_level=None, check_same_thread=False)
        try:
            database.execute("PRAGMA journal_mode = WAL")
            database.execute("PRAGMA synchronous = OFF")  # a cache: losing it costs asking again
            version = database.execute("PRAGMA user_version").fetchone()[0]
            if version not in (0, _VERSION):
                raise sqlite3.DatabaseError(f"version {version}")
            database.execute(
                f"CREATE TABLE IF NOT EXISTS previews ({', '.join(_COLUMNS)}, PRIMARY KEY (key))"
            )
            database.execute("CREATE INDEX IF NOT EXISTS previews_by_age ON previews (asked)")
            database.execute(f"PRAGMA user_version = {_VERSION}")
        except sqlite3.DatabaseError:
            database.close()
            raise
        return database


def _shorten(database: sqlite3.Connection, max_bytes: int = MAX_BYTES) -> None:
    """Drop the oldest tenth of the rows where the file has grown too large; their pages are written to again."""
    pages, free, size = (
        database.execute(f"PRAGMA {name}").fetchone()[0]
        for name in ("page_count", "freelist_count", "page_size")
    )
    if (pages - free) * size <= max_bytes:
        return
    count = database.execute("SELECT count(*) FROM previews").fetchone()[0]
    database.execute(
        "DELETE FROM previews WHERE key IN (SELECT key FROM previews ORDER BY asked LIMIT ?)",
        (count // 10 + 1,),
    )


def fresh_row(key: str, **values: object) -> PreviewRow:
    """A row of now."""
    return PreviewRow(key=key, asked=time.time(), **values)  # type: ignore[arg-type]
