"""A readable label for each centroid: the words that its pictures' captions share and others lack."""

import itertools
import math
import re
from collections import Counter
from collections.abc import Sequence

TERMS = 3
"""Terms in a label at most."""

_WORD = re.compile(r"[^\W\d_][^\W_]+(?:['’-][^\W\d_]+)*")
# Addresses, and an image generator's switches such as "--ar 3:2", say nothing of the picture.
_NOISE = re.compile(r"https?://\S+|(?<!\S)--\w+(?:\s+[\d.:]+(?!\S))?")

_STOP_TEXT = """
    a about above after again against all also am an and any are as at be because been before being below
    between both but by can could did do does doing down during each else ever few for from further get got
    had has have having he her here hers him his how i if in into is it its itself just like me more most my
    no nor not now of off on once one only or other our out over own per same she should so some such than
    that the their them then there these they this those through to too two under until up upon us use very
    via was we were what when where which while who whom why will with within without would you your yours
    image images photo photos photograph picture pictures showing shows jpg jpeg png webp img dsc
"""
_STOP_WORDS = frozenset(_STOP_TEXT.split())


def cluster_labels(captions: Sequence[Sequence[str]], names: Sequence[str]) -> list[str]:
    """A label for each cluster, from the captions of its pictures.

    A term is a word or two words in a row, without stop words. It weighs the share of the cluster's
    captions that have it, times the logarithm of how rare it is among all captions (TF-IDF with the
    cluster as the document).

    Args:
        captions: Of each cluster, nearest first; none or empty ones are allowed.
        names: Of each cluster: its label where the captions give none.

    Returns:
        Such as "red star, navy, striped"; one a cluster.

    Source: Grootendorst, "BERTopic", arXiv 2203.05794, section 3.3.
    """
    counts = [_counts(texts) for texts in captions]
    everywhere: Counter[str] = Counter()
    for count in counts:
        everywhere.update(count)
    total = sum(len(texts) for texts in captions)
    labels = []
    for count, texts, name in zip(counts, captions, names, strict=True):
        weights = {
            term: number / len(texts) * math.log1p(total / everywhere[term]) for term, number in count.items()
        }
        labels.append(", ".join(_best(weights)) or name)
    return labels


def _counts(captions: Sequence[str]) -> Counter[str]:
    """In how many captions each term is."""
    counts: Counter[str] = Counter()
    for caption in captions:
        counts.update(terms_of(caption))
    return counts


def terms_of(caption: str) -> set[str]:
    """The words of a caption, and pairs of them, that may be part of a label."""
    words = [word.lower() for word in _WORD.findall(_NOISE.sub(" , ", caption))]
    pairs = {
        f"{first} {second}"
        for first, second in itertools.pairwise(words)
        if first not in _STOP_WORDS and second not in _STOP_WORDS and first != second
    }
    return pairs | {word for word in words if word not in _STOP_WORDS}


def _best(weights: dict[str, float]) -> list[str]:
    """The heaviest terms, leaving out what repeats a word of those taken; of equals the longer, then by alphabet."""
    chosen: list[str] = []
    taken: set[str] = set()
    for term in sorted(weights, key=lambda term: (-round(weights[term], 9), -term.count(" "), term)):
        words = set(term.split())
        if not words & taken:
            chosen.append(term)
            taken |= words
        if len(chosen) == TERMS:
            break
    return chosen
