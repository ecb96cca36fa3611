"""One more try for a caption that loops or was cut off; both answers are kept.

A loop is asked again with a light penalty on repeated words (not from the first, since it bears on the prompt's words
too), a caption that was cut off with twice the length.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from PIL import Image

from captioner.engine import CaptionFailure, Engine, Prepared, Reply
from captioner.quality import repetition
from spine.caption_flags import LOOP_REPETITION
from spine.errors import ConfigError
from spine.prompts import Prompt

REPETITION_PENALTY = 1.1
"""Of a second try for a loop: what the likelihood of words that are there already is divided by."""

LENGTHENED = 2
"""Times the length of the first try, for a caption that was cut off."""


@dataclass(frozen=True, slots=True)
class Answer:
    """The reply that stands, and the other one where there were two."""

    reply: Reply
    """Its `attempts` are those of both tries."""

    retried_for: str | None = None
    """loop or truncated; None where one try was enough."""

    other: str | None = None
    """What the try that doesn't stand said; None where there was none or it failed."""


def asked_twice(
    engine: Engine,
    images: Sequence[Image.Image | Prepared],
    replies: Sequence[Reply | CaptionFailure],
    prompt: Prompt,
    max_new_tokens: int,
) -> list[Answer | CaptionFailure]:
    """Ask again where a first reply loops or was cut off, and let the better one stand.

    The first stands where the second is no better, fails, or where the model has no room for a longer one.

    Args:
        engine: Who gave the replies.
        images: What was asked of, in order.
        replies: One for each image.
        prompt: What was asked.
        max_new_tokens: Length of the first try.
    """
    reasons = [reason_to_retry(reply) if isinstance(reply, Reply) else None for reply in replies]
    seconds: dict[int, Reply | CaptionFailure] = {}
    for reason, length, penalty in (
        ("loop", max_new_tokens, REPETITION_PENALTY),
        ("truncated", LENGTHENED * max_new_tokens, 1.0),
    ):
        places = [place for place, each in enumerate(reasons) if each == reason]
        if not places:
            continue
        try:
            again = engine.describe([images[place] for place in places], prompt, length, penalty)
        except ConfigError:  # the first try fitted, so it is the greater length that doesn't
            continue
        seconds.update(zip(places, again, strict=True))
    return [
        _better(reply, reasons[place], seconds.get(place)) if isinstance(reply, Reply) else reply
        for place, reply in enumerate(replies)
    ]


def reason_to_retry(reply: Reply) -> str | None:
    """Why a reply deserves a second try: loop, truncated, or None."""
    if repetition(reply.text) > LOOP_REPETITION:
        return "loop"
    return "truncated" if reply.finish_reason == "length" else None


def _better(first: Reply, reason: str | None, second: Reply | CaptionFailure | None) -> Answer:
    if second is None:
        return Answer(first, reason)
    attempts = first.attempts + second.attempts
    if isinstance(second, CaptionFailure) or not second.text.strip() or _faults(second) >= _faults(first):
        other = second.text if isinstance(second, Reply) else None
        return Answer(replace(first, attempts=attempts), reason, other)
    return Answer(replace(second, attempts=attempts), reason, first.text)


def _faults(reply: Reply) -> tuple[bool, bool]:
    """Whether it loops, and whether it was cut off: fewer is better, and a loop is worse."""
    return repetition(reply.text) > LOOP_REPETITION, reply.finish_reason == "length"
