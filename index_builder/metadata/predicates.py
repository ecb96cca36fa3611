"""What a row of a pool must be to be found, by what the pool says of it, and which rows are so."""

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from index_builder.metadata.foreign_columns import our_values, spelling_of
from index_builder.metadata.metadata_rows import MetadataRows, Rows
from index_builder.metadata.row_mask import RowMask
from spine.errors import DataError
from spine.filters import judge
from spine.settings import AestheticMin, FiltersConfig

_BLOCK = 2**19  # rows judged at once; a multiple of 8
_NO_FILTERS = FiltersConfig(min_side_px=0, pwatermark_max=None)


@dataclass(frozen=True, kw_only=True, slots=True)
class Predicate:
    """Conditions that a row must all meet. A value the pool doesn't know is as `filters.unknown` has it."""

    filters: FiltersConfig = _NO_FILTERS
    """Size, watermark, unsafe and aesthetic, as `select` judges them."""

    languages: tuple[str, ...] = ()
    """Languages of the caption, as the pool writes them (LAION: en, de, nolang); empty for all."""

    alt_txt_similarity_min: float | None = None
    """Least similarity of picture and caption, as the pool has it."""

    allow: Rows | None = None
    """Ids of the only pictures that may be found; None for all."""

    deny: Rows = field(default_factory=lambda: np.empty(0, dtype=np.int64))
    """Ids of pictures that may not be found."""

    @property
    def empty(self) -> bool:
        """Whether every row meets it."""
        return not self.needs

    @property
    def needs(self) -> list[str]:
        """The columns it looks at, under our names, and language."""
        filters = self.filters
        asked = {
            "width": filters.min_side_px > 0,
            "height": filters.min_side_px > 0,
            "pwatermark": filters.pwatermark_max is not None,
            "punsafe": filters.punsafe_max is not None,
            "aesthetic": filters.aesthetic_min.value is not None,
            "alt_txt_similarity": self.alt_txt_similarity_min is not None,
            "language": bool(self.languages),
            "id": self.allow is not None or len(self.deny) > 0,
        }
        return [name for name, needed in asked.items() if needed]

    def missing(self, columns: Sequence[str]) -> list[str]:
        """Of the columns it needs those that a pool with these columns says nothing of; all rows are unknown there."""
        return [name for name in self.needs if name != "id" and not spelling_of(name, columns)]

    def parameters(self) -> dict[str, Any]:
        """What tells it from others, as JSON values."""
        ids = {name: _digest(getattr(self, name)) for name in ("allow", "deny")}
        plain = {"filters": asdict(self.filters), "languages": list(self.languages)}
        return plain | {"alt_txt_similarity_min": self.alt_txt_similarity_min} | ids

    def judge(self, values: pa.Table) -> npt.NDArray[np.bool_]:
        """Which rows meet it.

        Args:
            values: Columns as `needs` names them; one that isn't there is unknown.
        """
        filters = self.filters
        # The pool's scores are of no head that we know the name of, so only the value counts.
        minimum = AestheticMin(value=filters.aesthetic_min.value)
        passed = judge(values, replace(filters, aesthetic_min=minimum)).passed
        keep = filters.unknown == "keep"
        if self.alt_txt_similarity_min is not None:
            passed &= _at_least(values, "alt_txt_similarity", self.alt_txt_similarity_min, keep)
        if self.languages:
            passed &= _one_of(values, "language", self.languages, keep)
        if "id" in self.needs:
            ids = values.column("id").to_numpy()
            if self.allow is not None:
                passed &= np.isin(ids, self.allow)
            passed &= ~np.isin(ids, self.deny)
        return passed


def rows_that_pass(rows: MetadataRows, predicate: Predicate) -> RowMask:
    """Judge every row of a pool: one pass over the columns that count, and then a bit a row.

    Raises:
        DataError: A column's values are not what its name says, or ids are asked for and nothing tells them.
    """
    needed = predicate.needs
    spelled = [each for name in needed for each in spelling_of(name, rows.schema.names)]

    def pieces() -> Iterator[npt.NDArray[np.bool_]]:
        for table in rows.blocks(list(dict.fromkeys(spelled)), _BLOCK):
            yield predicate.judge(our_values(table, needed))

    return RowMask(rows.n, pieces())


def read_ids(path: Path) -> Rows:
    """Ids of pictures: whole numbers in .npy, or a text file with one a line, where # begins a remark.

    Raises:
        DataError: The file can't be read, or holds something else.
    """
    try:
        if path.suffix.lower() == ".npy":
            ids = np.load(path, allow_pickle=False)
            if not isinstance(ids, np.ndarray) or ids.dtype.kind not in "iu" or ids.ndim != 1:
                raise DataError(f"{path}: a plain array of whole numbers was needed")
        else:
            lines = (
                line.partition("#")[0].strip() for line in path.read_text(encoding="utf-8-sig").splitlines()
            )
            ids = np.array([int(line) for line in lines if line], dtype=np.int64)
    except (OSError, ValueError, EOFError, OverflowError) as error:
        raise DataError(
            f"{path}: can't be read as ids ({error}); one whole number a line was needed"
        ) from None
    return np.unique(ids.astype(np.int64))


def _at_least(values: pa.Table, name: str, least: float, keep: bool) -> npt.NDArray[np.bool_]:
    if name not in values.column_names:
        return np.full(values.num_rows, keep)
    column = values.column(name).cast(pa.float64()).to_numpy()
    return np.asarray(np.where(np.isnan(column), keep, column >= least))


def _one_of(values: pa.Table, name: str, words: Sequence[str], keep: bool) -> npt.NDArray[np.bool_]:
    if name not in values.column_names:
        return np.full(values.num_rows, keep)
    column = values.column(name)
    inside = pc.is_in(column, pa.array(words, pa.string()))
    return np.asarray(pc.if_else(pc.is_null(column), keep, inside).to_numpy(zero_copy_only=False), dtype=bool)


def _digest(ids: Rows | None) -> str | None:
    if ids is None:
        return None
    return hashlib.sha256(json.dumps(np.unique(ids).tolist()).encode()).hexdigest() if len(ids) else ""
