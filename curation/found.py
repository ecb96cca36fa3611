"""Pictures that a search in the pool found and a person keeps, though no centroid has them among its neighbours.

Such a keep carries the pool's row of each, as the retrieval server told it, and makes them candidates of the centroid
they were kept in, for as long as it stands. All else holds for them as for every candidate: lists, fetch, scores,
near-duplicates, quota.
"""

import functools
import hashlib
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from spine.errors import DataError
from spine.tables import METADATA, NEIGHBOURS

FOUND = "found"
"""Tag of a keep that carries rows of the pool."""

VALUES = ("similarity", *(name for name in METADATA.names if name != "id"))
"""What is kept of a row; similarity is that to what was searched for."""

_WHOLE = frozenset({"width", "height"})
_TEXTS = frozenset({"url", "image_path", "caption", "key", "sha256"})
_LONGEST = 8_000_000  # signs of one event's rows
_LONGEST_TEXT = 4_000


@dataclass(frozen=True, slots=True)
class Found:
    """One picture that was found."""

    like: str
    """What was searched for: "text:WORDS", "image:ID" or "picture:SHA256"."""
    centroid_id: int
    """The centroid it was kept in."""
    values: dict[str, Any]
    """VALUES by name; what is unknown is left out."""


def found_text(like: str, rows: Mapping[int, Mapping[str, Any]]) -> str:
    """What the keep of these rows carries, as text.

    Args:
        like: What was searched for.
        rows: By id, as `values_of` gives them.
    """
    kept = {str(number): row for number, row in rows.items()}
    return json.dumps({"like": like, "rows": kept}, ensure_ascii=False, separators=(",", ":"))


def values_of(row: Mapping[str, Any]) -> dict[str, Any] | None:
    """What is kept of a row of NEIGHBOURS, a very long alt text shortened; None where another text is too long."""
    known = {name: row.get(name) for name in VALUES}
    values = {
        name: value[:_LONGEST_TEXT] if name == "caption" else value
        for name, value in known.items()
        if value is not None and not (isinstance(value, float) and not math.isfinite(value))
    }
    return values if _is_row(values) else None


@functools.lru_cache(maxsize=64)  # of a bulk keep each of its ids asks
def found_rows(text: str, centroid_id: int) -> Mapping[int, Found]:
    """The rows that a keep in this centroid carries, by id.

    Raises:
        DataError: It carries something else.
    """
    try:
        content = json.loads(text if len(text) <= _LONGEST else "")
        like, rows = content["like"], content["rows"]
        if not isinstance(like, str) or not all(map(_is_row, rows.values())):
            raise ValueError
        return {int(number): Found(like, centroid_id, row) for number, row in rows.items()}
    except (ValueError, KeyError, TypeError, AttributeError):
        raise DataError(f"{text[:80]!r}: rows of the pool as a search found them were needed") from None


def _is_row(row: Any) -> bool:
    return isinstance(row, dict) and all(_fits(name, value) for name, value in row.items())


def _fits(name: str, value: Any) -> bool:
    if name in _TEXTS:
        return isinstance(value, str) and len(value) <= _LONGEST_TEXT
    if name in _WHOLE:
        return type(value) is int and 0 <= value < 2**31
    return name in VALUES and type(value) in (int, float) and math.isfinite(value)


def found_table(
    kept: Iterable[tuple[int, Found]],
    neighbours: npt.NDArray[np.int64],
    available: Sequence[int],
    centroids: int,
) -> pa.Table:
    """The found pictures as rows of NEIGHBOURS, after their centroid's own; sorted by centroid and rank.

    Args:
        kept: Pictures and what is known of them, in the order in which they were kept.
        neighbours: Ids that are neighbours of some centroid: these are candidates there already.
        available: For each centroid id how many neighbours it has; a missing one is 0.
        centroids: How many there are; rows of others are left out.
    """
    kept = list(kept)
    known = set(neighbours[np.isin(neighbours, [picture for picture, _ in kept])].tolist())
    rows: list[dict[str, Any]] = []
    next_rank: dict[int, int] = {}
    for picture, found in kept:
        centroid = found.centroid_id
        if picture in known or not 0 <= centroid < centroids:
            continue
        rank = next_rank.get(centroid, available[centroid] if centroid < len(available) else 0)
        next_rank[centroid] = rank + 1
        places = {"centroid_id": centroid, "rank": rank, "id": picture, "similarity": 0.0}
        rows.append(places | {"best_centroid": centroid} | found.values)
    rows.sort(key=lambda row: (row["centroid_id"], row["rank"]))
    return pa.Table.from_pylist(rows, schema=NEIGHBOURS)


def digest_of(table: pa.Table) -> str:
    """SHA-256 over the rows."""
    return hashlib.sha256(json.dumps(table.to_pylist(), sort_keys=True).encode()).hexdigest()
