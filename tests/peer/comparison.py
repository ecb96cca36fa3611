"""Whether two answers are the same, but for what ours does better on purpose."""

import math
from typing import Any

import numpy as np

from tests.peer.cases import Case

OURS = {"alt_txt_similarity"}
"""Names that only our answers have: a column that clip-retrieval overwrites, under another name."""


def difference(
    case: Case, theirs: Any, ours: Any, vectors: np.ndarray, *, tolerance: float = 1e-5
) -> tuple[str, int]:
    """What differs, and how often a row stands for another of the very same vector.

    Args:
        case: What was asked.
        theirs: clip-retrieval's answer.
        ours: Our server's.
        vectors: Each row's vector as the index keeps it. FAISS leaves the order of equals open, ours is by row.
        tolerance: Between two similarities.
    """
    if not isinstance(theirs, list) or not isinstance(ours, list):
        return f"no lists: {str(theirs)[:200]} and {str(ours)[:200]}", 0
    if len(theirs) != len(ours):
        return f"{len(theirs)} results there, {len(ours)} here", 0
    if case.route == "/metadata":
        pairs = zip(theirs, ours, strict=True)
        wrong = [a["id"] for a, b in pairs if a["id"] != b["id"] or _other(a["metadata"], b["metadata"])]
        return (f"other metadata of {wrong}" if wrong else ""), 0
    swapped = 0
    for rank, (a, b) in enumerate(zip(theirs, ours, strict=True)):
        if abs(a["similarity"] - b["similarity"]) > tolerance * max(1.0, abs(a["similarity"])):
            return f"rank {rank}: similarity {a['similarity']} there, {b['similarity']} here", swapped
        if a["id"] != b["id"]:
            if not np.array_equal(vectors[a["id"]], vectors[b["id"]]):
                return f"rank {rank}: row {a['id']} there, {b['id']} here", swapped
            swapped += 1
            if (len(a) > 2) != (len(b) > 2):
                return f"rank {rank}: metadata in one of the two", swapped
        elif words := _other(a, b):
            return f"rank {rank}: {words}", swapped
    return "", swapped


def _other(theirs: dict[str, Any], ours: dict[str, Any]) -> str:
    """What differs between two results of one row, beside their similarity."""
    names = set(theirs) - {"similarity"}
    if names != set(ours) - {"similarity"} - OURS:
        return f"{sorted(theirs)} there, {sorted(ours)} here"
    for name in names:
        a, b = theirs[name], ours[name]
        if isinstance(a, float):
            same = b is None if math.isnan(a) else isinstance(b, float) and math.isclose(a, b, rel_tol=1e-6)
        else:
            same = type(a) is type(b) and a == b
        if not same:
            return f"{name} {a!r} there, {b!r} here"
    return ""
