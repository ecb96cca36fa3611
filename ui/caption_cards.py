"""A picture of the Captions page with all its captions side by side, as the page gets it.

Nothing here reads a file. Ids leave as decimal text, since a browser's numbers hold 53 bits.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from curation.caption_choice import choose
from curation.verdicts import Verdict
from spine.filters import RULES
from ui.board import BLOCKED, READY, state_of_image
from ui.caption_list import STATES, flag_names, state_of

Row = dict[str, Any]

_TOLD = (
    "caption_id",
    "status",
    "reason",
    "message",
    "caption",
    "raw_caption",
    "other_raw_caption",
    "clean_caption",
    "model",
    "engine",
    "prompt_id",
    "captioner",
    "take",
    "finish_reason",
    "words",
    "tokens",
    "repetition",
    "speculation",
    "interpretation",
    "retried_for",
    "clip",
    "worst",
)


def card(
    *,
    picture_id: int,
    centroid: int,
    label: str,
    image: Row,
    unsafe: float | None,
    alt: str | None,
    rule: str | None,
    captions: Sequence[tuple[bool, int, Row]],
    verdicts: Mapping[str, Verdict],
    limit: float,
) -> Row:
    """One picture with its captions.

    Args:
        picture_id: Its id.
        centroid: Where it is selected.
        label: Of the centroid.
        image: Its row of IMAGES, nulls where it was not fetched.
        unsafe: Its unsafe score, None where it isn't known.
        alt: Text that came with it.
        rule: The list rule that keeps it out; then nothing of it leaves.
        captions: Of each whether the captioner asked now wrote it, its flags and its row of CAPTIONS; those of the
            captioner asked now first.
        verdicts: What curators said of them, by caption id.
        limit: Unsafe score above which a picture is blurred.
    """
    shown: Row = {"id": str(picture_id), "centroid": str(centroid), "label": label}
    if rule is not None:
        return shown | {
            "state": "blocked",
            "picture": {"state": BLOCKED, "reason": RULES[rule]},
            "captions": [],
        }
    choice = choose(
        [row for own, _, row in captions if own], [row for own, _, row in captions if not own], verdicts
    )
    chosen = choice.row["caption_id"] if choice.row is not None and choice.text is not None else None
    return shown | {
        "state": STATES[state_of(choice, verdicts)],
        "picture": _picture(image, unsafe, limit),
        "alt": alt,
        "text": choice.text,
        "edited_by": choice.edited_by,
        "captions": [
            _caption(own, flags, row, verdicts.get(row["caption_id"]), row["caption_id"] == chosen)
            for own, flags, row in captions
        ],
    }


def _picture(image: Row, unsafe: float | None, limit: float) -> Row:
    shown = state_of_image(image)
    if shown["state"] == READY:
        shown |= {
            "width": image["width"],
            "height": image["height"],
            "blurred": unsafe is None or not unsafe <= limit,
        }
    return shown


def _caption(own: bool, flags: int, row: Row, verdict: Verdict | None, counts: bool) -> Row:
    told = {name: row.get(name) for name in _TOLD} | {
        "own": own,
        "flags": flag_names(flags),
        "counts": counts,
    }
    said: Row = {"decision": None, "curator": None, "said": None, "edited": None, "event": 0}
    if verdict is not None:
        said = {
            "decision": verdict.action,
            "curator": verdict.curator,
            "said": verdict.reason,
            "edited": verdict.text,
            "event": verdict.event,
        }
    return told | said
