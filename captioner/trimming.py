"""Cuts the words a caption was asked to begin with, as LAION-POP did: "This image showcases"."""

import re
from functools import cache

# Straight and typographic; a model repeats the prompt's quotes in either form, or in none.
_QUOTES = "\"'`“”„‟‘’‚‛«»‹›"


def trim_prefix(text: str, prefix: str) -> tuple[str, bool]:
    """Cut `prefix` from the beginning of `text`.

    Whitespace and quotes before it, a quote, a colon or a comma after it go with it, and so does a quote that
    stands alone at the very end when one was opened at the beginning. Upper and lower case, and kinds and
    lengths of white space, are not told apart in the prefix; what follows keeps its case. A word that merely
    begins with the prefix's last word is no match.

    Args:
        text: As the model gave it.
        prefix: Words without quotes; empty: nothing is cut.

    Returns:
        The caption, stripped, and whether the prefix was there.
    """
    words = prefix.split()
    if not words:
        return text.strip(), False
    match = _pattern(tuple(words)).match(text)
    if match is None:
        return text.strip(), False
    rest = text[match.end() :].strip()
    # "This image showcases a star." in quotes: the opening one went with the prefix, the closing one is its pair.
    opened = bool(match["opening"]) and not match["closing"]
    if opened and rest and rest[-1] in _QUOTES and sum(sign in _QUOTES for sign in rest) == 1:
        rest = rest[:-1].rstrip()
    return rest, True


@cache
def _pattern(words: tuple[str, ...]) -> re.Pattern[str]:
    spoken = r"\s+".join(re.escape(word) for word in words)
    quotes = f"[{re.escape(_QUOTES)}]"
    return re.compile(
        rf"\s*(?P<opening>{quotes}*)\s*{spoken}(?!\w)(?P<closing>\s*[:,]?\s*{quotes}+(?=[\s:,]|$))?\s*[:,]?",
        re.IGNORECASE,
    )
