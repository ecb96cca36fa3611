"""A caption without its sentences of speculation and interpretation, as a further column beside it.

The prompt forbids both, and most captions of LLaVA-1.5 have some. Whole sentences go, never parts of one: what is left
is what the model said.
"""

import re

from captioner.quality import interpretation, speculation

_END = re.compile(r"(?<=[.!?])\s+|(?<=[.!?][\"'”’)\]])\s+")
_PARAGRAPH = re.compile(r"\s*\n\s*")

# "The overall style of the image is a photograph" says what the prompt asks for; so does "Overall, two dogs ...".
_OVERALL = re.compile(r"\b(?:(?P<start>Overall),?\s+(?P<next>\w)|overall\s+)")


def sentences(caption: str) -> list[str]:
    """The sentences of a caption, without white space around them."""
    parts = (part for paragraph in _PARAGRAPH.split(caption) for part in _END.split(paragraph))
    return [part.strip() for part in parts if part.strip()]


def cleaned(caption: str) -> str:
    """The caption without the sentences that speculate or interpret, and without the word "overall".

    Returns:
        What is left, paragraphs kept apart; empty where nothing is.
    """
    paragraphs = (
        " ".join(sentence for sentence in map(_without_overall, sentences(paragraph)) if _is_plain(sentence))
        for paragraph in _PARAGRAPH.split(caption)
    )
    return "\n\n".join(paragraph for paragraph in paragraphs if paragraph)


def _is_plain(sentence: str) -> bool:
    return speculation(sentence) == 0 and interpretation(sentence) == 0


def _without_overall(sentence: str) -> str:
    return _OVERALL.sub(lambda found: found["next"].upper() if found["start"] else "", sentence)
