"""Figures of a selection for the Release page: distributions, and what each centroid yields and why it lacks. Pure."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from spine.filters import RULES

BINS = 24
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
        low, high, counts, known, unknown, and the 5th, 50th and 95th percentile; None where none is known.
    """
    known = values[~np.isnan(values)]
    if not len(known):
        return None
    low, high = float(known.min()), float(known.max())
    bins = BINS
    if whole:
        step = max(1, int(np.ceil((high - low + 1) / BINS)))
        bins = int(np.ceil((high - low + 1) / step))
        high = low + bins * step
    counts, _ = np.histogram(known, bins=bins, range=(low, high if high > low else low + 1))
    p5, p50, p95 = np.percentile(known, [5, 50, 95], method="inverted_cdf")
    return {
        "low": low,
        "high": high if high > low else low + 1,
        "counts": counts.tolist(),
        "known": len(known),
        "unknown": len(values) - len(known),
        "p5": float(p5),
        "p50": float(p50),
        "p95": float(p95),
    }


def yields(
    selection: pa.Table,
    *,
    there: Ints,
    tried: Ints,
    quotas: Ints,
    left_out: frozenset[int],
    labels: Mapping[int, str | None],
) -> dict[str, Any]:
    """What each centroid yields of its quota, and of those that are short, why.

    Args:
        selection: Every candidate with its verdict; schema SELECTION.
        there: Neighbours of each centroid id, shape (k,).
        tried: Of these, how many fetch went to, shape (k,).
        quotas: Pictures each should have, shape (k,).
        left_out: Centroids that curators left out.
        labels: Of centroids.
    """
    k = len(quotas)
    centroid = np.asarray(selection["centroid_id"].to_numpy(), dtype=np.int64)
    chosen = np.asarray(pc.equal(selection["verdict"], "selected").to_numpy(), dtype=bool)
    has = np.bincount(centroid[chosen], minlength=k)[:k]
    counts = ~np.isin(np.arange(k), sorted(left_out))
    missing = np.where(counts, np.maximum(quotas - has, 0), 0)
    short = np.flatnonzero(missing)
    order = short[np.lexsort((short, -missing[short]))][:SHORT_SHOWN]
    rules = _rules_of(selection, centroid, chosen, order)
    return {
        "centroids": k,
        "left_out": int((~counts).sum()),
        "filled": int((counts & (missing == 0)).sum()),
        "short": len(short),
        "missing": int(missing.sum()),
        "quota": {"least": int(quotas.min()), "most": int(quotas.max())} if k else None,
        "selected": distribution(has[counts].astype(np.float64), whole=True),
        "shortest": [
            {
                "centroid": str(number),
                "label": labels.get(number) or f"centroid {number}",
                "selected": int(has[number]),
                "quota": int(quotas[number]),
                "why": _why(int(there[number]), int(tried[number]), rules.get(number, {})),
            }
            for number in order.tolist()
        ],
    }


def _rules_of(
    selection: pa.Table, centroid: Ints, chosen: npt.NDArray[np.bool_], wanted: Ints
) -> dict[int, dict[str, int]]:
    """For each of these centroids how many candidates each rule took."""
    rows = np.flatnonzero(np.isin(centroid, wanted) & ~chosen)
    found: dict[int, dict[str, int]] = {}
    for number, rule in zip(
        centroid[rows].tolist(), selection["rule"].take(pa.array(rows)).to_pylist(), strict=True
    ):
        of = found.setdefault(number, {})
        of[rule] = of.get(rule, 0) + 1
    return found


def _why(there: int, tried: int, rules: Mapping[str, int]) -> str:
    """Why a centroid lacks pictures, in words."""
    most = sorted(rules.items(), key=lambda pair: -pair[1])[:_REASONS]
    lost = "".join(f", {count:,} {RULES[rule]}" for rule, count in most)
    if not there:
        return "it has no neighbours"
    if tried < there:
        return f"{tried:,} of {there:,} neighbours tried (“run” goes on with the next){lost}"
    return f"all {there:,} neighbours tried{lost}"
