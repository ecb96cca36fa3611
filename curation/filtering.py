"""Filters tried on candidates: with filters of its own, one centroid may take what another turns away."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from curation.assignment import Mask
from curation.candidates import Ints
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
) -> Filtered:
    """Try the filters of its centroid on every candidate.

    Args:
        values: What `spine.filters.judge` reads, a row for each of m pictures.
        picture: Of each candidate its place in `values`, shape (n,).
        centroid: Of each candidate, ascending, shape (n,).
        filters: Those of centroids that have none of their own.
        own: Those of the others, by centroid id.
        kept: Pictures that a person keeps pass every filter, shape (m,).
    """
    judged = judge(values, filters)
    codes = np.where(kept, np.int8(-1), judged.codes)[picture]
    details = _details(judged, ~kept).take(pa.array(picture))
    for number, settings in own.items():
        rows = slice(*np.searchsorted(centroid, [number, number + 1]).tolist())
        inside = picture[rows]
        if not len(inside):
            continue
        judged = judge(values.take(pa.array(inside)), settings)
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
