"""What counts now: all curators' events folded into one verdict for each picture, centroid and caption."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from curation.events import Event, value_of
from curation.found import FOUND, Found, found_rows
from spine.filters import FILTERS
from spine.settings import FiltersConfig


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
    found: Found | None = None
    """Of a picture that a search found, and that was kept there then: a keep makes it a candidate."""
    time: str = ""
    """When it was recorded, UTC."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Setting:
    """What a curator set for one centroid."""

    value: float | int | None
    """None switches the filter off."""
    curator: str
    event: int
    time: str = ""


@dataclass(frozen=True, slots=True)
class Verdicts:
    """All that curators decided."""

    images: dict[int, Verdict] = field(default_factory=dict)
    centroids: dict[int, Verdict] = field(default_factory=dict)
    """A keep is "done", a reject leaves the centroid out."""
    captions: dict[str, Verdict] = field(default_factory=dict)
    notes: dict[int, tuple[str | None, str | None]] = field(default_factory=dict)
    """Tag and text of the latest note on a picture."""
    settings: dict[int, dict[str, Setting]] = field(default_factory=dict)
    """By centroid and name of the setting: what it has of its own."""
    refills: dict[int, Setting] = field(default_factory=dict)
    """By centroid: how many of its neighbours are to be fetched at least."""

    def centroids_left_out(self) -> frozenset[int]:
        """Centroids whose candidates leave the selection."""
        return frozenset(key for key, verdict in self.centroids.items() if verdict.action == "reject")

    def found(self) -> list[tuple[int, Found]]:
        """Pictures that searches found and people keep, in order of keeping."""
        kept = [(each.event, number) for number, each in self.images.items() if each.action == "keep"]
        every = ((number, self.images[number].found) for _, number in sorted(kept))
        return [(number, found) for number, found in every if found is not None]

    def quotas(self, count: int, default: int) -> npt.NDArray[np.int64]:
        """The quota of each centroid id, shape (count,).

        Args:
            count: Centroid ids: 0 to count - 1.
            default: Of those that have none of their own.
        """
        quotas = np.full(count, default, dtype=np.int64)
        for centroid, own in self.settings.items():
            if "quota_per_centroid" in own and 0 <= centroid < count:
                quotas[centroid] = own["quota_per_centroid"].value or 0
        return quotas

    def own_filters(self, filters: FiltersConfig) -> dict[int, FiltersConfig]:
        """The filters of each centroid that has one of its own.

        Args:
            filters: The [filters] table: what counts for the rest.
        """
        found = {}
        for centroid, own in self.settings.items():
            values: dict[str, Any] = {name: own[name].value for name in FILTERS if name in own}
            if "aesthetic_min" in values:
                values["aesthetic_min"] = replace(filters.aesthetic_min, value=values["aesthetic_min"])
            if values:
                found[centroid] = replace(filters, **values)
        return found

    def selection_digest(self) -> str:
        """SHA-256 over what `select` reads: verdicts on pictures, centroids left out, and their own settings."""
        left_out = {key: self.centroids[key] for key in self.centroids_left_out()}
        content: dict[str, Any] = {"images": _plain(self.images), "centroids": _plain(left_out)}
        if self.settings:
            content["settings"] = [
                [centroid, name, setting.value, setting.curator]
                for centroid, own in sorted(self.settings.items())
                for name, setting in sorted(own.items())
            ]
        return _digest(content)

    def caption_digest(self) -> str:
        """SHA-256 over what `release` reads: verdicts on captions."""
        return _digest({"captions": _plain(self.captions)})


def fold(events: Sequence[Event], centroids: str | None = None) -> Verdicts:
    """What events say together.

    An undo takes an event back for its own ids, and can be undone itself. Of what is left the later
    event counts.

    Args:
        events: All of them, in order of their numbers.
        centroids: Digest of the centroids manifest. Events on the centroids of another one don't count: there
            their numbers stood for other concepts. None counts them all.
    """
    verdicts = Verdicts()
    for event, ids in _standing(events):
        if event.target == "centroid" and centroids and event.centroids not in (None, centroids):
            continue
        if event.action == "note":
            if event.target == "image":
                verdicts.notes.update((int(each), (event.tag, event.text)) for each in ids)
        elif event.action in ("set", "refill"):
            _set(verdicts, event, [int(each) for each in ids])
        else:
            _decide(verdicts, event, ids, centroids)
    return verdicts


def _standing(events: Sequence[Event]) -> list[tuple[Event, list[int | str]]]:
    """Events that were not undone, in their order, each with the ids for which it was not; without the undos."""
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
    return standing[::-1]


def _decide(verdicts: Verdicts, event: Event, ids: Sequence[int | str], centroids: str | None) -> None:
    verdict = Verdict(
        action=event.action,
        curator=event.curator,
        event=event.event,
        centroid_id=event.centroid_id,
        reason=event.reason,
        text=None if event.tag == FOUND else event.text,
        time=event.time,
    )
    if event.target == "caption":
        verdicts.captions.update((str(each), verdict) for each in ids)
    elif event.target == "centroid":
        verdicts.centroids.update((int(each), verdict) for each in ids)
    else:
        rows = _rows_of(event, centroids)
        for each in map(int, ids):
            before = verdicts.images.get(each)
            # A later word on it, in the centroid's own grid say, leaves it where it was found.
            found = rows.get(each) or (before.found if before is not None else None)
            verdicts.images[each] = verdict if found is None else replace(verdict, found=found)


def _rows_of(event: Event, centroids: str | None) -> Mapping[int, Found]:
    if event.action != "keep" or event.tag != FOUND or event.centroid_id is None:
        return {}
    if centroids and event.centroids not in (None, centroids):
        return {}
    return found_rows(event.text or "", event.centroid_id)


def _set(verdicts: Verdicts, event: Event, ids: Sequence[int]) -> None:
    setting = Setting(value=value_of(event), curator=event.curator, event=event.event, time=event.time)
    for centroid in ids:
        if event.action == "refill":
            verdicts.refills[centroid] = setting
        elif event.text is None:
            verdicts.settings.get(centroid, {}).pop(event.tag or "", None)
        else:
            verdicts.settings.setdefault(centroid, {})[event.tag or ""] = setting


def _plain(verdicts: dict[int, Verdict] | dict[str, Verdict]) -> list[list[str | None]]:
    """Sorted rows; without event numbers, so that an undone and repeated decision changes nothing."""
    rows = (
        (str(key), value.action, value.curator, value.reason, value.text) for key, value in verdicts.items()
    )
    return [list(row) for row in sorted(rows, key=lambda row: row[0])]


def _digest(content: object) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
