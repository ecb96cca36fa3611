"""Pictures of a run by their ids, as any page shows them: state, thumbnail, whether blurred."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from spine.filters import RULES
from ui.board import BLOCKED, READY, state_of_image, unsafe_limit
from ui.desk import Desk


def pictures_of(desk: Desk, ids: Sequence[int]) -> dict[int, dict[str, Any]]:
    """What can be shown of each; one without a score is blurred, one that a list names is kept out."""
    snapshot, lists = desk.snapshot, desk.snapshot.lists()
    wanted = np.array(ids, dtype=np.int64)
    limit = unsafe_limit(snapshot.config().filters)
    images = snapshot.images().rows(wanted).to_pylist()
    unsafe = snapshot.scores().rows(wanted)["unsafe"].to_pylist()
    found: dict[int, dict[str, Any]] = {}
    for number, image, score in zip(ids, images, unsafe, strict=True):
        known = {name: image[name] for name in ("url", "sha256", "md5", "pdq")}
        rule = lists.blocks(picture_id=number, **known)
        if rule is not None:
            found[number] = {"state": BLOCKED, "reason": RULES[rule]}
            continue
        found[number] = state_of_image(image)
        if found[number]["state"] == READY:
            found[number] |= {
                "width": image["width"],
                "height": image["height"],
                "blurred": score is None or not score <= limit,
            }
    return found
