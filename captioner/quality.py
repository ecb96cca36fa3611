"""What is measured of a caption by its words alone: cheap, deterministic, the same for every engine.

The figures to hold them against are LAION-POP's own: of 100 captions that LLaVA-1.5-13b wrote for it, 69 % speculate
and 88 % interpret by such lists, though the prompt forbids both, and 1 % loop (`spine.caption_flags.LOOP_REPETITION`).
"""

import re
from dataclasses import dataclass

from captioner.languages import language

_GRAM = 4
_WORD = re.compile(r"\w+(?:['’]\w+)*")

# "May" with a capital is a month, so case counts in this one.
_SPECULATION = re.compile(
    r"\bmay\b|\b(?i:might|could be|appears?(?: to\b)?|appearing to|seems?|seemingly|possibl[ey]|perhaps|probabl[ey]|"
    r"presumably|likely|suggest(?:s|ing|ive)?|as if|impl(?:y|ies|ying)|indicat(?:es|ing) that)\b"
)
_INTERPRETATION = re.compile(
    r"\b(?:overall|atmospher(?:e|ic)|ambi[ae]nce|moods?|sense of|feelings? of|creat(?:es|ing) an?|"
    r"captur(?:es|ing)|evok(?:es|ing)|reminiscent of|(?:add(?:s|ing)) (?:to|an?|depth|interest)|touch of|"
    r"inspir(?:es|ing)|captivating|timeless|mak(?:es|ing) (?:you|one|us|(?:the )?viewers?) feel)\b",
    re.IGNORECASE,
)
_REFUSAL = re.compile(
    r"^\W*(?:i['’]?m sorry|i am sorry|sorry,|i apologi[sz]e)|\bas an ai\b|"
    r"\bi(?: am|['’]m) (?:not able|unable) to\b|"
    r"\bi (?:cannot|can['’]t|can not) (?:see|view|describe|identify|assist|help|provide|process|access|determine)\b",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class Quality:
    """Measures of one caption; the columns of CAPTIONS that have these names."""

    words: int
    """What stands between white space."""

    repetition: float
    """Share of its 4-grams of words that stood in it before, 0 to 1."""

    speculation: int
    """Words such as "appears to be", "possibly", "likely"."""

    interpretation: int
    """Words such as "overall", "sense of", "creating a"."""

    refusal: bool
    """Whether the model says that it can't or won't describe the picture."""

    language: str
    """ISO 639 code, or `captioner.languages.UNKNOWN`."""


def measured(caption: str) -> Quality:
    """Measure a caption.

    Args:
        caption: Without the prefix that the prompt asks for.
    """
    return Quality(
        words=word_count(caption),
        repetition=repetition(caption),
        speculation=speculation(caption),
        interpretation=interpretation(caption),
        refusal=_REFUSAL.search(caption) is not None,
        language=language(caption),
    )


def speculation(caption: str) -> int:
    """How often a caption speculates."""
    return sum(1 for _ in _SPECULATION.finditer(caption))


def interpretation(caption: str) -> int:
    """How often a caption interprets."""
    return sum(1 for _ in _INTERPRETATION.finditer(caption))


def word_count(caption: str) -> int:
    """Words of a caption: what stands between white space."""
    return len(caption.split())


def repetition(caption: str) -> float:
    """The share of 4-grams of words, whatever their case, that stood in the caption before; 0 below four words."""
    words = _WORD.findall(caption.lower())
    grams = [tuple(words[start : start + _GRAM]) for start in range(len(words) - _GRAM + 1)]
    return 1 - len(set(grams)) / len(grams) if grams else 0.0
