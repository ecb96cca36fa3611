"""Which pictures the Captions page lists, in which order, and what each of their captions has come to.

Nothing here reads a file.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from curation.caption_choice import Choice, choose
from curation.verdicts import Verdict
from ui.caption_tables import CLIP, FLAG_MEANINGS, MEASURES, Captions

STATES = ("new", "kept", "edited", "rejected", "failed", "missing")
"""What a picture's caption has come to: not looked at, kept as it is, written by a curator, rejected without another;
the captioner failed; it was not asked yet."""

NEW, KEPT, EDITED, REJECTED, FAILED, MISSING = range(len(STATES))

ORDERS = ("centroid", *(sign + name for name in (*MEASURES, CLIP) for sign in ("", "-")))
"""By centroid and rank, or by a measure, with "-" the largest first."""

ANY, NONE = "any", "none"
"""Instead of a flag's name: captions with any flag, and those with none. `retried` alone is no flag then."""

_GRAVE = sum(1 << place for place, name in enumerate(FLAG_MEANINGS) if name != "retried")

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, kw_only=True, slots=True)
class Asked:
    """What a page wants to see."""

    show: str = ""
    """One of STATES, empty for all."""
    flag: str = ""
    """One of FLAG_MEANINGS, ANY or NONE, empty for all."""
    centroid: int | None = None
    sort: str = "centroid"
    """One of ORDERS."""


@dataclass(frozen=True, slots=True)
class CaptionList:
    """The selected pictures in the order asked for."""

    ids: Ints
    """All of them, shape (n,)."""
    centroids: Ints
    """Where each is selected, shape (n,)."""
    states: npt.NDArray[np.int8]
    """Places in STATES, shape (n,)."""
    own: Ints
    """Place of its caption in Captions, -1 for none, shape (n,)."""
    shown: Ints
    """Places of those asked for, in order."""
    counts: dict[str, int]
    """Pictures by state, within the centroid asked for."""
    flagged: dict[str, int]
    """Pictures by flag, within the centroid and state asked for; ANY and NONE too."""

    def start(
        self, *, begin: int | None, after: int | None, before: int | None, limit: int
    ) -> tuple[int, bool]:
        """Where a page of `shown` begins.

        Args:
            begin: Id of the first picture.
            after: Id of the picture before the first.
            before: Id of the picture after the last. One of the three, or none for the first page.
            limit: Pictures on the page.

        Returns:
            Place in `shown`, and whether the picture named is still selected.
        """
        named = next((each for each in (begin, after, before) if each is not None), None)
        if named is None:
            return 0, True
        found = np.flatnonzero(self.ids == named)
        if not len(found):
            return 0, False
        at = int(np.searchsorted(self.shown, found[0], side="right" if after is not None else "left"))
        return (max(0, at - limit) if before is not None else at), True


def caption_list(
    selection: pa.Table, captions: Captions, verdicts: Mapping[str, Verdict], asked: Asked
) -> CaptionList:
    """The selected pictures with what their captions have come to.

    Args:
        selection: Rows of SELECTION, in order of centroid and rank.
        captions: All there are.
        verdicts: What curators said, by caption id.
        asked: What to show.
    """
    chosen = selection.filter(pc.equal(selection["verdict"], "selected"))
    every = np.asarray(chosen["id"].to_numpy(), dtype=np.int64)
    first = np.sort(np.unique(every, return_index=True)[1])
    ids = every[first]
    centroids = np.asarray(chosen["centroid_id"].to_numpy(), dtype=np.int64)[first]
    own = _own_places(ids, captions)
    order = _order(own, captions, asked.sort)
    ids, centroids, own = ids[order], centroids[order], own[order]
    states = _states(ids, own, captions, verdicts)
    bits = np.where(own >= 0, captions.flags[own] if len(captions.flags) else 0, 0)
    here = np.ones(len(ids), dtype=bool) if asked.centroid is None else centroids == asked.centroid
    counts = Counter(states[here].tolist())
    if asked.show:
        here &= states == STATES.index(asked.show)
    has_text = (own >= 0) & (states != FAILED)
    flagged = {
        name: int((bits[here & has_text] >> place & 1).sum()) for place, name in enumerate(FLAG_MEANINGS)
    }
    for name in (ANY, NONE):
        flagged[name] = int((here & has_text & _has(bits, name)).sum())
    if asked.flag:
        here &= has_text & _has(bits, asked.flag)
    return CaptionList(
        ids=ids,
        centroids=centroids,
        states=states,
        own=own,
        shown=np.flatnonzero(here),
        counts={name: counts.get(place, 0) for place, name in enumerate(STATES)},
        flagged=flagged,
    )


def places_of(captions: Captions, ids: Ints) -> dict[int, list[int]]:
    """For each of these pictures the places of all its captions, those of the captioner asked now first."""
    found: dict[int, list[int]] = {int(each): [] for each in ids}
    for place in np.flatnonzero(np.isin(captions.ids, ids)).tolist():
        found[int(captions.ids[place])].append(place)
    return found


def flag_names(bits: int) -> list[str]:
    """The flags whose bits are set."""
    return [name for place, name in enumerate(FLAG_MEANINGS) if bits >> place & 1]


def state_of(choice: Choice, verdicts: Mapping[str, Verdict]) -> int:
    """Place in STATES of the caption that counts for a picture."""
    if choice.edited_by is not None:
        return EDITED
    if choice.text is None:
        return {"rejected": REJECTED, "missing": MISSING}.get(choice.reason, FAILED)
    return KEPT if choice.row is not None and choice.row["caption_id"] in verdicts else NEW


def _own_places(ids: Ints, captions: Captions) -> Ints:
    mine = np.flatnonzero(captions.own)
    if not len(mine):
        return np.full(len(ids), -1, dtype=np.int64)
    order = mine[np.argsort(captions.ids[mine], kind="stable")]
    sorted_ids = captions.ids[order]
    at = np.minimum(np.searchsorted(sorted_ids, ids), len(order) - 1)
    return np.where(sorted_ids[at] == ids, order[at], -1)


def _order(own: Ints, captions: Captions, sort: str) -> Ints:
    """Stable: equal ones stay in order of centroid and rank; those without a caption come last."""
    if sort == "centroid" or not len(captions.ids):
        return np.arange(len(own))
    values = np.where(own >= 0, captions.measures[sort.removeprefix("-")][own], np.nan)
    return np.argsort(-values if sort.startswith("-") else values, kind="stable")


def _has(bits: Ints, flag: str) -> npt.NDArray[np.bool_]:
    if flag in (ANY, NONE):
        return np.asarray(((bits & _GRAVE) != 0) == (flag == ANY))
    return np.asarray((bits >> list(FLAG_MEANINGS).index(flag) & 1) == 1)


def _states(
    ids: Ints, own: Ints, captions: Captions, verdicts: Mapping[str, Verdict]
) -> npt.NDArray[np.int8]:
    captioned = captions.captioned[own] if len(captions.ids) else np.zeros(len(own), dtype=bool)
    states = np.where(own < 0, MISSING, np.where(captioned, NEW, FAILED)).astype(np.int8)
    if not verdicts or not len(captions.ids):
        return states
    said = pc.is_in(captions.names, value_set=pa.array(list(verdicts), pa.string()))
    touched = np.unique(captions.ids[np.asarray(said.to_numpy(zero_copy_only=False), dtype=bool)])
    place_of = {int(ids[place]): place for place in np.flatnonzero(np.isin(ids, touched)).tolist()}
    for number, places in places_of(captions, touched).items():
        if number in place_of:
            rows: list[tuple[bool, dict[str, Any]]] = [
                (bool(captions.own[at]), _brief(captions, at)) for at in places
            ]
            choice = choose(
                [row for is_own, row in rows if is_own], [row for is_own, row in rows if not is_own], verdicts
            )
            states[place_of[number]] = state_of(choice, verdicts)
    return states


def _brief(captions: Captions, place: int) -> dict[str, Any]:
    """As much of a row as choosing needs."""
    ok = bool(captions.captioned[place])
    return {
        "caption_id": captions.names[place].as_py(),
        "status": "captioned" if ok else "failed",
        "reason": None if ok else "failed",
        "caption": "" if ok else None,
    }
