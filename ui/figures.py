"""Figures of a selection for the Release page: distributions, and what each centroid yields and why it lacks. Pure."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from curation.unfilled import Unfilled
from spine.filters import RULES

BINS = 24
STATES = ("empty", "short", "filled", "over", "out")
"""What a centroid has of its quota: nothing, some, all, more than that; and those that curators left out."""

PLACED = ("centroid_id", "label", "map_x", "map_y")

OVER_SHOWN = 20
"""Centroids above their quota, told one by one at most."""

SHORT_SHOWN = 100
"""Centroids that are short of their quota, told one by one at most."""

_REASONS = 4  # rules named for a centroid

Ints = npt.NDArray[np.int64]


def distribution(values: npt.NDArray[np.float64], *, whole: bool = False) -> dict[str, Any] | None:
    """How values spread: BINS equal bins from the least to the greatest.

    Args:
        values: NaN where unknown, shape (n,).
        whole: Whether they are whole numbers; then a bin is one number at least.

    Returns:
        low, high (of the bins; the last whole number lies below it), most (the greatest value), whole, counts,
        known, unknown, and the 5th, 50th and 95th percentile; None where none is known.
    """
    known = values[~np.isnan(values)]
    if not len(known):
        return None
    low, high = float(known.min()), float(known.max())
    most, bins = high, BINS
    if whole:
        step = max(1, int(np.ceil((high - low + 1) / BINS)))
        bins = int(np.ceil((high - low + 1) / step))
        high = low + bins * step
    counts, _ = np.histogram(known, bins=bins, range=(low, high if high > low else low + 1))
    p5, p50, p95 = np.percentile(known, [5, 50, 95], method="inverted_cdf")
    return {
        "low": low,
        "high": high if high > low else low + 1,
        "most": most,
        "whole": whole,
        "counts": counts.tolist(),
        "known": len(known),
        "unknown": len(values) - len(known),
        "p5": float(p5),
        "p50": float(p50),
        "p95": float(p95),
    }


def balance(
    centroids: Sequence[Mapping[str, Any]], selected: Ints, quotas: Ints, left_out: frozenset[int]
) -> dict[str, Any]:
    """Which concepts are under- and over-filled, and where they lie on the map.

    Args:
        centroids: PLACED of each, in order of id.
        selected: Pictures of each centroid id, shape (k,).
        quotas: Pictures each should have, shape (k,).
        left_out: Centroids that curators left out.

    Returns:
        `counts` by state: empty, short, filled, over (people kept more than the quota) and out; `points` of those
        that have a place on the map: id, x, y, pictures, quota and the place of its state in STATES; `over`, those
        with most above their quota.
    """
    states = np.select(
        [
            np.isin(np.arange(len(quotas)), sorted(left_out)),
            selected > quotas,
            selected == quotas,
            selected > 0,
        ],
        [STATES.index(name) for name in ("out", "over", "filled", "short")],
        STATES.index("empty"),
    )
    points = [
        [str(row["centroid_id"]), round(row["map_x"], 4), round(row["map_y"], 4), *figures]
        for row, figures in zip(
            centroids, zip(selected.tolist(), quotas.tolist(), states.tolist(), strict=True), strict=True
        )
        if row["map_x"] is not None and row["map_x"] == row["map_x"]
    ]
    above = np.flatnonzero(states == STATES.index("over"))
    most = above[np.argsort((quotas - selected)[above], kind="stable")][:OVER_SHOWN].tolist()
    return {
        "counts": {name: int((states == place).sum()) for place, name in enumerate(STATES)},
        "points": points,
        "over": [
            {
                "centroid": str(number),
                "label": centroids[number]["label"] or f"centroid {number}",
                "selected": int(selected[number]),
                "quota": int(quotas[number]),
            }
            for number in most
        ],
    }


def yields(
    selected: Ints, quotas: Ints, left_out: frozenset[int], short: Sequence[Unfilled]
) -> dict[str, Any]:
    """What the centroids yield of their quota, and of those that are short, why.

    Args:
        selected: Pictures of each centroid id, shape (k,).
        quotas: Pictures each should have, shape (k,).
        left_out: Centroids that curators left out.
        short: Those that lack pictures.
    """
    k = len(quotas)
    counts = ~np.isin(np.arange(k), sorted(left_out))
    worst = sorted(short, key=lambda each: (each.selected - each.quota, each.centroid_id))
    return {
        "centroids": k,
        "left_out": int((~counts).sum()),
        "filled": int(counts.sum()) - len(short),
        "short": len(short),
        "missing": sum(each.quota - each.selected for each in short),
        "quota": {"least": int(quotas.min()), "most": int(quotas.max())} if k else None,
        "selected": distribution(selected[counts].astype(np.float64), whole=True),
        "shortest": [
            {
                "centroid": str(each.centroid_id),
                "label": each.label or f"centroid {each.centroid_id}",
                "selected": each.selected,
                "quota": each.quota,
                "why": each.why,
                "lost": [
                    {"meaning": RULES.get(rule, rule), "count": count}
                    for rule, count in list(each.lost.items())[:_REASONS]
                ],
            }
            for each in worst[:SHORT_SHOWN]
        ],
    }
