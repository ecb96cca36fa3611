"""A captioning of what people keep in one centroid: how much there is to describe, and how long that takes."""

from typing import Any

import numpy as np
import pyarrow.compute as pc

from spine.errors import DataError
from spine.jobs import past_stages
from spine.prompts import prompts_of
from spine.run import Run
from ui.desk import Desk


def kept_captioning(desk: Desk, centroid: int, prompt: str) -> dict[str, Any]:
    """What `caption --kept-in` would come to after a `select`, as decisions and captions stand.

    Args:
        desk: Of the run.
        centroid: Its pictures are those meant.
        prompt: Id of the prompt they would be described by; empty for that of [caption].

    Returns:
        Pictures kept here, those of them without a caption by that prompt, and at the rate of the last captioning of
        this run the seconds they take; rate, job and seconds are null where there was none.

    Raises:
        DataError: There is no such prompt, or a table is damaged.
    """
    prompt = prompt or desk.snapshot.config().caption.prompt
    known = prompts_of(desk.run)
    if prompt not in known:
        raise DataError(f"prompt {prompt[:40]!r} is unknown; there are: {', '.join(known)}")
    ids = desk.snapshot.neighbours(centroid).column("id").to_pylist()
    said = desk.decisions.said(ids).verdicts
    here = [number for number, verdict in said.items() if verdict.action == "keep"]
    kept = list({*here, *desk.decisions.found(centroid)})
    to_ask = len(kept) - _described(desk, kept, prompt) if kept else 0
    rate = last_rate(desk.run)
    return {
        "prompt": prompt,
        "kept": len(kept),
        "to_ask": to_ask,
        "rate": rate["per_s"] if rate else None,
        "job": rate["job"] if rate else None,
        "seconds": to_ask / rate["per_s"] if rate else None,
    }


def _described(desk: Desk, ids: list[int], prompt: str) -> int:
    """How many of these pictures have a caption by this prompt. The first look reads all the run's captions."""
    captions = desk.captions.now()
    by_prompt = pc.equal(captions.prompts, prompt).to_numpy(zero_copy_only=False) & captions.captioned
    return int(np.isin(np.array(ids, dtype=np.int64), captions.ids[by_prompt]).sum())


def last_rate(run: Run) -> dict[str, Any] | None:
    """How fast the newest captioning went that got anywhere: captions a second, and its job."""
    went = [job for job in past_stages(run, "caption") if job.rate]
    return {"per_s": went[-1].rate, "job": went[-1].job_id} if went else None
