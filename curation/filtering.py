"""Filters tried on candidates: with filters of its own, one centroid may take what another turns away."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from curation.assignment import Mask
from curation.candidates import Ints, column
from spine.filters import Judgements, judge
from spine.settings import FiltersConfig


@dataclass(frozen=True, slots=True)
class Filtered:
    """For each candidate the first filter it fails."""

    codes: npt.NDArray[np.int8]
    """Place in spine.filters.FILTERS, -1 where all are passed; shape (n,)."""
    details: pa.Array
    """The value that failed and the limit; null where all are passed; n texts."""


def filter_candidates(
    values: pa.Table,
    picture: Ints,
    centroid: Ints,
    filters: FiltersConfig,
    own: Mapping[int, FiltersConfig],
    kept: Mask,
    passed_over: Mask,
) -> Filtered:
    """Try the filters of its centroid on every candidate.

    Args:
        values: What `spine.filters.judge` reads, a row for each of m pictures.
        picture: Of each candidate its place in `values`, shape (n,).
        centroid: Of each candidate, ascending, shape (n,).
        filters: Those of centroids that have none of their own.
        own: Those of the others, by centroid id.
        kept: Pictures that a person keeps pass every filter, shape (m,).
        passed_over: Pictures that were not fetched for what the pool says of them: only that speaks against
            them, what is unknown is not. Shape (m,).
    """
    judged = _judged(values, filters, passed_over)
    codes = np.where(kept, np.int8(-1), judged.codes)[picture]
    details = _details(judged, ~kept).take(pa.array(picture))
    for number, settings in own.items():
        rows = slice(*np.searchsorted(centroid, [number, number + 1]).tolist())
        inside = picture[rows]
        if not len(inside):
            continue
        judged = _judged(values.take(pa.array(inside)), settings, passed_over[inside])
        codes[rows] = np.where(kept[inside], -1, judged.codes)
        details = pa.concat_arrays(
            [details[: rows.start], _details(judged, ~kept[inside]), details[rows.stop :]]
        )
    return Filtered(codes, details)


def _details(judged: Judgements, wanted: Mask) -> pa.Array:
    """A text for each that fails, null for the others."""
    texts = np.full(len(judged.codes), None, dtype=object)
    for row in np.flatnonzero((judged.codes >= 0) & wanted).tolist():
        texts[row] = judged.detail(row)
    return pa.array(texts, pa.string())


def _judged(values: pa.Table, filters: FiltersConfig, known_only: Mask) -> Judgements:
    """As judge, but for these nothing unknown counts."""
    judged = judge(values, filters)
    if filters.unknown == "keep" or not known_only.any():
        return judged
    known = judge(values, replace(filters, unknown="keep"))
    return Judgements(
        np.where(known_only, known.codes, judged.codes),
        np.where(known_only, known.values, judged.values),
        judged.limits,
    )


def judge_known(
    neighbours: pa.Table, filters: FiltersConfig, own: Mapping[int, FiltersConfig]
) -> tuple[npt.NDArray[np.int8], npt.NDArray[np.float64]]:
    """Try the filters of its centroid on each neighbour, as far as the pool's own columns tell.

    Args:
        neighbours: Columns centroid_id (ascending), and what `spine.filters.judge` reads.
        filters: Those of centroids that have none of their own.
        own: Those of the others, by centroid id.

    Returns:
        Place in spine.filters.FILTERS of the first filter that fails, -1 where none does, and the value that failed;
        shape (n,).
    """
    judged = judge(neighbours, replace(filters, unknown="keep"))
    centroid = column(neighbours, "centroid_id")
    for number, settings in own.items():
        start, end = np.searchsorted(centroid, [number, number + 1]).tolist()
        inside = judge(neighbours.slice(start, end - start), replace(settings, unknown="keep"))
        judged.codes[start:end], judged.values[start:end] = inside.codes, inside.values
    return judged.codes, judged.values
