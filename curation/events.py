"""What curators send: events, and what becomes of a batch of them."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

from spine.errors import DataError

ACTIONS = ("keep", "reject", "note", "undo")
"""What a curator can do; an undo can be undone."""

TARGETS = ("image", "centroid", "caption")
"""What it is done to. Ids of captions are text, the others whole numbers."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Event:
    """One thing a curator did. `event` and `time` are given when it is recorded."""

    client: str
    """The browser or program that sends it; with `seq` it makes a replay harmless."""
    seq: int
    """The client's own count."""
    curator: str
    action: str
    """One of ACTIONS."""
    target: str
    """One of TARGETS."""
    ids: tuple[int | str, ...]
    """What it is done to; for an undo, those of the undone event that it is for."""
    centroid_id: int | None = None
    """Where it was decided."""
    tag: str | None = None
    """Of a note: such as "unsure"."""
    reason: str | None = None
    """Of a reject."""
    text: str | None = None
    """Of a note, or the edited caption of a keep."""
    filter: str | None = None
    """What was filtered for when many were decided at once."""
    ids_digest: str | None = None
    """SHA-256 over the list of ids then; see `ids_digest`."""
    neighbours: str | None = None
    """Digest of the neighbours manifest it was decided on."""
    last_seen: int = 0
    """Number of the last event that its client knew of."""
    undoes: int | None = None
    """Of an undo: the number of the undone event."""
    event: int = 0
    """Its number, from 1."""
    time: str = ""
    """When it was recorded, UTC."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Conflict:
    """An id that another curator decided on since the client last looked; the sent event left it alone."""

    client: str
    seq: int
    id: int | str
    event: int
    """Number of the event that wasn't seen."""
    curator: str
    action: str


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a batch."""

    recorded: dict[int, int]
    """Event number by the client's own number; also for those recorded by an earlier sending."""
    conflicts: tuple[Conflict, ...]
    last_event: int
    """Number of the newest event: what the client has seen once it has this answer."""


def ids_digest(ids: Sequence[int | str]) -> str:
    """SHA-256 over ids in their order, in hex: says which list a bulk decision was about."""
    return hashlib.sha256("\n".join(map(str, ids)).encode()).hexdigest()


def check(event: Event) -> None:
    """See that an event can be recorded.

    Raises:
        DataError: It is malformed.
    """
    place = f"event {event.seq} of {event.client}"
    if event.action not in ACTIONS or event.target not in TARGETS:
        raise DataError(f"{place}: {event.action!r} of {event.target!r} is no decision")
    if not event.ids or not event.client or not event.curator:
        raise DataError(f"{place}: ids, client and curator are needed")
    if len(set(event.ids)) != len(event.ids):
        raise DataError(f"{place}: an id stands in it twice")
    kind = str if event.target == "caption" else int
    for each in event.ids:
        if type(each) is not kind or (isinstance(each, int) and not -(2**63) <= each < 2**63):
            raise DataError(f"{place}: {each!r} is no id of a {event.target}")
    if (event.action == "undo") != (event.undoes is not None):
        raise DataError(f"{place}: an undo names the event it undoes, and nothing else does")
