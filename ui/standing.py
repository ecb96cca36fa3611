"""What counts now for every picture, centroid and caption, kept up event by event.

The same as folding all events anew (`curation.verdicts.fold`), at the cost of the ids of the new event alone:
a day's log of a team is long, and every key press asks.
"""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import TypeVar

from curation.events import Event
from curation.found import Found
from curation.verdicts import Verdict, Verdicts, fold

Id = int | str
K = TypeVar("K")
V = TypeVar("V")


class Standing:
    """Verdicts and notes as they stand after the events added so far."""

    def __init__(self, centroids: str | None = None) -> None:
        """Args: centroids: Digest of the centroids manifest; what was decided on other centroids doesn't count."""
        self._centroids = centroids
        self.verdicts = Verdicts()
        self.counts: dict[int, tuple[int, int]] = {}
        """Pictures kept and rejected by people, by the centroid they were decided in."""
        self.disputed: dict[int, int] = {}
        """Picture on which curators differ, and the centroid where it was decided last."""
        self.found: dict[int, dict[int, Found]] = {}
        """Pictures that a search found and people keep, by the centroid they are kept in and by id."""
        self._events: dict[tuple[str, Id], list[Event]] = {}

    def add(self, event: Event) -> None:
        """Take the next event into account."""
        for each in event.ids:
            events = self._events.setdefault((event.target, each), [])
            events.append(replace(event, ids=(each,)))
            now = fold(events, self._centroids)
            if event.target == "image":
                before = self.verdicts.images.get(int(each))
                self._count(before, -1)
                _set(self.verdicts.images, now.images, int(each))
                _set(self.verdicts.notes, now.notes, int(each))
                self._count(self.verdicts.images.get(int(each)), 1)
                self._find(int(each), before)
                self._dispute(int(each))
            elif event.target == "centroid":
                _set(self.verdicts.centroids, now.centroids, int(each))
                _set(self.verdicts.settings, now.settings, int(each))
                _set(self.verdicts.refills, now.refills, int(each))
            else:
                _set(self.verdicts.captions, now.captions, str(each))

    def standing(self, target: str, ids: Iterable[Id]) -> list[Event]:
        """Every keep and reject of these that was not undone, each with its ids of them, newest first.

        All of them, not the latest alone: undoing that one would bring the verdict before it back.
        """
        found: dict[int, Event] = {}
        for each in ids:
            for event in _not_undone(self._events.get((target, each), ())):
                if event.action in ("keep", "reject"):
                    known = found.get(event.event)
                    found[event.event] = replace(event, ids=(*(known.ids if known else ()), each))
        return [found[number] for number in sorted(found, reverse=True)]

    def places(self, pictures: Iterable[int]) -> set[int]:
        """The centroids in which anything was decided on these pictures."""
        events = (event for each in pictures for event in self._events.get(("image", each), ()))
        return {event.centroid_id for event in events if event.centroid_id is not None}

    def judgements(self, picture: int) -> dict[str, str]:
        """What each curator last said of a picture: keep or reject by name."""
        events = _not_undone(self._events.get(("image", picture), ()))
        return {
            event.curator: event.action for event in reversed(events) if event.action in ("keep", "reject")
        }

    def _dispute(self, picture: int) -> None:
        verdict = self.verdicts.images.get(picture)
        if verdict is None or verdict.centroid_id is None or len(set(self.judgements(picture).values())) < 2:
            self.disputed.pop(picture, None)
        else:
            self.disputed[picture] = verdict.centroid_id

    def _find(self, picture: int, before: Verdict | None) -> None:
        if before is not None and before.found is not None:
            self.found.get(before.found.centroid_id, {}).pop(picture, None)
        now = self.verdicts.images.get(picture)
        if now is not None and now.found is not None and now.action == "keep":
            self.found.setdefault(now.found.centroid_id, {})[picture] = now.found

    def _count(self, verdict: Verdict | None, by: int) -> None:
        if verdict is None or verdict.centroid_id is None:
            return
        kept, rejected = self.counts.get(verdict.centroid_id, (0, 0))
        self.counts[verdict.centroid_id] = (
            kept + by * (verdict.action == "keep"),
            rejected + by * (verdict.action == "reject"),
        )


def _not_undone(events: Sequence[Event]) -> list[Event]:
    """Events of one id that still stand, newest first."""
    undone, left = set[int](), []
    for event in reversed(events):
        if event.event in undone:
            continue
        if event.action == "undo" and event.undoes is not None:
            undone.add(event.undoes)
        else:
            left.append(event)
    return left


def _set(into: dict[K, V], found: dict[K, V], key: K) -> None:
    if key in found:
        into[key] = found[key]
    else:
        into.pop(key, None)
