"""Decisions as pages send them, turned into events of `curation.decisions`.

A page numbers what its curator does and sends it in order until it is acknowledged. What it sends again
changes nothing: of each page the highest number recorded is known, and all up to it is done.
"""

import contextlib
import threading
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from curation.decisions import Decisions
from curation.events import TARGETS, Conflict, Event
from curation.found import FOUND, Found
from curation.verdicts import Verdict, Verdicts
from spine.errors import DataError
from spine.run import Run
from ui.deeds import CLEAR, REDO, Deeds, deed_key
from ui.sent_events import carrying, event_of, name_of, still_there
from ui.standing import Id, Standing

_CHANGES_TOLD = 2_000


@dataclass(frozen=True, slots=True)
class Said:
    """What people said of pictures, by picture id."""

    verdicts: dict[int, Verdict]
    notes: dict[int, tuple[str | None, str | None]]
    """Tag and text of the latest note."""
    differing: dict[int, dict[str, str]]
    """What each curator last said, of those on which curators differ."""


class DecisionLog:
    """The decisions of a run for its pages. Used from several threads."""

    def __init__(self, run: Run, centroids: Callable[[], str | None] = lambda: None) -> None:
        """Args: run: Whose decisions. centroids: Tells the digest of its centroids manifest, as it is now."""
        self._decisions = Decisions.open(run.decisions)
        self._centroids = centroids
        self._lock = threading.RLock()  # over what is told below; never held while the disk is waited for
        self._recording = threading.Lock()  # over a page's deeds, which are recorded one after another
        self._holding = contextlib.ExitStack()
        self._is_held = False
        self._begin(None)

    def close(self) -> None:
        """Let go of the file."""
        with self._lock:
            self._holding.close()
            self._is_held = False

    def _begin(self, centroids: str | None) -> None:
        self._of = centroids
        self._last_event = 0
        self._recent: list[Event] = []
        self._highest: dict[str, int] = {}
        self._standing = Standing(centroids)
        self._deeds = Deeds()

    def said(self, ids: Sequence[int]) -> Said:
        """What people last said of these pictures; those nobody said anything of are left out."""
        with self._lock:
            self._catch_up()
            now = self._standing.verdicts
            return Said(
                {picture: now.images[picture] for picture in ids if picture in now.images},
                {picture: now.notes[picture] for picture in ids if picture in now.notes},
                self._differing(ids),
            )

    def judgements(self, ids: Sequence[int]) -> dict[int, dict[str, str]]:
        """What each curator last said, of those pictures on which curators differ."""
        with self._lock:
            self._catch_up()
            return self._differing(ids)

    def _differing(self, ids: Sequence[int]) -> dict[int, dict[str, str]]:
        images = self._standing.verdicts.images
        said = {picture: self._standing.judgements(picture) for picture in ids if picture in images}
        return {picture: words for picture, words in said.items() if len(set(words.values())) > 1}

    def agreement(self) -> dict[str, int]:
        """Pictures that several curators judged, and those of them on which they differ."""
        with self._lock:
            self._catch_up()
            said = [
                set(words.values())
                for words in map(self._standing.judgements, self._standing.verdicts.images)
                if len(words) > 1
            ]
        return {"several": len(said), "differently": sum(len(words) > 1 for words in said)}

    def centroids(self) -> dict[int, Verdict]:
        """Centroids that are done (keep) or left out (reject)."""
        with self._lock:
            self._catch_up()
            return dict(self._standing.verdicts.centroids)

    def own_settings(self) -> dict[int, dict[str, float | int | None]]:
        """What centroids have of their own, by centroid and setting; "refill" is the depth that was asked for."""
        with self._lock:
            self._catch_up()
            now = self._standing.verdicts
            return {number: _own(now, number) for number in {*now.settings, *now.refills}}

    def captions(self) -> dict[str, Verdict]:
        """What people last said of captions, by caption id."""
        with self._lock:
            self._catch_up()
            return dict(self._standing.verdicts.captions)

    def counts(self) -> dict[int, tuple[int, int]]:
        """Pictures kept and rejected by people, by the centroid they were decided in."""
        with self._lock:
            self._catch_up()
            return {number: pair for number, pair in self._standing.counts.items() if any(pair)}

    def disputed(self) -> Counter[int]:
        """Pictures on which curators differ, by centroid."""
        with self._lock:
            self._catch_up()
            return Counter(self._standing.disputed.values())

    def found(self, centroid: int) -> dict[int, Found]:
        """What searches found and people keep in a centroid, by picture; as of the last look at the file."""
        with self._lock:
            return dict(self._standing.found.get(centroid, {}))

    def found_counts(self) -> dict[int, int]:
        """How many these are, by centroid."""
        with self._lock:
            self._catch_up()
            return {number: len(found) for number, found in self._standing.found.items() if found}

    def last_event(self) -> int:
        """Number of the newest event, 0 where there is none."""
        with self._lock:
            self._catch_up()
            return self._last_event

    def since(self, event: int) -> dict[str, Any]:
        """What changed after this event, as `record` tells it.

        Where it was too much to tell, "all" is true and the page asks for everything again.
        """
        with self._lock:
            self._catch_up()
            fresh = [entry for entry in self._recent if entry.event > event]
            told = event >= self._last_event or (bool(fresh) and fresh[0].event == event + 1)
            return self._told(fresh if told else []) | {"all": not told}

    def record(
        self,
        content: Any,
        neighbours: str | None,
        are_there: Callable[[int, Sequence[int]], set[int]] | None = None,
        found: Callable[[str, Sequence[int]], Mapping[int, Mapping[str, Any]]] | None = None,
    ) -> dict[str, Any]:
        """Record what a page sent, in its order.

        Args:
            content: {"client", "curator", "events": [{"seq", "action", "target", "ids", "centroid_id",
                "tag", "reason", "text", "filter", "last_seen"}]}; action is keep, reject, note, clear, undo
                or redo; target is image where it isn't named; ids are text, decimal but for captions. An undo
                or redo is of the last deed on captions where that is its target, else of the last on all else.
            neighbours: Digest of the neighbours as they are. Where the page names another as "neighbours", it
                shows what is no more.
            are_there: Tells which of a centroid's pictures still are among its neighbours.
            found: Tells what the pool says of pictures that a search found, as far as it is known still. A keep
                that names its search as "like" makes them candidates of its centroid.

        Returns:
            The highest number done, what now counts for all that was concerned, the counts of the centroids
            concerned, the ids left alone because another curator had decided on them, those that are gone, and as
            "unplaced" those that are kept but of which nobody knows any more what the pool says.

        Raises:
            DataError: It has another form, or can't be recorded; nothing after the wrong event is.
        """
        client, curator = name_of(content, "client"), name_of(content, "curator")
        sent = content.get("events")
        if not isinstance(sent, list) or not sent:
            raise DataError("events: a list of at least one was needed")
        seen = content.get("neighbours") or neighbours
        stale = are_there if seen != neighbours else None
        concerned: list[Event] = []
        conflicts: list[Conflict] = []
        gone: list[int] = []
        unplaced: list[int] = []
        with self._recording:
            with self._lock:
                self._catch_up()
            for entry in sent:
                event = event_of(entry, client, curator, seen if isinstance(seen, str) else None)
                event, missing = still_there(event, stale)
                gone += missing
                if missing and not event.ids:
                    continue
                event, unknown = carrying(event, entry, found)
                unplaced += unknown
                events, left_alone = self._record(event)
                concerned += events
                conflicts += left_alone
            with self._lock:
                told = self._told(concerned)
        return {
            "acknowledged": max(int(entry["seq"]) for entry in sent),
            **told,
            "conflicts": [
                {"id": str(entry.id), "curator": entry.curator, "action": entry.action} for entry in conflicts
            ],
            "gone": [str(each) for each in gone],
            "unplaced": [str(each) for each in unplaced],
        }

    def _record(self, event: Event) -> tuple[list[Event], Sequence[Conflict]]:
        """Record one deed that wasn't yet: what it came to, and what another's decision kept out of it."""
        with self._lock:
            if event.target == "centroid" or event.tag == FOUND:
                event = replace(event, centroids=self._of)
            if event.seq <= self._highest.get(event.client, 0):
                return [event], ()
            events = self._resolved(event)
        if not events:
            return [], ()
        conflicts = self._decisions.record(events).conflicts
        with self._lock:
            self._catch_up()
        return events, conflicts

    def _told(self, events: Sequence[Event]) -> dict[str, Any]:
        """What now counts for all ids of these events."""
        ids: dict[str, dict[Id, None]] = {target: {} for target in TARGETS}
        for event in events:
            ids[event.target].update(dict.fromkeys(event.ids))
        now, counts = self._standing.verdicts, self._standing.counts
        places = self._standing.places(int(each) for each in ids["image"])
        return {
            "verdicts": {str(each): _shown(now.images.get(int(each))) for each in ids["image"]},
            "notes": {str(each): now.notes.get(int(each), (None, None)) for each in ids["image"]},
            "centroids": {
                str(each): _shown(now.centroids.get(int(each))) | {"own": _own(now, int(each))}
                for each in ids["centroid"]
            },
            "captions": {str(each): _shown(now.captions.get(str(each))) for each in ids["caption"]},
            "found": {str(place): len(self._standing.found.get(place, ())) for place in sorted(places)},
            "counts": {str(place): counts.get(place, (0, 0)) for place in sorted(places)},
            "last_event": self._last_event,
        }

    def _resolved(self, event: Event) -> list[Event]:
        """The events to record for one deed: itself, or the undos that a clear, an undo or a redo comes to."""
        if event.action == CLEAR:
            return _undos(event, self._standing.standing(event.target, event.ids), CLEAR)
        if event.action == "undo":
            return _undos(event, self._deeds.last(event), None)
        if event.action == REDO:
            return _undos(event, self._deeds.last_undone(event), REDO)
        return [event]

    def _catch_up(self) -> None:
        """Read what was recorded since, by whomever; all anew where the run has other centroids now."""
        centroids = self._centroids()
        if centroids != self._of:
            self._begin(centroids)
        for event in self._decisions.history(since=self._last_event):
            self._last_event = event.event
            self._standing.add(event)
            self._deeds.add(event)
            self._recent.append(event)
            page, number = deed_key(event)
            self._highest[page] = max(self._highest.get(page, 0), number)
        del self._recent[:-_CHANGES_TOLD]
        if not self._is_held and self._decisions.path.is_file():
            with contextlib.suppress(
                DataError
            ):  # no room for its journal, say: it is read without, and held later
                self._holding.enter_context(self._decisions.held())
                self._is_held = True


def _undos(event: Event, undone: Sequence[Event], tag: str | None) -> list[Event]:
    """One undo for each undone event; the first under the page's own name, the others beside it."""
    return [
        replace(
            event,
            client=event.client if place == 0 else f"{event.client}+{place}",
            action="undo",
            target=each.target,
            ids=each.ids,
            centroid_id=each.centroid_id,
            centroids=each.centroids,
            tag=tag,
            undoes=each.event,
        )
        for place, each in enumerate(undone)
    ]


def _own(now: Verdicts, centroid: int) -> dict[str, float | int | None]:
    own = {name: setting.value for name, setting in now.settings.get(centroid, {}).items()}
    return own | ({"refill": now.refills[centroid].value} if centroid in now.refills else {})


def _shown(verdict: Verdict | None) -> dict[str, Any]:
    if verdict is None:
        return {"decision": None, "curator": None}
    told = {"decision": verdict.action, "curator": verdict.curator}
    return told | {
        name: value for name in ("reason", "text") if (value := getattr(verdict, name)) is not None
    }
