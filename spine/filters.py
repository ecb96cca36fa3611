"""What a picture must have to be selected, and the name of each rule that can keep it out.

The board's masks and `select` both follow this module, unknown values included.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from spine.settings import FiltersConfig

RULES: dict[str, str] = {
    "takedown": "on a takedown list",
    "hash_block": "its hash is on a block list",
    "person": "a curator decided",
    "centroid_left_out": "a curator left the whole centroid out",
    "unfetched": "its file or address gave no picture",
    "unscored": "fetched, but its bytes gave no embedding",
    "changed": "shows something else than when the pool was made",
    "min_side_px": "shorter side too small",
    "pwatermark_max": "probably watermarked",
    "punsafe_max": "probably not safe for work",
    "violence_max": "probably violent",
    "aesthetic_min": "aesthetic score too low",
    "near_duplicate": "another picture stands for it",
    "other_centroid": "selected for another centroid",
    "quota": "the centroid has its quota",
    "selected": "nothing speaks against it",
}
"""Every rule that can decide on a candidate, in the order of precedence, with its meaning."""

UNSAFE = 0.5
"""A picture with a higher probability of being unsafe, or with none, is shown blurred."""

FILTERS = ("min_side_px", "pwatermark_max", "punsafe_max", "violence_max", "aesthetic_min")
"""The rules that judge a picture by its own values, in the order they are tried."""


@dataclass(frozen=True, slots=True)
class Judgements:
    """For each picture the first filter it fails."""

    codes: npt.NDArray[np.int8]
    """Place in FILTERS, -1 where all are passed; shape (n,)."""

    values: npt.NDArray[np.float64]
    """The value that failed, NaN where it is unknown or all are passed; shape (n,)."""

    limits: tuple[float | None, ...]
    """The limit of each filter, None where it is off."""

    @property
    def passed(self) -> npt.NDArray[np.bool_]:
        """Which pictures pass every filter; shape (n,)."""
        return self.codes < 0

    def rule(self, row: int) -> str | None:
        """The filter that a picture fails, None if it passes them all."""
        code = int(self.codes[row])
        return None if code < 0 else FILTERS[code]

    def detail(self, row: int) -> str:
        """The value that failed and the limit, for a person; empty if nothing failed."""
        code = int(self.codes[row])
        if code < 0:
            return ""
        value, limit = float(self.values[row]), self.limits[code]
        return f"unknown, limit {limit:g}" if np.isnan(value) else f"{value:.4g}, limit {limit:g}"


def judge(values: pa.Table, config: FiltersConfig) -> Judgements:
    """Try every filter on every picture.

    Args:
        values: One row a picture with the columns width, height (pixels), pwatermark, punsafe
            (probabilities), violence, aesthetic and, where a head is named in the settings, aesthetic_model.
            A column that isn't there, a null and a NaN are unknown.
        config: The [filters] table.
    """
    side = np.minimum(_column(values, "width"), _column(values, "height"))
    aesthetic = _column(values, "aesthetic")
    minimum = config.aesthetic_min
    if minimum.head:
        aesthetic = np.where(_is_text(values, "aesthetic_model", minimum.head), aesthetic, np.nan)
    at_least: Callable[..., npt.NDArray[np.bool_]] = np.less
    at_most: Callable[..., npt.NDArray[np.bool_]] = np.greater
    trials = (
        (side, float(config.min_side_px) if config.min_side_px else None, at_least),
        (_column(values, "pwatermark"), config.pwatermark_max, at_most),
        (_column(values, "punsafe"), config.punsafe_max, at_most),
        (_column(values, "violence"), config.violence_max, at_most),
        (aesthetic, minimum.value, at_least),
    )
    codes = np.full(values.num_rows, -1, dtype=np.int8)
    failing = np.full(values.num_rows, np.nan)
    for code, (measured, limit, fails) in enumerate(trials):
        if limit is None:
            continue
        unknown = np.isnan(measured)
        with np.errstate(invalid="ignore"):
            failed = (fails(measured, limit) & ~unknown) | (unknown & (config.unknown == "drop"))
        first = failed & (codes < 0)
        codes[first] = code
        failing[first] = measured[first]
    return Judgements(codes, failing, tuple(limit for _, limit, _ in trials))


def _column(values: pa.Table, name: str) -> npt.NDArray[np.float64]:
    if name not in values.column_names:
        return np.full(values.num_rows, np.nan)
    column = values.column(name).cast(pa.float64())
    return np.asarray(column.to_numpy(zero_copy_only=False), dtype=np.float64)


def _is_text(values: pa.Table, name: str, text: str) -> npt.NDArray[np.bool_]:
    if name not in values.column_names:
        return np.zeros(values.num_rows, dtype=bool)
    return np.array([entry == text for entry in values.column(name).to_pylist()], dtype=bool)
