"""What curators decided: events in an SQLite file that only ever grows. Undo is an event too.

A batch of events is one transaction with full sync: acknowledged is kept, through a crash as well. A
batch that is sent again changes nothing, for each event carries its client's own number. What counts
now comes from folding all events (`curation.verdicts`); no stage rewrites them.
"""

import contextlib
import random
import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from curation.events import Conflict, Event, Outcome, check
from curation.verdicts import Verdicts, fold
from spine.errors import DataError
from spine.manifest import find_manifest
from spine.run import Run

MAX_BATCH = 500
"""Events in one batch at most."""

__all__ = ["Conflict", "Decisions", "Event", "Outcome", "Verdicts"]

_SCHEMA_VERSION = 2
_BUSY_TRIES = 40
_WAIT_S = 5.0
_FULL = (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR_SHMSIZE)  # the second: no room for what readers share
_TABLES = """
CREATE TABLE IF NOT EXISTS events (
    event INTEGER PRIMARY KEY AUTOINCREMENT,
    client TEXT NOT NULL,
    seq INTEGER NOT NULL,
    curator TEXT NOT NULL,
    time TEXT NOT NULL,
    action TEXT NOT NULL,
    target TEXT NOT NULL,
    centroid_id INTEGER,
    tag TEXT,
    reason TEXT,
    text TEXT,
    filter TEXT,
    ids_digest TEXT,
    neighbours TEXT,
    last_seen INTEGER NOT NULL,
    undoes INTEGER,
    centroids TEXT,
    UNIQUE (client, seq)
);
CREATE TABLE IF NOT EXISTS subjects (
    event INTEGER NOT NULL REFERENCES events (event),
    target TEXT NOT NULL,
    id NOT NULL,
    PRIMARY KEY (event, id)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS subjects_by_id ON subjects (target, id, event);
"""


@dataclass(frozen=True, slots=True)
class Decisions:
    """The decisions of a run. Holds no connection: safe to share between threads and processes."""

    path: Path

    @classmethod
    def open(cls, path: Path) -> "Decisions":
        """The decisions kept at `path`. A missing file is no decisions yet; the first `record` makes it.

        Raises:
            DataError: The file is no database of decisions, or a newer popfactory wrote it.
        """
        decisions = cls(path)
        with decisions._reading():
            return decisions

    def record(self, events: Sequence[Event]) -> Outcome:
        """Add a batch, all or nothing, durably. Sent again, it changes nothing.

        An id on which another curator recorded a keep, reject or undo after `last_seen` is left out
        of its event and reported; an event none of whose ids is left isn't recorded.

        Raises:
            DataError: An event is malformed, or the file stayed busy.
        """
        if len(events) > MAX_BATCH:
            raise DataError(f"{len(events)} events in one batch, at most {MAX_BATCH} are taken; send several")
        for event in events:
            check(event)
        with self._writing() as database:
            recorded, conflicts = {}, []
            for event in events:
                number, against = _record(database, event)
                conflicts += against
                if number is not None:
                    recorded[event.seq] = number
            last = database.execute("SELECT coalesce(max(event), 0) FROM events").fetchone()[0]
        return Outcome(recorded, tuple(conflicts), last)

    def undo(
        self,
        event: int,
        *,
        client: str,
        seq: int,
        curator: str,
        ids: Sequence[int | str] = (),
        last_seen: int = 0,
    ) -> Outcome:
        """Take an event back, for all its ids or some of them. Undoing an undo brings it back.

        Raises:
            DataError: There is no such event, or it has not these ids.
        """
        found = [entry for entry in self.history(since=event - 1, limit=1) if entry.event == event]
        if not found:
            raise DataError(f"{self.path}: there is no event {event} to undo")
        # Those who undo an event have seen it.
        undone = replace(
            found[0],
            client=client,
            seq=seq,
            curator=curator,
            action="undo",
            ids=tuple(ids) or found[0].ids,
            last_seen=max(last_seen, event),
            undoes=event,
            tag=None,
            reason=None,
            text=None,
        )
        return self.record([undone])

    def history(
        self,
        *,
        since: int = 0,
        target: str | None = None,
        subject: int | str | None = None,
        limit: int | None = None,
    ) -> list[Event]:
        """Recorded events in order.

        Args:
            since: Those after this number.
            target: Of this target only.
            subject: Of this id only.
            limit: So many at most.
        """
        where: list[str] = ["event > ?"]
        values: list[int | str] = [since]
        if target is not None:
            where.append("target = ?")
            values.append(target)
        if subject is not None:
            where.append("event IN (SELECT event FROM subjects WHERE id = ?)")
            values.append(subject)
        query = f"SELECT * FROM events WHERE {' AND '.join(where)} ORDER BY event"
        if limit is not None:
            query += f" LIMIT {int(limit)}"
        with self._reading() as database:
            return [] if database is None else _events(database, query, values)

    def fold(self, centroids: str | None = None) -> Verdicts:
        """What all events together say now; see `curation.verdicts.fold`."""
        return fold(self.history(), centroids)

    def last_event(self) -> int:
        """Number of the newest event, 0 where there is none."""
        with self._reading() as database:
            if database is None:
                return 0
            return int(database.execute("SELECT coalesce(max(event), 0) FROM events").fetchone()[0])

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Keep the file open for as long as the block runs, which may end in another thread; it must be there.

        The last connection that closes writes all into the file and removes its journal, and the next makes one anew:
        several times the work of recording. Who records often holds the file meanwhile.

        Raises:
            DataError: It can't be read.
        """
        with self._connection(check_same_thread=False) as database:
            _version(database, self.path)
            yield

    @contextlib.contextmanager
    def _reading(self) -> Iterator[sqlite3.Connection | None]:
        """A connection for reading in one snapshot, None where there is no file."""
        if not self.path.is_file():
            yield None
            return
        with self._connection() as database:
            if not _version(database, self.path):
                yield None
                return
            database.execute("BEGIN")
            yield database

    @contextlib.contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        """A connection inside a transaction that holds the only right to write; committed at the end."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self._connection() as database:
            # A reader that turns writer gets BUSY at once, whatever the timeout: so write from the start.
            _patiently(lambda: database.execute("PRAGMA journal_mode = WAL"), self.path)
            database.execute("PRAGMA synchronous = FULL")
            _patiently(lambda: database.execute("BEGIN IMMEDIATE"), self.path)
            version = _version(database, self.path)
            if version == 1:
                database.execute("ALTER TABLE events ADD COLUMN centroids TEXT")
            elif not version:
                for statement in _TABLES.split(";\n"):
                    database.execute(statement)
            if version != _SCHEMA_VERSION:
                database.execute(f"PRAGMA user_version = {_SCHEMA_VERSION}")
            yield database
            _patiently(lambda: database.execute("COMMIT"), self.path)

    @contextlib.contextmanager
    def _connection(self, *, check_same_thread: bool = True) -> Iterator[sqlite3.Connection]:
        database = sqlite3.connect(
            self.path, timeout=_WAIT_S, isolation_level=None, check_same_thread=check_same_thread
        )
        try:
            yield database
        except sqlite3.DatabaseError as error:
            if isinstance(error, sqlite3.IntegrityError | sqlite3.ProgrammingError):
                raise
            raise DataError(f"{self.path}: {_what_to_do(error)}") from None
        finally:
            database.close()  # an open transaction is rolled back


def _what_to_do(error: sqlite3.DatabaseError) -> str:
    if getattr(error, "sqlite_errorcode", None) in _FULL:
        return "the disk is full; free some space: nothing that was recorded is lost"
    return f"{error}; put it right, or restore it from a backup"


def read_verdicts(run: Run) -> Verdicts:
    """What curators decided, as it counts on the run's present centroids."""
    centroids = find_manifest(run.centroids)
    return Decisions.open(run.decisions).fold(None if centroids is None else centroids.digest)


def _version(database: sqlite3.Connection, path: Path) -> int:
    """Of the tables; 0 where there are none yet."""
    version = int(database.execute("PRAGMA user_version").fetchone()[0])
    if version > _SCHEMA_VERSION:
        raise DataError(
            f"{path}: version {version}, this popfactory reads up to {_SCHEMA_VERSION}; update popfactory"
        )
    return version


def _patiently(work: Callable[[], object], path: Path) -> None:
    """Do it, again while the file is busy: SQLite's own waiting lets a few through."""
    for attempt in range(_BUSY_TRIES):
        try:
            work()
            return
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF not in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
                raise
            time.sleep(random.uniform(0.001, 0.02) * (1 + attempt))
    raise DataError(f"{path}: still busy after {_BUSY_TRIES} tries; is another program holding it?")


def _record(database: sqlite3.Connection, event: Event) -> tuple[int | None, list[Conflict]]:
    """Its number, None if no id is left; and the ids another curator decided on meanwhile."""
    known = database.execute(
        "SELECT event FROM events WHERE client = ? AND seq = ?", (event.client, event.seq)
    ).fetchone()
    if known is not None:
        return int(known[0]), []
    if event.undoes is not None:
        _check_undo(database, event)
    conflicts = [] if event.action in ("note", "refill") else _conflicts(database, event)
    taken = {conflict.id for conflict in conflicts}
    left = [each for each in event.ids if each not in taken]
    if not left:
        return None, conflicts
    cursor = database.execute(
        f"INSERT INTO events ({', '.join(_COLUMNS)}) VALUES ({', '.join('?' * len(_COLUMNS))})",
        [
            datetime.now(UTC).isoformat(timespec="milliseconds") if name == "time" else getattr(event, name)
            for name in _COLUMNS
        ],
    )
    number = int(cursor.lastrowid or 0)
    database.executemany(
        "INSERT INTO subjects VALUES (?, ?, ?)", [(number, event.target, each) for each in left]
    )
    return number, conflicts


def _check_undo(database: sqlite3.Connection, event: Event) -> None:
    rows = database.execute("SELECT target, id FROM subjects WHERE event = ?", (event.undoes,)).fetchall()
    unknown = set(event.ids) - {each for target, each in rows if target == event.target}
    if unknown:
        raise DataError(
            f"event {event.seq} of {event.client}: event {event.undoes} did nothing to {event.target} "
            f"{', '.join(sorted(map(str, unknown)))}"
        )


def _conflicts(database: sqlite3.Connection, event: Event) -> list[Conflict]:
    """What another curator decided on the same: of a setting on the very same setting."""
    found = []
    rivals = "action = 'set' AND tag = ?" if event.action == "set" else "action IN ('keep', 'reject', 'undo')"
    for each in event.ids:
        row = database.execute(
            "SELECT event, curator, action FROM events WHERE event IN "
            "(SELECT event FROM subjects WHERE target = ? AND id = ? AND event > ?) "
            f"AND curator <> ? AND {rivals} ORDER BY event DESC LIMIT 1",
            (
                event.target,
                each,
                event.last_seen,
                event.curator,
                *([event.tag] if event.action == "set" else []),
            ),
        ).fetchone()
        if row is not None:
            found.append(
                Conflict(
                    client=event.client, seq=event.seq, id=each, event=row[0], curator=row[1], action=row[2]
                )
            )
    return found


_COLUMNS = tuple(
    name for name in Event.__dataclass_fields__ if name not in ("event", "ids")
)  # as in the table


def _events(database: sqlite3.Connection, query: str, values: Sequence[int | str]) -> list[Event]:
    cursor = database.execute(query, tuple(values))
    names = [column[0] for column in cursor.description]
    rows = [dict(zip(names, row, strict=True)) for row in cursor]
    if not rows:
        return []
    ids: dict[int, list[int | str]] = {row["event"]: [] for row in rows}
    for number, each in database.execute(
        "SELECT event, id FROM subjects WHERE event BETWEEN ? AND ?", (rows[0]["event"], rows[-1]["event"])
    ):
        if number in ids:
            ids[number].append(each)
    return [Event(ids=tuple(ids[row["event"]]), **row) for row in rows]
