"""What makes a caption need a look: the captioner counts it, the board sorts and filters by it."""

import pyarrow as pa
import pyarrow.compute as pc

LOOP_REPETITION = 0.15
"""From this share of repeated 4-grams on, a caption counts as a loop."""

FLAGS: dict[str, str] = {
    "prefix_missing": "don't begin with the words the prompt asks for",
    "truncated": "cut off at the greatest length",
    "loops": "more than 15 % of their 4-grams stood in them before",
    "speculating": 'words such as "appears to be", "possibly", "likely"',
    "interpreting": 'words such as "overall", "sense of", "creating a"',
    "refusals": "say that they can't or won't describe the picture",
    "not_english": "in another language, by a model that knows 139",
    "retried": "asked a second time for a loop or a cut",
}
"""Every flag with its meaning, said of several captions."""

COLUMNS = (
    "prefix_found",
    "truncated",
    "repetition",
    "speculation",
    "interpretation",
    "refusal",
    "language",
    "retried_for",
)
"""Columns of `spine.tables.CAPTIONS` that flags are made of."""


def flags(rows: pa.Table) -> dict[str, pa.ChunkedArray]:
    """For each of FLAGS whether it is on; a caption that failed has none.

    Args:
        rows: With the columns COLUMNS.
    """
    found = {
        "prefix_missing": pc.equal(rows["prefix_found"], False),
        "truncated": rows["truncated"],
        # As the column keeps it: 0.15 in float32 is a little more than 0.15.
        "loops": pc.greater(rows["repetition"], pa.scalar(LOOP_REPETITION, pa.float32())),
        "speculating": pc.greater(rows["speculation"], 0),
        "interpreting": pc.greater(rows["interpretation"], 0),
        "refusals": rows["refusal"],
        "not_english": pc.invert(pc.is_in(rows["language"], pa.array(["en", "und", None], pa.string()))),
        "retried": rows["retried_for"].is_valid(),
    }
    return {name: pc.fill_null(found[name], False) for name in FLAGS}
