"""What counts now: all curators' events folded into one verdict for each picture, centroid and caption."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field

from curation.events import Event


@dataclass(frozen=True, kw_only=True, slots=True)
class Verdict:
    """The latest keep or reject that was not undone."""

    action: str
    """keep or reject."""
    curator: str
    event: int
    """Number of the event that gave it."""
    centroid_id: int | None = None
    """Where it was decided."""
    reason: str | None = None
    text: str | None = None
    """The edited caption, of a keep of a caption."""


@dataclass(frozen=True, slots=True)
class Verdicts:
    """All that curators decided."""

    images: dict[int, Verdict] = field(default_factory=dict)
    centroids: dict[int, Verdict] = field(default_factory=dict)
    """A keep is "done", a reject leaves the centroid out."""
    captions: dict[str, Verdict] = field(default_factory=dict)
    notes: dict[int, tuple[str | None, str | None]] = field(default_factory=dict)
    """Tag and text of the latest note on a picture."""

    def centroids_left_out(self) -> frozenset[int]:
        """Centroids whose candidates leave the selection."""
        return frozenset(key for key, verdict in self.centroids.items() if verdict.action == "reject")

    def selection_digest(self) -> str:
        """SHA-256 over what `select` reads: verdicts on pictures, and centroids left out."""
        left_out = {key: self.centroids[key] for key in self.centroids_left_out()}
        return _digest({"images": _plain(self.images), "centroids": _plain(left_out)})

    def caption_digest(self) -> str:
        """SHA-256 over what `release` reads: verdicts on captions."""
        return _digest({"captions": _plain(self.captions)})


def fold(events: Sequence[Event]) -> Verdicts:
    """What events say together.

    An undo takes an event back for its own ids, and can be undone itself. Of what is left the later
    event counts.

    Args:
        events: All of them, in order of their numbers.
    """
    # From the newest back: when we come to an event, every undo of it has been seen, and whether that
    # undo still stands is known too.
    undone: set[tuple[int, int | str]] = set()
    standing: list[tuple[Event, list[int | str]]] = []
    for event in reversed(events):
        left = [each for each in event.ids if (event.event, each) not in undone]
        if event.action == "undo" and event.undoes is not None:
            undone.update((event.undoes, each) for each in left)
        elif left:
            standing.append((event, left))
    verdicts = Verdicts()
    for event, ids in reversed(standing):
        if event.action == "note":
            if event.target == "image":
                verdicts.notes.update((int(each), (event.tag, event.text)) for each in ids)
            continue
        verdict = Verdict(
            action=event.action,
            curator=event.curator,
            event=event.event,
            centroid_id=event.centroid_id,
            reason=event.reason,
            text=event.text,
        )
        if event.target == "caption":
            verdicts.captions.update((str(each), verdict) for each in ids)
        else:
            of_kind = verdicts.images if event.target == "image" else verdicts.centroids
            of_kind.update((int(each), verdict) for each in ids)
    return verdicts


def _plain(verdicts: dict[int, Verdict] | dict[str, Verdict]) -> list[list[str | None]]:
    """Sorted rows; without event numbers, so that an undone and repeated decision changes nothing."""
    rows = (
        (str(key), value.action, value.curator, value.reason, value.text) for key, value in verdicts.items()
    )
    return [list(row) for row in sorted(rows, key=lambda row: row[0])]


def _digest(content: object) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
