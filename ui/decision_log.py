"""Decisions as pages send them, turned into events of `curation.decisions`.

A page numbers what its curator does and sends it in order until it is acknowledged. What it sends again
changes nothing: of each page the highest number recorded is known, and all up to it is done.
"""

import re
import threading
from collections.abc import Sequence
from typing import Any

from curation import verdicts as curation_verdicts
from curation.decisions import Decisions
from curation.events import TARGETS, Conflict, Event, ids_digest
from curation.verdicts import Verdicts, fold
from spine.errors import DataError
from spine.run import Run
from ui.board import Verdict, decided_counts

_CLEAR = "clear"  # tag of an undo that takes verdicts back, as against one that takes the last deed back
_ACTIONS = ("keep", "reject", "note", _CLEAR, "undo")
_MAX_NAME = 80
_LONGEST = {"tag": 40, "reason": 500, "text": 20_000, "filter": 4_000}  # signs of an event's texts


class DecisionLog:
    """The decisions of a run for its pages. Used from several threads."""

    def __init__(self, run: Run) -> None:
        self._decisions = Decisions.open(run.decisions)
        self._lock = threading.RLock()
        self._events: list[Event] = []
        self._highest: dict[str, int] = {}
        self._folded: tuple[int, Verdicts] = (0, Verdicts())

    def verdicts(self, ids: Sequence[int]) -> dict[int, Verdict]:
        """What people last said of these pictures; those nobody decided on are left out."""
        images = self._fold().images
        return {
            picture: Verdict(images[picture].action, images[picture].curator)
            for picture in ids
            if picture in images
        }

    def counts(self) -> dict[int, tuple[int, int]]:
        """Pictures kept and rejected by people, by the centroid they were decided in."""
        verdicts = self._fold().images.values()
        return decided_counts(
            (verdict.centroid_id, verdict.action) for verdict in verdicts if verdict.centroid_id is not None
        )

    def captions(self) -> dict[str, curation_verdicts.Verdict]:
        """What people last said of captions, by caption id."""
        return self._fold().captions

    def last_event(self) -> int:
        """Number of the newest event, 0 where there is none."""
        with self._lock:
            self._catch_up()
            return self._events[-1].event if self._events else 0

    def record(self, content: Any, neighbours: str | None) -> dict[str, Any]:
        """Record what a page sent, in its order.

        Args:
            content: {"client", "curator", "events": [{"seq", "action", "target", "ids", "centroid_id", "last_seen",
                "tag", "reason", "text", "filter"}]}; action is keep, reject, note, clear or undo; target is image
                where it is missing; ids are decimal text, those of captions as they are. An undo takes back the
                last deed on captions where that is its target, else the last on anything else.
            neighbours: Digest of the neighbours that are decided on.

        Returns:
            The highest number done, what now counts for the pictures, centroids and captions concerned, the counts of
            every centroid with a decision, and the ids left alone because another curator had decided on them.

        Raises:
            DataError: It has another form, or can't be recorded; nothing after the wrong event is.
        """
        client, curator = _name(content, "client"), _name(content, "curator")
        sent = content.get("events")
        if not isinstance(sent, list) or not sent:
            raise DataError("events: a list of at least one was needed")
        concerned: dict[str, set[int | str]] = {target: set() for target in TARGETS}
        conflicts: list[Conflict] = []
        with self._lock:
            self._catch_up()
            for entry in sent:
                event = _event(entry, client, curator, neighbours)
                if event.seq > self._highest.get(client, 0):
                    events = self._resolved(event)
                    if events:
                        conflicts += self._decisions.record(events).conflicts
                        self._catch_up()
                    for known in events:
                        concerned[known.target].update(known.ids)
                else:
                    concerned[event.target].update(event.ids)
            folded = self._fold()
        images: dict[Any, Any] = folded.images
        centroids: dict[Any, Any] = folded.centroids
        captions: dict[Any, Any] = folded.captions
        return {
            "acknowledged": max(int(entry["seq"]) for entry in sent),
            "verdicts": {str(each): _said(images.get(each)) for each in concerned["image"]},
            "centroids": {str(each): _said(centroids.get(each)) for each in concerned["centroid"]},
            "captions": {str(each): _said(captions.get(each)) for each in concerned["caption"]},
            "counts": {str(centroid): pair for centroid, pair in self.counts().items()},
            "conflicts": [
                {"id": str(entry.id), "curator": entry.curator, "action": entry.action} for entry in conflicts
            ],
            "last_event": self.last_event(),
        }

    def _resolved(self, event: Event) -> list[Event]:
        """The events to record for one deed: itself, or the undos that a clear or an undo comes to."""
        if event.action == _CLEAR:
            return _undos(event, self._standing(event), tag=_CLEAR)
        if event.action == "undo":
            last = self._last_deed(event)
            return _undos(event, [(entry, list(entry.ids)) for entry in last], tag=None)
        return [event]

    def _standing(self, cleared: Event) -> list[tuple[Event, list[int | str]]]:
        """Every keep and reject of what is to be cleared that was not undone, with its ids of them.

        All of them, not the latest alone: undoing that one would bring the verdict before it back.
        """
        wanted, undone, standing = set(cleared.ids), set[tuple[int, int | str]](), []
        for event in reversed(self._events):
            if event.target != cleared.target:
                continue
            left = [each for each in event.ids if each in wanted and (event.event, each) not in undone]
            if event.action == "undo" and event.undoes is not None:
                undone.update((event.undoes, each) for each in left)
            elif event.action in ("keep", "reject") and left:
                standing.append((event, left))
        return standing

    def _last_deed(self, undo: Event) -> list[Event]:
        """The events of a curator's last deed that was not undone; one page's events of one number are one deed."""
        deeds: dict[int, Event] = {}
        for event in self._events:
            if event.curator != undo.curator or (event.target == "caption") != (undo.target == "caption"):
                continue
            if event.action == "undo" and event.tag != _CLEAR:
                deeds.pop(event.undoes or 0, None)
            else:
                deeds[event.event] = event
        if not deeds:
            return []
        last = deeds[max(deeds)]
        return [event for event in deeds.values() if _deed(event) == _deed(last)]

    def _fold(self) -> Verdicts:
        with self._lock:
            self._catch_up()
            newest = self._events[-1].event if self._events else 0
            if self._folded[0] != newest:
                self._folded = (newest, fold(self._events))
            return self._folded[1]

    def _catch_up(self) -> None:
        """Read what was recorded since, by whomever."""
        fresh = self._decisions.history(since=self._events[-1].event if self._events else 0)
        self._events += fresh
        for event in fresh:
            page, number = _deed(event)
            self._highest[page] = max(self._highest.get(page, 0), number)


def _said(verdict: curation_verdicts.Verdict | None) -> dict[str, Any]:
    """A verdict as pages get it."""
    if verdict is None:
        return {"decision": None, "curator": None}
    said = {"decision": verdict.action, "curator": verdict.curator}
    more = {"reason": verdict.reason, "text": verdict.text}
    return said | {name: value for name, value in more.items() if value is not None}


def _event(entry: Any, client: str, curator: str, neighbours: str | None) -> Event:
    if not isinstance(entry, dict):
        raise DataError(f"{entry!r} is no event")
    action, target, ids = entry.get("action"), entry.get("target", "image"), entry.get("ids", [])
    if action not in _ACTIONS or target not in TARGETS:
        raise DataError(f"{action!r} of {target!r} is none of {', '.join(_ACTIONS)} of {', '.join(TARGETS)}")
    if not isinstance(ids, list) or not all(isinstance(each, str) for each in ids):
        raise DataError("ids: a list of texts was needed, decimal but for captions")
    try:
        named = tuple(_caption_id(each) if target == "caption" else int(each) for each in ids)
        texts = {name: _text(entry, name) for name in _LONGEST}
        return Event(
            client=client,
            seq=int(entry["seq"]),
            curator=curator,
            action=action,
            target=target,
            ids=named,
            centroid_id=None if entry.get("centroid_id") is None else int(entry["centroid_id"]),
            ids_digest=ids_digest(named) if texts["filter"] else None,
            neighbours=neighbours,
            last_seen=int(entry.get("last_seen", 0)),
            tag=texts["tag"],
            reason=texts["reason"],
            text=texts["text"],
            filter=texts["filter"],
        )
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(f"an event has a wrong or missing value: {error}") from None


def _caption_id(text: str) -> str:
    if not re.fullmatch(r"[0-9a-z]{1,64}", text):
        raise ValueError(f"{text[:80]!r} is no caption id")
    return text


def _text(entry: dict[str, Any], name: str) -> str | None:
    value = entry.get(name)
    if value is not None and (not isinstance(value, str) or len(value) > _LONGEST[name]):
        raise ValueError(f"{name}: a text of at most {_LONGEST[name]:,} signs was needed")
    return value or None


def _undos(event: Event, undone: list[tuple[Event, list[int | str]]], *, tag: str | None) -> list[Event]:
    """One undo for each undone event; the first under the page's own name, the others beside it."""
    return [
        Event(
            client=event.client if place == 0 else f"{event.client}+{place}",
            seq=event.seq,
            curator=event.curator,
            action="undo",
            target=taken.target,
            ids=tuple(ids),
            centroid_id=event.centroid_id,
            tag=tag,
            neighbours=event.neighbours,
            last_seen=event.last_seen,
            undoes=taken.event,
        )
        for place, (taken, ids) in enumerate(undone)
    ]


def _deed(event: Event) -> tuple[str, int]:
    return event.client.split("+", 1)[0], event.seq


def _name(content: Any, key: str) -> str:
    value = content.get(key) if isinstance(content, dict) else None
    if not isinstance(value, str) or not value.strip() or len(value) > _MAX_NAME:
        raise DataError(f"{key}: a text of 1 to {_MAX_NAME} signs was needed")
    if key == "client" and not value.isalnum():
        raise DataError("client: letters and digits were needed")
    return value.strip()
