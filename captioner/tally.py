"""What a captioning run counts: outcomes, and the captions that need a look."""

from collections import Counter

import pyarrow as pa
import pyarrow.compute as pc

from spine.caption_flags import COLUMNS, flags

COUNTED = [
    "id",
    "status",
    "reason",
    "caption",
    "words",
    "tokens",
    *COLUMNS,
]
"""Columns of CAPTIONS that the counts and the report are made of."""


def tally(rows: pa.Table) -> dict[str, int]:
    """Count the rows of the selected pictures.

    Args:
        rows: With the columns COUNTED.

    Returns:
        captioned and failed, which add up to the rows; failed_REASON, which add up to failed; then of the captioned,
        each by itself: every flag of spine.caption_flags.
    """
    is_captioned = pc.equal(rows["status"], "captioned")
    captioned = rows.filter(is_captioned)
    reasons = Counter(rows.filter(pc.invert(is_captioned))["reason"].to_pylist())
    return {
        "captioned": captioned.num_rows,
        "failed": reasons.total(),
        **{f"failed_{reason}": n for reason, n in sorted(reasons.items())},
        **{name: int(pc.sum(marks).as_py() or 0) for name, marks in flags(captioned).items()},
    }
