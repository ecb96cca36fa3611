"""A run's captions as they lie on disk now, also while they are written: figures in memory, texts on demand.

Every part is read once and again when it is replaced. Parts move to a shelf and back by renames while a captioner
works: what has just moved is looked for again.
"""

import threading
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from curation.caption_choice import shelved_parts
from spine.caption_flags import COLUMNS, FLAGS, flags
from spine.errors import DataError
from spine.run import Run, part_paths
from spine.table_files import read_table
from spine.tables import AGREEMENT, CAPTIONS

MEASURES = ("words", "repetition", "speculation", "interpretation")
"""Columns of CAPTIONS that captions are sorted by."""

CLIP = "clip"
"""A further measure, where it was taken: mean similarity of the sentences to the picture."""

UNLIKE = "unlike"
FLAG_MEANINGS = FLAGS | {UNLIKE: "no nearer to their picture than 95 % of captions are to another, by CLIP"}
"""Every flag of the page: those of the words, and whether a caption is like its picture."""

_AGREEMENT = pa.schema(
    [AGREEMENT.field(name) for name in ("caption_id", "clip_mean", "clip_other", "worst_sentence")]
)
_KEPT = ("caption_id", "id", "status", "prompt_id", *MEASURES)
_BRIEF = pa.schema([CAPTIONS.field(name) for name in dict.fromkeys((*_KEPT, *COLUMNS))])
_TRIES = 5


@dataclass(frozen=True, slots=True)
class Captions:
    """What is known of every caption; first those of the captioner asked now, then all others."""

    ids: npt.NDArray[np.int64]
    """Of the pictures, shape (n,)."""
    names: pa.Array
    """Caption ids, n texts."""
    prompts: pa.Array
    """Ids of the prompts that asked for them, n texts."""
    own: npt.NDArray[np.bool_]
    """Whether the captioner asked now wrote it."""
    captioned: npt.NDArray[np.bool_]
    """False for one that failed."""
    flags: npt.NDArray[np.int64]
    """A bit for each of FLAG_MEANINGS, the first the lowest."""
    measures: dict[str, npt.NDArray[np.float64]]
    """Each of MEASURES, and CLIP; NaN where unknown."""
    part: npt.NDArray[np.int32]
    """Place in `paths`."""
    row: npt.NDArray[np.int64]
    """Within the part."""
    paths: tuple[Path, ...]
    worst: dict[int, str]
    """By the place of an unlike caption, its sentence that is least like the picture."""


@dataclass(frozen=True, slots=True)
class _Part:
    table: pa.Table
    bits: npt.NDArray[np.int64]


class _Moved(Exception):
    """A part is not where it was."""


def flag_bits(rows: pa.Table) -> npt.NDArray[np.int64]:
    """The flags of rows of CAPTIONS as `Captions.flags` has them, shape (n,)."""
    bits = np.zeros(rows.num_rows, dtype=np.int64)
    for place, on in enumerate(flags(rows).values()):
        bits |= np.asarray(on.to_numpy(), dtype=np.int64) << place
    return bits


class CaptionTables:
    """The captions of one run. Used from several threads."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._lock = threading.Lock()
        self._parts: dict[tuple[Path, tuple[int, int, int]], _Part] = {}
        self._joined: tuple[tuple[object, ...], Captions] | None = None

    def now(self) -> Captions:
        """What there is.

        Raises:
            DataError: A part is damaged.
        """
        with self._lock:
            for _ in range(_TRIES):
                try:
                    return self._now()
                except _Moved:
                    continue
        raise DataError(f"{self._run.captions}: its parts change faster than they can be read; try again")

    def rows(self, captions: Captions, places: Sequence[int]) -> list[dict[str, Any]] | None:
        """Whole rows of CAPTIONS, in the order of `places`; None where a part was replaced since `captions` was read.

        Raises:
            DataError: A part is damaged.
        """
        found: dict[int, dict[str, Any]] = {}
        for number in np.unique(captions.part[list(places)]):
            wanted = [place for place in places if captions.part[place] == number]
            try:
                table = _read(captions.paths[number], CAPTIONS)
            except _Moved:
                return None
            at = captions.row[wanted]
            if at.max(initial=-1) >= table.num_rows:
                return None
            rows = table.take(pa.array(at)).to_pylist()
            if [row["caption_id"] for row in rows] != captions.names.take(pa.array(wanted)).to_pylist():
                return None
            found |= dict(zip(wanted, rows, strict=True))
        return [found[place] for place in places]

    def _now(self) -> Captions:
        own, others = part_paths(self._run.captions), shelved_parts(self._run)
        keys = [(path, _state(path)) for path in (*own, *others)]
        measured = self._run.caption_agreement
        signature = (len(own), *keys, _state(measured) if measured.is_file() else None)
        if self._joined is not None and self._joined[0] == signature:
            return self._joined[1]
        self._parts = {key: self._parts.get(key) or _part(key[0]) for key in keys}
        joined = _join(list(self._parts.values()), [path for path, _ in keys], len(own))
        if measured.is_file():
            joined = _with_agreement(joined, _read(measured, _AGREEMENT))
        self._joined = (signature, joined)
        return joined


def _with_agreement(captions: Captions, agreement: pa.Table) -> Captions:
    at = pc.index_in(captions.names, value_set=agreement["caption_id"].combine_chunks())
    known = agreement.select(["clip_mean", "worst_sentence"]).take(at)
    means = np.asarray(known["clip_mean"].cast(pa.float64()).to_numpy(), dtype=np.float64)
    others = np.asarray(agreement["clip_other"].cast(pa.float64()).to_numpy(), dtype=np.float64)
    limit = np.nanpercentile(others, 95, method="inverted_cdf") if np.isfinite(others).any() else np.nan
    unlike = np.flatnonzero(means <= limit)
    bits = captions.flags.copy()
    bits[unlike] |= 1 << list(FLAG_MEANINGS).index(UNLIKE)
    worst = dict(
        zip(unlike.tolist(), known["worst_sentence"].take(pa.array(unlike)).to_pylist(), strict=True)
    )
    return replace(captions, flags=bits, measures=captions.measures | {CLIP: means}, worst=worst)


def _state(path: Path) -> tuple[int, int, int]:
    try:
        found = path.stat()
    except FileNotFoundError:
        raise _Moved from None
    return found.st_mtime_ns, found.st_size, found.st_ino


def _part(path: Path) -> _Part:
    table = _read(path, _BRIEF)
    return _Part(table.select(list(_KEPT)), flag_bits(table))


def _read(path: Path, schema: pa.Schema) -> pa.Table:
    try:
        return read_table(path, schema)
    except DataError:
        if not path.exists():
            raise _Moved from None
        raise


def _join(parts: Sequence[_Part], paths: Sequence[Path], own: int) -> Captions:
    sizes = [part.table.num_rows for part in parts]
    empty = _BRIEF.empty_table().select(list(_KEPT))
    table = pa.concat_tables([empty, *(part.table for part in parts)]).combine_chunks()
    number = np.repeat(np.arange(len(parts), dtype=np.int32), sizes)
    starts = np.cumsum([0, *sizes])[:-1]
    return Captions(
        ids=np.asarray(table["id"].to_numpy(), dtype=np.int64),
        names=table["caption_id"].combine_chunks(),
        prompts=table["prompt_id"].combine_chunks(),
        own=number < own,
        captioned=np.asarray(pc.equal(table["status"], "captioned").to_numpy(), dtype=bool),
        flags=np.concatenate([np.zeros(0, dtype=np.int64), *(part.bits for part in parts)]),
        measures={
            name: np.asarray(table[name].cast(pa.float64()).to_numpy(), dtype=np.float64) for name in MEASURES
        }
        | {CLIP: np.full(table.num_rows, np.nan)},
        part=number,
        row=np.arange(table.num_rows) - np.repeat(starts, sizes),
        paths=tuple(paths),
        worst={},
    )
