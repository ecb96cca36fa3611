"""What differs between two releases, row by row, and why; and which rows of old ones a list names by now.

Rows are told by their id alone: whoever keeps a copy can follow it, and nothing that was taken down is
shown again.
"""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from curation.candidates import column, rows_of
from curation.revisions import published, release_folder
from spine.config import load_config
from spine.filters import RULES
from spine.lists import BlockLists
from spine.manifest import find_manifest, read_manifest
from spine.run import Run
from spine.table_files import read_table
from spine.tables import DATASET, SELECTION

_NAMED_BY = ("id", "url", "sha256", "md5", "pdq")
_PLACES = frozenset({"image_path", "key"})  # where a picture lies is no part of what it is


@dataclass(frozen=True, slots=True)
class Change:
    """One row that differs."""

    kind: str
    """added, removed or changed."""
    id: int
    reason: str


@dataclass(frozen=True, slots=True)
class Difference:
    """What differs between two releases."""

    old: str
    new: str
    changes: list[Change]
    """Removed, added, changed; each in order of id."""
    same: int
    """Rows that don't differ."""

    def lines(self) -> list[str]:
        """For a person: the sums, then a line a row."""
        kinds = Counter(change.kind for change in self.changes)
        sums = ", ".join(f"{kinds[kind]:,} {kind}" for kind in ("added", "removed", "changed"))
        first = f"{self.old} to {self.new}: {sums}, {self.same:,} the same"
        return [first, *(f"{change.kind} {change.id}: {change.reason}" for change in self.changes)]


@dataclass(frozen=True, slots=True)
class Blocked:
    """A row of a release that a list names by now."""

    release: str
    id: int
    rule: str

    def line(self) -> str:
        """For a person."""
        return f"{self.release}: {self.id}: {RULES[self.rule]}"


def difference(run: Run, old: str, new: str) -> Difference:
    """Compare two releases of a run.

    Args:
        run: Whose lists and selection tell why a row left.
        old: A release's folder name, or its path.
        new: The later one, likewise.

    Raises:
        DataError: One isn't there, or is damaged.
        ConfigError: A list can't be read.
    """
    first, second = (release_folder(run, name) for name in (old, new))
    selection = find_manifest(run.selection)
    known = selection is not None and read_manifest(second).inputs.get("selection") == selection.digest
    after = read_table(second / "dataset.parquet", DATASET)
    return _compared(_Reasons(run, known), first, second.name, after)


def difference_to(run: Run, old: Path, name: str, rows: pa.Table) -> Difference:
    """What would differ from a release if these rows, made from the run as it stands, were published as NAME.

    Args:
        run: Whose lists and selection tell why a row would leave.
        old: A published release's folder.
        name: The later one's name.
        rows: Its rows, schema DATASET.

    Raises:
        DataError: The release is damaged.
        ConfigError: A list can't be read.
    """
    return _compared(_Reasons(run, True), old, name, rows)


def _compared(reasons: "_Reasons", old: Path, name: str, after: pa.Table) -> Difference:
    before = read_table(old / "dataset.parquet", DATASET)
    ids_before, ids_after = column(before, "id"), column(after, "id")
    removed = rows_of(before, np.setdiff1d(ids_before, ids_after)).to_pylist()
    added = rows_of(after, np.setdiff1d(ids_after, ids_before)).to_pylist()
    both = np.intersect1d(ids_before, ids_after)
    columns = _differing(rows_of(before, both), rows_of(after, both))
    changes = [
        *(Change("removed", row["id"], reasons.of(row)) for row in removed),
        *(Change("added", row["id"], _why_added(row)) for row in added),
        *(Change("changed", int(both[at]), ", ".join(names)) for at, names in sorted(columns.items())),
    ]
    return Difference(old.name, name, changes, len(both) - len(columns))


def blocked_rows(run: Run, lists: BlockLists) -> list[Blocked]:
    """The rows of all published releases that lists name now.

    Raises:
        DataError: A release is damaged.
    """
    if lists.empty:
        return []
    schema = pa.schema([DATASET.field(name) for name in _NAMED_BY])
    found = []
    for folder in published(run):
        rows = read_table(folder / "dataset.parquet", schema)
        rules = zip(rows.column("id").to_pylist(), lists.blocks_all(rows), strict=True)
        found += [Blocked(folder.name, number, rule) for number, rule in rules if rule is not None]
    return found


def _known(row: dict[str, Any]) -> dict[str, Any]:
    return {name: row[name] for name in _NAMED_BY if name != "id"}


def _differing(before: pa.Table, after: pa.Table) -> dict[int, list[str]]:
    """By place of a row the columns in which two tables of the same pictures differ."""
    found: dict[int, list[str]] = {}
    for name in (each for each in before.column_names if each not in _PLACES):
        one, other = before.column(name), after.column(name)
        unlike = pc.or_(
            pc.fill_null(pc.not_equal(one, other), False), pc.xor(pc.is_null(one), pc.is_null(other))
        )
        for at in np.flatnonzero(unlike.to_numpy(zero_copy_only=False)).tolist():
            found.setdefault(at, []).append(name)
    return found


def _why_added(row: dict[str, Any]) -> str:
    by = f"kept by {row['selected_by']}" if row["selected_by"] else "selected"
    return f"{by}, centroid {row['centroid_id']}, rank {row['rank']}"


class _Reasons:
    """Why a row is not in the later release, as far as the run still knows."""

    def __init__(self, run: Run, known: bool) -> None:
        """Args: known: Whether the later release is of the run's selection as it stands."""
        self._lists = BlockLists.load(load_config(run.config).lists, run.folder)
        self._verdicts: dict[int, list[dict[str, Any]]] | None = None
        if known:
            self._verdicts = {}
            for row in read_table(run.selection_table, SELECTION).to_pylist():
                self._verdicts.setdefault(row["id"], []).append(row)

    def of(self, row: dict[str, Any]) -> str:
        """For a row of the earlier release."""
        rule = self._lists.blocks(picture_id=row["id"], **_known(row))
        if rule is not None:
            return f"{rule}: {RULES[rule]}"
        if self._verdicts is None:
            return "the run has another selection by now and no longer knows"
        verdicts = self._verdicts.get(row["id"], [])
        if not verdicts:
            return "no centroid wants it any more"
        verdict = min(verdicts, key=lambda each: each["centroid_id"] != row["centroid_id"])
        if any(each["verdict"] == "selected" for each in verdicts):
            return "selected, but without a caption"
        detail = f": {verdict['detail']}" if verdict["detail"] else ""
        return f"{verdict['rule']}: {RULES[verdict['rule']]}{detail}"
