"""What a captioning run counts: outcomes, and the captions that need a look."""

from collections import Counter

import pyarrow as pa
import pyarrow.compute as pc

from captioner.quality import LOOP_REPETITION

COUNTED = [
    "id",
    "status",
    "reason",
    "caption",
    "prefix_found",
    "truncated",
    "words",
    "tokens",
    "repetition",
    "speculation",
    "interpretation",
    "refusal",
    "language",
    "retried_for",
]
"""Columns of CAPTIONS that the counts and the report are made of."""


def tally(rows: pa.Table) -> dict[str, int]:
    """Count the rows of the selected pictures.

    Args:
        rows: With the columns COUNTED.

    Returns:
        captioned and failed, which add up to the rows; failed_REASON, which add up to failed; then of the captioned,
        each by itself: prefix_missing, truncated, loops, speculating, interpreting, refusals, not_english, retried.
    """
    is_captioned = pc.equal(rows["status"], "captioned")
    captioned = rows.filter(is_captioned)
    reasons = Counter(rows.filter(pc.invert(is_captioned))["reason"].to_pylist())
    marked = {
        "prefix_missing": pc.equal(captioned["prefix_found"], False),
        "truncated": captioned["truncated"],
        "loops": pc.greater(captioned["repetition"], LOOP_REPETITION),
        "speculating": pc.greater(captioned["speculation"], 0),
        "interpreting": pc.greater(captioned["interpretation"], 0),
        "refusals": captioned["refusal"],
        "not_english": pc.equal(captioned["language"], "other"),
        "retried": captioned["retried_for"].is_valid(),
    }
    return {
        "captioned": captioned.num_rows,
        "failed": reasons.total(),
        **{f"failed_{reason}": n for reason, n in sorted(reasons.items())},
        **{name: int(pc.sum(marks).as_py() or 0) for name, marks in marked.items()},
    }
