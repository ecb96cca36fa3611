"""What a selection comes to: counts that add up, centroids that are short, thresholds that do nothing."""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from curation.candidates import column, distinct
from curation.funnel import funnel
from curation.verdicts import Verdicts
from spine.filters import FILTERS, RULES, judge
from spine.run import Run
from spine.settings import Config

NO_EFFECT = 0.995
"""A threshold that keeps more than this share of pictures is said to have no effect."""

_ENOUGH = 100  # pictures a threshold must have met before its effect is spoken of
_PLACE = {rule: place for place, rule in enumerate(RULES)}


def selection_counts(table: pa.Table) -> dict[str, int]:
    """Candidates, selected and rejected by rule add up; pictures are counted beside."""
    selected = pc.equal(table.column("verdict"), "selected")
    chosen = table.filter(selected)
    rejected = table.filter(pc.invert(selected)).column("rule").value_counts().to_pylist()
    by_rule = {entry["values"]: entry["counts"] for entry in rejected}
    return {
        "candidates": table.num_rows,
        "selected": chosen.num_rows,
        **{f"rejected_{rule}": by_rule[rule] for rule in RULES if rule in by_rule},
        "pictures": pc.count_distinct(table.column("id")).as_py(),
        "pictures_selected": pc.count_distinct(chosen.column("id")).as_py(),
    }


def selection_facts(table: pa.Table, config: Config, verdicts: Verdicts) -> dict[str, object]:
    """Which centroids are short of their quota and by how much, and what each threshold does."""
    centroid = column(table, "centroid_id")
    selected = pc.equal(table.column("verdict"), "selected").to_numpy(zero_copy_only=False)
    wanting = np.setdiff1d(np.unique(centroid), sorted(verdicts.centroids_left_out()))
    has = np.bincount(centroid[selected], minlength=int(wanting.max(initial=-1)) + 1)[wanting]
    quotas = verdicts.quotas(int(wanting.max(initial=-1)) + 1, config.select.quota_per_centroid)
    missing = np.maximum(quotas[wanting] - has, 0)
    return {
        "quota_per_centroid": config.select.quota_per_centroid,
        "own_quotas": {
            str(number): int(own["quota_per_centroid"].value or 0)
            for number, own in sorted(verdicts.settings.items())
            if "quota_per_centroid" in own
        },
        "centroids": len(np.unique(centroid)),
        "centroids_left_out": sorted(verdicts.centroids_left_out()),
        "centroids_short": int((missing > 0).sum()),
        "missing": int(missing.sum()),
        "thresholds": _thresholds(table, config),
    }


def _thresholds(table: pa.Table, config: Config) -> dict[str, dict[str, int]]:
    """For each filter that is on: the pictures it met, and those it kept."""
    limits = judge(pa.table({}), config.filters).limits
    first = distinct(table).first_row
    codes = pc.index_in(table.column("rule"), value_set=pa.array(list(RULES))).to_numpy()[first]
    effects = {}
    for rule, limit in zip(FILTERS, limits, strict=True):
        if limit is None:
            continue
        # Rules stand in their order of trial: who fell to this one or to a later one has met it.
        met = int((codes >= _PLACE[rule]).sum())
        effects[rule] = {"met": met, "kept": met - int((codes == _PLACE[rule]).sum())}
    return effects


def remarks(counts: dict[str, int], facts: dict[str, object], config: Config) -> list[str]:
    """What a person should hear of a selection."""
    lines = []
    limits = dict(zip(FILTERS, judge(pa.table({}), config.filters).limits, strict=True))
    thresholds = facts["thresholds"]
    for rule, effect in thresholds.items() if isinstance(thresholds, dict) else ():
        met, kept = effect["met"], effect["kept"]
        if met >= _ENOUGH and kept > NO_EFFECT * met:
            lines.append(
                f"[filters] {rule} = {limits[rule]:g} has no effect: it keeps {kept:,} of {met:,} pictures"
            )
        elif met and not kept:
            lines.append(f"[filters] {rule} = {limits[rule]:g} drops all {met:,} pictures that it meets")
    if facts["centroids_short"]:
        lines.append(
            f"{facts['centroids_short']:,} of {facts['centroids']:,} centroids are short of their quota of "
            f"{facts['quota_per_centroid']}, by {facts['missing']:,} pictures; {counts['selected']:,} selected"
        )
    return lines


def nothing_selected(run: Run, counts: dict[str, int]) -> str:
    """The error's message where no candidate is selected: the funnel by rule."""
    lost = [
        f"{count:,} {RULES[name.removeprefix('rejected_')]} ({name.removeprefix('rejected_')})"
        for name, count in counts.items()
        if name.startswith("rejected_")
    ]
    steps = "; ".join(step.line() for step in funnel(run))
    return (
        f"{run.selection}: none of {counts['candidates']:,} candidates is selected: "
        f"{'; '.join(lost) or 'there are none'}; loosen [filters], fetch what failed, or bring a larger pool. "
        f"The funnel: {steps}"
    )
