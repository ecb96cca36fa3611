"""How deep fetch goes: the first depth by what is known before fetching, then deeper where select found too few."""

from collections.abc import Collection, Sequence
from dataclasses import replace

import numpy as np
import pyarrow as pa

from curation.candidates import Ints, available, column, read_candidates
from spine.filters import judge
from spine.run import Run
from spine.settings import Config
from spine.stage import read_manifest
from spine.tables import SELECTION, read_table

OVERFETCH = 1.5
"""Candidates that pass the known filters, for each place in the quota: some links are dead, some pictures alike."""

_SAFETY = 1.25  # a little deeper than the yield so far asks for
_STEEPEST = 8  # times deeper in one round at most: the yield of a few rows says little
_FORESEEN = (
    "id",
    "best_centroid",
    "duplicate_of",
    "width",
    "height",
    "pwatermark",
    "punsafe",
    "aesthetic",
)


def first_depths(run: Run, config: Config) -> list[int]:
    """For each centroid id how many neighbours to fetch at first.

    Deep enough for OVERFETCH times the quota of rows that pass all filters as far as the pool's own
    columns tell; at least the quota, at most what there is.

    Raises:
        DataError: The neighbours aren't finished.
    """
    read_manifest(run.neighbours)
    return foreseen_depths(read_candidates(run, columns=_FORESEEN), config)


def foreseen_depths(neighbours: pa.Table, config: Config) -> list[int]:
    """As first_depths, for rows sorted by centroid and rank."""
    there = available(neighbours)
    if not len(there):
        return []
    centroid = column(neighbours, "centroid_id")
    hopeful = judge(neighbours, replace(config.filters, unknown="keep")).passed
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
    wanted = int(np.ceil(OVERFETCH * config.select.quota_per_centroid))
    enough = (running - before[centroid]) >= wanted
    position = np.arange(len(centroid)) - starts[centroid] + 1
    depths = there.copy()
    np.minimum.at(depths, centroid[enough], position[enough])
    return [int(depth) for depth in np.minimum(np.maximum(depths, config.select.quota_per_centroid), there)]


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
    return next_depths(
        selected=selected.astype(np.int64),
        depths=depths,
        there=there,
        quota=config.select.quota_per_centroid,
        left_out={int(each) for each in facts.get("centroids_left_out", [])},
    )


def next_depths(
    *, selected: Ints, depths: Sequence[int], there: Ints, quota: int, left_out: Collection[int] = ()
) -> list[int] | None:
    """As deeper, from counts for each centroid id.

    Args:
        selected: Pictures it has, shape (k,).
        depths: Neighbours fetched so far; a missing one is 0.
        there: Neighbours it has, shape (k,).
        quota: Pictures it should have.
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
