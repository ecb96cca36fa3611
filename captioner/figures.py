"""What a run's captions come to beyond counts: held against pictures, a blank one, other captioners, and the truth."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from captioner.agreement import TextEncoder, measure_agreement
from captioner.comparison import blank_captions, compare_captioners, like_blank
from spine.run import Run


@dataclass(frozen=True, slots=True)
class Yardsticks:
    """What captions are held against that the captioner doesn't have itself."""

    load_encoder: Callable[[], TextEncoder] | None = None
    """Loads the text side of the model that embedded the pictures."""

    truth: Callable[[Mapping[int, str]], Mapping[str, float]] | None = None
    """Given the raw captions by picture, shares of what they should say: for pictures whose content is known."""


NO_YARDSTICKS = Yardsticks()


def figures_of(
    run: Run, rows: pa.Table, captioner: str, sample: int, yardsticks: Yardsticks
) -> dict[str, Any]:
    """Hold a finished run's captions against what there is.

    Args:
        run: Whose captions they are.
        rows: Of the selected pictures: id, caption_id, status, caption and raw_caption.
        captioner: Who wrote them.
        sample: Captions at most that are compared with their pictures.
        yardsticks: What is known outside.

    Returns:
        JSON values: `agreement` and `blank`, where there are any, `captioners`, and `truth`, where it is known.
    """
    captioned = rows.filter(pc.equal(rows["status"], "captioned"))
    found: dict[str, Any] = {"captioners": compare_captioners(run, captioned)}
    if sample and yardsticks.load_encoder is not None:
        agreement = measure_agreement(run, captioned, sample, yardsticks.load_encoder)
        found |= {"agreement": agreement} if agreement is not None else {}
    blank = blank_captions(run).get(captioner)
    if blank is not None:
        found["blank"] = {"caption": blank, "like_it": like_blank(captioned["caption"].to_pylist(), blank)}
    if yardsticks.truth is not None:
        said = dict(zip(captioned["id"].to_pylist(), captioned["raw_caption"].to_pylist(), strict=True))
        found["truth"] = dict(yardsticks.truth(said))
    return found
