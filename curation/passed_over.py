"""Candidates that need no fetching: the filters reject them by what the pool itself says.

A picture is passed over where every centroid within reach that wants it turns it away, by its own filters or
the run's. What the pool doesn't know speaks against nobody, and what a person keeps is never passed over.
"""

import hashlib
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from curation.candidates import Ints, distinct
from curation.filtering import judge_known
from curation.verdicts import Verdicts
from spine.filters import FILTERS
from spine.lists import BlockLists
from spine.settings import Config
from spine.tables import IMAGES

STATUS = "rejected"
"""Of its row in images/: neither fetched nor failed."""

KNOWN = ("width", "height", "pwatermark", "punsafe", "aesthetic")
"""What the pool says of a picture that a filter may judge by."""


@dataclass(frozen=True, slots=True)
class PassedOver:
    """The pictures that need no fetching."""

    ids: Ints
    """Shape (n,), ascending."""
    codes: npt.NDArray[np.int8]
    """Place in spine.filters.FILTERS of the rule, as the first centroid that wants it has it; shape (n,)."""
    values: npt.NDArray[np.float64]
    """What the pool says that the rule speaks against; shape (n,)."""

    @property
    def digest(self) -> str:
        """SHA-256 over pictures, rules and values."""
        content = hashlib.sha256(self.ids.tobytes())
        content.update(self.codes.tobytes())
        content.update(self.values.tobytes())
        return content.hexdigest()

    def said_of(self, ids: Ints) -> tuple[pa.Array, pa.Array]:
        """The rule and a message for each of these pictures, null for those that are to be fetched."""
        at = pc.index_in(pa.array(ids), value_set=pa.array(self.ids))
        messages = pa.array([f"the pool says {value:.4g}" for value in self.values.tolist()], pa.string())
        rules = pa.array(list(FILTERS), pa.string()).take(pa.array(self.codes))
        return rules.take(at), messages.take(at)


def passed_over(candidates: pa.Table, config: Config, verdicts: Verdicts) -> PassedOver:
    """Find the pictures that need no fetching.

    Args:
        candidates: Columns centroid_id, id and KNOWN; sorted by centroid and rank.
        config: Its [filters] count.
        verdicts: With what people keep, and the filters that centroids have of their own.
    """
    codes, values = judge_known(candidates, config.filters, verdicts.own_filters(config.filters))
    pictures = distinct(candidates)
    wanted = np.zeros(len(pictures.ids), dtype=bool)
    wanted[pictures.of_row[codes < 0]] = True
    kept = [number for number, verdict in verdicts.images.items() if verdict.action == "keep"]
    wanted |= np.isin(pictures.ids, kept)
    first = pictures.first_row[~wanted]
    return PassedOver(pictures.ids[~wanted], codes[first], values[first])


def rows_of_passed_over(candidates: pa.Table) -> pa.Table:
    """Their rows in images/.

    Args:
        candidates: Columns id, url, image_path, sha256, rule and message; no rule is null.
    """
    given = {
        **{name: candidates.column(name) for name in ("id", "url", "image_path", "sha256", "message")},
        "reason": candidates.column("rule"),
        "status": pa.array([STATUS] * candidates.num_rows, pa.string()),
        "attempts": pa.array(np.zeros(candidates.num_rows, dtype=np.int32)),
    }
    columns = [given.get(field.name, pa.nulls(candidates.num_rows, field.type)) for field in IMAGES]
    return pa.table(columns, schema=IMAGES)


def listed(candidates: pa.Table, lists: BlockLists) -> npt.NDArray[np.bool_]:
    """Which of these a list names by id, address or the hash that the pool knows: a list beats every filter."""
    if lists.empty:
        return np.zeros(candidates.num_rows, dtype=bool)
    columns = (candidates.column(name).to_pylist() for name in ("id", "url", "sha256"))
    named = (
        lists.blocks(picture_id=number, url=url, sha256=sha256) is not None
        for number, url, sha256 in zip(*columns, strict=True)
    )
    return np.fromiter(named, dtype=bool, count=candidates.num_rows)
