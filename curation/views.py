"""Saved views: a name for an address of the board, kept beside the decisions.

They decide nothing. One of a name and owner is replaced by the next of that name.
"""

import contextlib
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from spine.errors import DataError

MOST_VIEWS = 1_000
"""Views kept of a run at most."""

_WAIT_S = 10.0
_TABLE = """
CREATE TABLE IF NOT EXISTS views (
    owner TEXT NOT NULL,
    name TEXT NOT NULL,
    query TEXT NOT NULL,
    shared INTEGER NOT NULL,
    time TEXT NOT NULL,
    PRIMARY KEY (owner, name)
)
"""


@dataclass(frozen=True, kw_only=True, slots=True)
class View:
    """One saved view."""

    name: str
    owner: str
    query: str
    """The address's query, without the question mark."""
    shared: bool
    """Whether other curators see it."""


class Views:
    """The saved views of a run, in the file of its decisions. Holds no connection."""

    def __init__(self, path: Path) -> None:
        """Args: path: The file of the decisions; it may not be there yet."""
        self._path = path

    def of(self, curator: str) -> list[View]:
        """This curator's own views and those that others share, by name.

        Raises:
            DataError: The file is no database.
        """
        if not self._path.is_file():
            return []
        with self._open() as database:
            if database.execute("SELECT 1 FROM sqlite_master WHERE name = 'views'").fetchone() is None:
                return []
            rows = database.execute(
                "SELECT name, owner, query, shared FROM views WHERE owner = ? OR shared ORDER BY name, owner",
                (curator,),
            ).fetchall()
        return [
            View(name=name, owner=owner, query=query, shared=bool(shared))
            for name, owner, query, shared in rows
        ]

    def save(self, view: View) -> None:
        """Keep a view; one of the same name and owner is replaced.

        Raises:
            DataError: It has no name, is too long, or there are too many.
        """
        if not 1 <= len(view.name) <= 80 or not 1 <= len(view.owner) <= 80 or len(view.query) > 4_000:
            raise DataError("a view needs a name of 1 to 80 signs, and an address of at most 4,000")
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with self._writing() as database:
            if database.execute("SELECT count(*) FROM views").fetchone()[0] >= MOST_VIEWS:
                raise DataError(f"{MOST_VIEWS:,} views are kept already; delete some")
            database.execute(
                "INSERT INTO views VALUES (?, ?, ?, ?, ?) ON CONFLICT (owner, name) DO UPDATE SET "
                "query = excluded.query, shared = excluded.shared, time = excluded.time",
                (
                    view.owner,
                    view.name,
                    view.query,
                    view.shared,
                    datetime.now(UTC).isoformat(timespec="seconds"),
                ),
            )

    def delete(self, owner: str, name: str) -> None:
        """Forget a view; one that isn't there is forgotten already."""
        with self._writing() as database:
            database.execute("DELETE FROM views WHERE owner = ? AND name = ?", (owner, name))

    @contextlib.contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        with self._open() as database:
            # As the decisions in the same file: readers go on while one writes.
            database.execute("PRAGMA journal_mode = WAL")
            database.execute("BEGIN IMMEDIATE")
            database.execute(_TABLE)
            yield database
            database.execute("COMMIT")

    @contextlib.contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        database = sqlite3.connect(self._path, timeout=_WAIT_S, isolation_level=None)
        try:
            yield database
        except sqlite3.DatabaseError as error:
            raise DataError(f"{self._path}: {error}; put it right, or restore it from a backup") from None
        finally:
            database.close()  # an open transaction is rolled back
