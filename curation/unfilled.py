"""The centroids that are short of their quota, and why."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from curation.candidates import available, column, fetched_reach, read_candidates
from curation.verdicts import Verdicts
from spine.added_centroids import read_centroids
from spine.run import Run
from spine.settings import Config
from spine.table_files import read_table
from spine.tables import SELECTION


@dataclass(frozen=True, kw_only=True, slots=True)
class Unfilled:
    """One centroid that is short."""

    centroid_id: int
    label: str | None
    quota: int
    selected: int
    neighbours: int
    """It has in all."""
    tried: int
    """Of these within fetch's depth."""
    lost: dict[str, int]
    """Those that were not selected, by rule, most first."""

    @property
    def why(self) -> str:
        """In words."""
        if not self.neighbours:
            return "no neighbours: run retrieve again, or it was added since"
        if self.tried < self.neighbours:
            return f"{self.neighbours - self.tried:,} neighbours are not fetched yet: run goes deeper"
        rule, count = next(iter(self.lost.items()), ("", 0))
        return f"all {self.neighbours:,} neighbours tried; most fell to {rule} ({count:,})"


def unfilled_centroids(run: Run, config: Config, verdicts: Verdicts) -> list[Unfilled]:
    """Those that have fewer selected pictures than their quota, the emptiest first; left-out ones aside.

    Args:
        run: With a finished selection.
        config: [select] counts.
        verdicts: What curators decided.
    """
    labels = dict(zip(*read_centroids(run, ["centroid_id", "label"]).to_pydict().values(), strict=True))
    there = available(read_candidates(run, columns=()))
    k = max(len(there), len(labels))
    neighbours = np.zeros(k, dtype=np.int64)
    neighbours[: len(there)] = there
    table = read_table(run.selection_table, SELECTION)
    centroid = column(table, "centroid_id")
    chosen = pc.equal(table.column("verdict"), "selected").to_numpy(zero_copy_only=False)
    selected = np.bincount(centroid[chosen], minlength=k)
    depths = np.zeros(k, dtype=np.int64)
    reached = fetched_reach(run).depths
    depths[: len(reached)] = reached
    quotas = verdicts.quotas(k, config.select.quota_per_centroid)
    short = np.setdiff1d(np.flatnonzero(selected < quotas), sorted(verdicts.centroids_left_out()))
    lost = _lost(table.filter(pa.array(~chosen)), set(short.tolist()))
    found = [
        Unfilled(
            centroid_id=number,
            label=labels.get(number),
            quota=int(quotas[number]),
            selected=int(selected[number]),
            neighbours=int(neighbours[number]),
            tried=int(min(depths[number], neighbours[number])),
            lost=lost.get(number, {}),
        )
        for number in short.tolist()
    ]
    return sorted(found, key=lambda each: (each.selected / max(each.quota, 1), each.centroid_id))


def _lost(rejected: pa.Table, wanted: set[int]) -> dict[int, dict[str, int]]:
    """Of each of these centroids the rejected rows by rule, most first."""
    counted: list[dict[str, Any]] = (
        rejected.group_by(["centroid_id", "rule"]).aggregate([("id", "count")]).to_pylist()
    )
    found: dict[int, dict[str, int]] = {}
    for row in sorted(counted, key=lambda each: (each["centroid_id"], -each["id_count"], each["rule"])):
        if row["centroid_id"] in wanted:
            found.setdefault(row["centroid_id"], {})[row["rule"]] = row["id_count"]
    return found
