"""How deep fetch goes: the first depth by what is known before fetching, then deeper where select found too few."""

from collections.abc import Collection, Sequence

import numpy as np
import pyarrow as pa

from curation.candidates import Ints, available, column, read_candidates
from curation.filtering import judge_known
from curation.passed_over import KNOWN
from curation.verdicts import Verdicts
from spine.manifest import read_manifest
from spine.run import Run
from spine.settings import Config
from spine.table_files import read_table
from spine.tables import SELECTION

OVERFETCH = 1.5
"""Candidates that pass the known filters, for each place in the quota: some links are dead, some pictures alike."""

_SAFETY = 1.25  # a little deeper than the yield so far asks for
_STEEPEST = 8  # times deeper in one round at most: the yield of a few rows says little
_FORESEEN = ("id", "best_centroid", "duplicate_of", *KNOWN)


def first_depths(run: Run, config: Config, verdicts: Verdicts | None = None) -> list[int]:
    """For each centroid id how many neighbours to fetch at first.

    Deep enough for OVERFETCH times the quota of rows that pass all filters as far as the pool's own
    columns tell; at least the quota, at most what there is.

    Args:
        run: With finished neighbours.
        config: Its settings.
        verdicts: With the quotas and filters that centroids have of their own.

    Raises:
        DataError: The neighbours aren't finished.
    """
    read_manifest(run.neighbours)
    return foreseen_depths(read_candidates(run, columns=_FORESEEN), config, verdicts or Verdicts())


def foreseen_depths(neighbours: pa.Table, config: Config, verdicts: Verdicts) -> list[int]:
    """As first_depths, for rows sorted by centroid and rank."""
    there = available(neighbours)
    if not len(there):
        return []
    centroid = column(neighbours, "centroid_id")
    quotas = verdicts.quotas(len(there), config.select.quota_per_centroid)
    all_rows = np.arange(len(centroid))
    codes, _ = judge_known(neighbours, config.filters, verdicts.own_filters(config.filters))
    hopeful = codes < 0
    duplicate = neighbours.column("duplicate_of").fill_null(0).to_numpy()
    hopeful &= neighbours.column("duplicate_of").is_null().to_numpy() | (
        duplicate == column(neighbours, "id")
    )
    if config.select.one_centroid_per_image:
        best = neighbours.column("best_centroid").to_numpy()
        hopeful &= np.isnan(best) | (best == centroid) if best.dtype.kind == "f" else best == centroid
    starts = np.concatenate([[0], np.cumsum(there)[:-1]])
    running = np.cumsum(hopeful)
    before = np.where(starts > 0, running[starts - 1], 0)
    wanted = np.ceil(OVERFETCH * quotas).astype(np.int64)
    enough = (running - before[centroid]) >= wanted[centroid]
    position = all_rows - starts[centroid] + 1
    depths = there.copy()
    np.minimum.at(depths, centroid[enough], position[enough])
    depths[quotas == 0] = 0
    return [int(depth) for depth in np.minimum(np.maximum(depths, quotas), there)]


def asked_depths(depths: Sequence[int], there: Ints, verdicts: Verdicts) -> list[int]:
    """The depths, deeper where a curator asked for a refill: for as many as asked, at most what there is.

    Args:
        depths: For each centroid id; a missing one is 0.
        there: Neighbours it has, shape (k,).
        verdicts: With the refills.
    """
    asked = np.zeros(len(there), dtype=np.int64)
    asked[: min(len(depths), len(asked))] = np.asarray(depths, dtype=np.int64)[: len(asked)]
    for number, refill in verdicts.refills.items():
        if 0 <= number < len(asked):
            asked[number] = max(asked[number], min(int(refill.value or 0), there[number]))
    return [int(depth) for depth in asked]


def deeper(run: Run, config: Config, depths: Sequence[int]) -> list[int] | None:
    """The depths for another round, or None where nothing can be gained.

    Every centroid that is short of its quota and has neighbours left goes deeper, as far as its yield so
    far suggests. Each call goes deeper somewhere and never beyond what there is, so that rounds end.

    Args:
        run: With a finished selection.
        config: Its settings.
        depths: Those the selection was made with.
    """
    facts = read_manifest(run.selection).facts
    table = read_table(run.selection_table, SELECTION)
    chosen = column(table.filter(pa.compute.equal(table.column("verdict"), "selected")), "centroid_id")
    there = available(read_candidates(run, columns=()))
    selected = np.bincount(chosen, minlength=len(there))[: len(there)]
    quota = np.full(len(there), config.select.quota_per_centroid, dtype=np.int64)
    for number, own in facts.get("own_quotas", {}).items():
        if int(number) < len(quota):
            quota[int(number)] = own
    return next_depths(
        selected=selected.astype(np.int64),
        depths=depths,
        there=there,
        quota=quota,
        left_out={int(each) for each in facts.get("centroids_left_out", [])},
    )


def next_depths(
    *, selected: Ints, depths: Sequence[int], there: Ints, quota: Ints, left_out: Collection[int] = ()
) -> list[int] | None:
    """As deeper, from counts for each centroid id.

    Args:
        selected: Pictures it has, shape (k,).
        depths: Neighbours fetched so far; a missing one is 0.
        there: Neighbours it has, shape (k,).
        quota: Pictures it should have, shape (k,).
        left_out: Centroids that need none.
    """
    now = np.zeros(len(there), dtype=np.int64)
    now[: min(len(depths), len(now))] = np.asarray(depths, dtype=np.int64)[: len(now)]
    now = np.minimum(now, there)
    short = np.maximum(quota - selected, 0)
    goes_on = (short > 0) & (now < there)
    goes_on[[each for each in left_out if each < len(goes_on)]] = False
    if not goes_on.any():
        return None
    by_yield = now + np.ceil(_SAFETY * short * now / np.maximum(selected, 1)).astype(np.int64)
    bounded = np.clip(by_yield, np.maximum(2 * now, quota), np.maximum(_STEEPEST * now, quota))
    return [int(depth) for depth in np.where(goes_on, np.minimum(bounded, there), now)]
