"""What each curator did, one deed after another: what undo takes back, and redo brings again.

A deed is what one key press came to: one event, or the several undos that a clear or an undo is recorded as.
Pages and machines don't matter: a curator's last deed is the last one under that name.
"""

from dataclasses import dataclass, field

from curation.events import Event

CLEAR = "clear"
"""Tag of an undo that takes verdicts back, as against one that takes the last deed back."""
REDO = "redo"
"""Tag of an undo that takes an undo back."""

Key = tuple[str, int]


@dataclass(slots=True)
class _Stacks:
    done: list[Key] = field(default_factory=list)
    undone: list[tuple[Key, Key]] = field(default_factory=list)
    """A deed, and the deed that undid it."""


class Deeds:
    """The deeds of all curators, event by event."""

    def __init__(self) -> None:
        self._events: dict[Key, list[Event]] = {}
        self._deed_of: dict[int, Key] = {}
        self._stacks: dict[tuple[str, bool], _Stacks] = {}

    def add(self, event: Event) -> None:
        """Take the next event into account."""
        key = deed_key(event)
        fresh = key not in self._events
        self._events.setdefault(key, []).append(event)
        self._deed_of[event.event] = key
        if not fresh:
            return
        stacks = self._stacks.setdefault(_desk(event), _Stacks())
        undone = self._deed_of.get(event.undoes or 0)
        if event.action != "undo" or event.tag == CLEAR:
            stacks.done.append(key)
            stacks.undone.clear()
        elif event.tag == REDO:
            for pair in [pair for pair in stacks.undone if pair[1] == undone]:
                stacks.undone.remove(pair)
                stacks.done.append(pair[0])
        elif undone is not None and undone in stacks.done:
            stacks.done.remove(undone)
            stacks.undone.append((undone, key))

    def last(self, undo: Event) -> list[Event]:
        """The events of the deed that an undo would take back; empty where there is none."""
        stacks = self._stacks.get(_desk(undo))
        return self._events[stacks.done[-1]] if stacks and stacks.done else []

    def last_undone(self, redo: Event) -> list[Event]:
        """The events of the undo that a redo would take back; empty where there is none."""
        stacks = self._stacks.get(_desk(redo))
        return self._events[stacks.undone[-1][1]] if stacks and stacks.undone else []


def _desk(event: Event) -> tuple[str, bool]:
    """Captions are decided on a page of their own: undo there takes back what was done there."""
    return event.curator, event.target == "caption"


def deed_key(event: Event) -> Key:
    """Events of one page and one number are one deed."""
    return event.client.split("+", 1)[0], event.seq
