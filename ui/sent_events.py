"""What a page sends of its curator's deeds, checked and made events."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from curation.events import ACTIONS, TARGETS, Event, ids_digest
from curation.found import FOUND, found_text, values_of
from spine.errors import DataError
from ui.deeds import CLEAR, REDO

_ACTIONS = (*ACTIONS, CLEAR, REDO)
_MAX_NAME = 80
_LONGEST = {"tag": 40, "reason": 500, "text": 20_000, "filter": 4_000}  # signs of an event's texts


def event_of(entry: Any, client: str, curator: str, neighbours: str | None) -> Event:
    """The event that an entry of a page's says.

    Raises:
        DataError: It has another form.
    """
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
            # The list that was decided on, so that the filter recorded with it can be held against it.
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


def still_there(
    event: Event, are_there: Callable[[int, Sequence[int]], set[int]] | None
) -> tuple[Event, list[int]]:
    """A verdict without the pictures that are no candidates any more, and those."""
    if are_there is None or event.target != "image" or event.action not in ("keep", "reject"):
        return event, []
    left = are_there(event.centroid_id or 0, [int(each) for each in event.ids])
    gone = [int(each) for each in event.ids if each not in left]
    return replace(event, ids=tuple(each for each in event.ids if each in left)), gone


def carrying(
    event: Event, entry: Any, found: Callable[[str, Sequence[int]], Mapping[int, Mapping[str, Any]]] | None
) -> tuple[Event, list[int]]:
    """A keep of what a search found with what the pool says of it, and the ids of which that isn't known."""
    if event.target != "image" or event.action not in ("keep", "reject"):
        return event, []
    # A page names its search; rows of the pool, with places and addresses, never come from a browser.
    event = replace(event, tag=None, text=None)
    like = entry.get("like")
    if found is None or event.action != "keep" or event.centroid_id is None or not isinstance(like, str):
        return event, []
    ids = [int(each) for each in event.ids]
    told = found(like, ids)
    rows = {number: values for number in ids if number in told and (values := values_of(told[number]))}
    if rows:
        event = replace(event, tag=FOUND, text=found_text(like, rows))
    return event, [number for number in ids if number not in rows]


def name_of(content: Any, key: str) -> str:
    """A page's own name, or its curator's.

    Raises:
        DataError: There is none, or it is too long.
    """
    value = content.get(key) if isinstance(content, dict) else None
    if not isinstance(value, str) or not value.strip() or len(value) > _MAX_NAME:
        raise DataError(f"{key}: a text of 1 to {_MAX_NAME} signs was needed")
    if key == "client" and not value.isalnum():
        raise DataError("client: letters and digits were needed")
    return value.strip()


def _caption_id(text: str) -> str:
    if not re.fullmatch(r"[0-9a-z]{1,64}", text):
        raise ValueError(f"{text[:80]!r} is no caption id")
    return text


def _text(entry: dict[str, Any], name: str) -> str | None:
    value = entry.get(name)
    if value is not None and (not isinstance(value, str) or len(value) > _LONGEST[name]):
        raise ValueError(f"{name}: a text of at most {_LONGEST[name]:,} signs was needed")
    return value or None
