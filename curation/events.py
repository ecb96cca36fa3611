"""What curators send: events, and what becomes of a batch of them."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass

from curation.found import FOUND, found_rows
from spine.errors import DataError

ACTIONS = ("keep", "reject", "note", "set", "refill", "undo")
"""What a curator can do; an undo can be undone. Of a centroid, `reject` leaves it out, `set` gives it a setting of
its own (`tag`: one of CENTROID_SETTINGS, `text`: its value as JSON, None for the run's own again), and `refill`
has at least so many of its neighbours fetched (`text`: a whole number)."""

TARGETS = ("image", "centroid", "caption")
"""What it is done to. Ids of captions are text, the others whole numbers."""


_SIDE_PX, _QUOTA, _DEPTH = 100_000, 1_000_000, 10_000_000  # at most

CENTROID_SETTINGS: dict[str, tuple[type, float, float, bool]] = {
    "quota_per_centroid": (int, 0, _QUOTA, False),
    "min_side_px": (int, 0, _SIDE_PX, False),
    "pwatermark_max": (float, 0, 1, True),
    "punsafe_max": (float, 0, 1, True),
    "violence_max": (float, -2, 2, True),
    "aesthetic_min": (float, -100, 100, True),
}
"""What a centroid may have of its own, as in [select] and [filters] (aesthetic_min is its value, on the scale of the
head named there): type, least, most, and whether null switches it off."""


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
    """Of a note: such as "unsure"; of a set: the setting; of a keep of what a search found: FOUND."""
    reason: str | None = None
    """Of a reject."""
    text: str | None = None
    """Of a note, or the edited caption of a keep; of a set or refill: the value as JSON; of a keep of what a search
    found: `curation.found.found_text`."""
    filter: str | None = None
    """What was filtered for when many were decided at once."""
    ids_digest: str | None = None
    """SHA-256 over the list of ids then; see `ids_digest`."""
    neighbours: str | None = None
    """Digest of the neighbours manifest it was decided on."""
    centroids: str | None = None
    """Of a centroid, or of what a search found: digest of the centroids manifest it was decided on. On others it counts
    no more, for there the number stands for another concept; None counts always."""
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
    if event.action in ("set", "refill"):
        if event.target != "centroid":
            raise DataError(f"{place}: {event.action} is for centroids, not for a {event.target}")
        value_of(event)
    if event.tag == FOUND and event.action == "keep":
        if event.target != "image" or event.centroid_id is None:
            raise DataError(f"{place}: what a search found is kept as pictures of a centroid")
        found_rows(event.text or "", event.centroid_id)
    if (event.action == "undo") != (event.undoes is not None):
        raise DataError(f"{place}: an undo names the event it undoes, and nothing else does")


def value_of(event: Event) -> float | int | None:
    """The value of a set or refill; None switches the filter off.

    Raises:
        DataError: It is no value for that.
    """
    place = f"event {event.seq} of {event.client}"
    if event.action == "set" and event.tag not in CENTROID_SETTINGS:
        raise DataError(f"{place}: {event.tag!r} is none of {', '.join(CENTROID_SETTINGS)}")
    if event.action == "set" and event.text is None:
        return None
    kind, least, most, nullable = (
        (int, 0, _DEPTH, False) if event.action == "refill" else CENTROID_SETTINGS[event.tag or ""]
    )
    try:
        value = json.loads(event.text or "")
    except ValueError:
        value = ""  # as wrong as any other text
    if value is None and nullable:
        return None
    is_number = type(value) is int or (kind is float and type(value) is float)
    if not is_number or not least <= value <= most:
        wanted = "a whole number" if kind is int else "a number"
        raise DataError(
            f"{place}: {event.text!r} for {event.tag or event.action}; {wanted} from {least:,} to {most:,} was needed"
        )
    return float(value) if kind is float else int(value)
