"""One caption as a row of the table: the text, who was asked what, and what was measured."""

from dataclasses import asdict
from typing import Any

from captioner.cleaning import cleaned
from captioner.engine import CaptionFailure, Setup
from captioner.quality import measured
from captioner.second_try import Answer
from captioner.trimming import trim_prefix
from spine.prompts import Prompt
from spine.tables import CAPTIONS

Row = dict[str, Any]


def caption_row(
    name: str, outcome: Answer | CaptionFailure, prompt: Prompt, setup: Setup, captioner: str, take: int = 0
) -> Row:
    """The row of one caption, without its picture's id.

    Args:
        name: The caption id.
        outcome: What the engine, or the reading of the picture, gave.
        prompt: What was asked.
        setup: Who was asked.
        captioner: Id of the two with their parameters.
        take: 0 of the likeliest words; else their seed.

    Returns:
        Columns of CAPTIONS. An answer that says nothing is a failure, `empty`, and keeps its raw text.
    """
    row: Row = dict.fromkeys(CAPTIONS.names) | {
        "caption_id": name,
        "prompt_id": prompt.prompt_id,
        "engine": setup.kind,
        "model": setup.name,
        "family": setup.family,
        "captioner": captioner,
        "take": take,
    }
    if isinstance(outcome, CaptionFailure):
        why = {"reason": outcome.reason, "message": outcome.message, "attempts": outcome.attempts}
        return row | why | {"status": "failed"}
    reply = outcome.reply
    text, found = trim_prefix(reply.text, prompt.prefix)
    row |= {
        "raw_caption": reply.text,
        "prefix_found": found if prompt.prefix else None,
        "finish_reason": reply.finish_reason,
        "truncated": reply.finish_reason == "length",
        "tokens": reply.tokens,
        "prompt_tokens": reply.prompt_tokens,
        "attempts": reply.attempts,
        "retried_for": outcome.retried_for,
        "other_raw_caption": outcome.other,
    }
    if not text:
        return row | {"status": "failed", "reason": "empty", "message": f"{setup.name} said nothing of it"}
    return row | {
        "status": "captioned",
        "caption": text,
        "clean_caption": cleaned(text),
        **asdict(measured(text)),
    }
