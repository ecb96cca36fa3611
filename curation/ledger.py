"""The link ledger: images/part-*.parquet, and what a fetch of another day may keep of it.

One row a picture, with one status and its reason. A row stands until something it was made from
changes: its place or address, a list, what may be taken; or until its stored picture is gone, or a retry
asks for it again.
"""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from curation.asked_times import AskedTimes
from curation.assignment import Mask
from curation.candidates import Ints, column, counted, rows_of
from curation.passed_over import STATUS
from curation.placeholders import Repeated, key_of, mark_placeholders, repeated
from spine.errors import DataError
from spine.lists import ON_LISTS, BlockLists
from spine.polite_web import NOTHING_RESERVED, may_answer_later
from spine.publish import publish_table
from spine.run import Run, part_path, part_paths
from spine.settings import TWO_STEP, Config
from spine.table_files import read_parts, read_table
from spine.tables import IMAGES

MERGED_ROWS = 50_000
"""Rows from which a part is left as it is once a fetch is done."""

_SORTED_ROWS = 8 * MERGED_ROWS  # small parts put together at a time: what lies in memory

Row = dict[str, Any]
_READ = (
    *(
        "id",
        "status",
        "reason",
        "message",
        "image_path",
        "small_path",
        "url",
        "sha256",
        "md5",
        "http_status",
        "opt_out",
    ),
)  # of a row, to tell whether it holds; pdq only where a list names one


_PLACES = ("id", "status", "http_status", "image_path", "small_path", "sha256")


@dataclass(frozen=True, slots=True)
class Validity:
    """By what the row of an earlier start still holds."""

    config: Config
    lists: BlockLists
    retry_failed: bool = False

    def holds(
        self, rows: pa.Table, candidates: pa.Table, stored: pa.Array, placeholders: set[Repeated]
    ) -> Mask:
        """Which rows say what would be found now.

        Args:
            rows: Of IMAGES, n rows.
            candidates: id, image_path, url and sha256 of each picture wanted now, with the rule and message of
                those that are passed over.
            stored: Names of the pictures that are stored.
            placeholders: What hosts give for several addresses.

        Returns:
            Shape (n,).
        """
        fetched = pc.equal(rows.column("status"), "fetched")
        downloaded = pc.and_(fetched, rows.column("http_status").is_valid())
        holds = pc.invert(
            pc.and_(fetched, rows.column("md5").is_null())
        )  # from before there was such a column
        holds = pc.and_(holds, self._may_be_taken(rows, downloaded))
        there = pc.is_in(_names(rows.column("image_path")), value_set=stored)
        small = _names(rows.column("small_path"))
        there = pc.and_(there, pc.or_(small.is_null(), pc.is_in(small, value_set=stored)))
        holds = pc.and_(holds, pc.or_(pc.invert(downloaded), there))
        if self.config.fetch.mode != TWO_STEP:
            holds = pc.and_(holds, pc.invert(is_small(rows)))
        holds = pc.and_(holds, self._same_source(rows, candidates))
        mask = _mask(holds) & self._same_lists(rows)
        for row in np.flatnonzero(_mask(pc.equal(rows.column("reason"), "placeholder"))).tolist():
            mask[row] &= key_of(rows.slice(row, 1).to_pylist()[0]) in placeholders
        return mask

    def _may_be_taken(self, rows: pa.Table, downloaded: pa.ChunkedArray) -> pa.ChunkedArray:
        if not self.config.fetch.honour_opt_out:
            return pc.not_equal(rows.column("reason"), "opted_out").fill_null(True)
        none_reserved = pc.equal(rows.column("opt_out"), NOTHING_RESERVED).fill_null(False)
        return pc.or_(pc.invert(downloaded), none_reserved)

    def _same_source(self, rows: pa.Table, candidates: pa.Table) -> pa.ChunkedArray:
        """Whether a row that is wanted now has its place or address still, and need not be asked for again."""
        now = rows_of(candidates, column(rows, "id"))
        wanted, local = now.column("id").is_valid(), now.column("image_path").is_valid()
        same_place = pc.equal(rows.column("image_path"), now.column("image_path")).fill_null(False)
        same_url = pc.equal(rows.column("url"), now.column("url")).fill_null(False)
        same = pc.if_else(local, same_place, pc.and_(same_url, self._same_bytes(rows, now)))
        if self.retry_failed:
            reasons = zip(
                rows.column("reason").to_pylist(), rows.column("http_status").to_pylist(), strict=True
            )
            again = pa.array([may_answer_later(reason, status) for reason, status in reasons], pa.bool_())
            same = pc.and_(same, pc.invert(pc.and_(again, now.column("rule").is_null())))
        passed_over = pc.equal(rows.column("status"), STATUS)
        same_rule = pc.and_(
            pc.equal(rows.column("reason"), now.column("rule")).fill_null(False),
            pc.equal(rows.column("message"), now.column("message")).fill_null(False),
        )
        same = pc.and_(same, pc.or_(pc.invert(passed_over), same_rule))
        return pc.or_(pc.invert(wanted), same)

    def _same_bytes(self, rows: pa.Table, now: pa.Table) -> pa.ChunkedArray:
        """Whether a download's bytes may be what they are; of those scaled down nobody knows any more."""
        if not self.config.fetch.same_bytes:
            return pc.not_equal(rows.column("reason"), "changed").fill_null(True)
        other = pc.not_equal(rows.column("sha256"), now.column("sha256")).fill_null(False)
        fetched = pc.equal(rows.column("status"), "fetched")
        unscaled = pa.scalar(not self.config.fetch.max_side_px)
        return pc.invert(pc.and_(pc.and_(other, fetched), unscaled))

    def _same_lists(self, rows: pa.Table) -> Mask:
        """Whether the lists say of a row what they said then."""
        listed = _mask(pc.is_in(rows.column("reason"), value_set=pa.array(ON_LISTS)))
        if self.lists.empty:
            return ~listed
        before = zip(rows.column("reason").to_pylist(), listed.tolist(), strict=True)
        said = [reason if was_listed else None for reason, was_listed in before]
        now = self.lists.blocks_all(rows)
        return np.array([each == then for each, then in zip(now, said, strict=True)], dtype=bool)


class Ledger:
    """The rows of a run's images. One process writes."""

    def __init__(self, run: Run) -> None:
        self._run, self._asked = run, AskedTimes(run)
        numbers = [int(path.stem.removeprefix("part-")) for path in part_paths(run.images)]
        self._next_part = max(numbers, default=-1) + 1

    def keep_valid(self, candidates: pa.Table, validity: Validity) -> Ints:
        """Drop the rows of earlier starts that no longer hold, and second ones of a picture.

        Args:
            candidates: As `Validity.holds`.
            validity: By what a row holds.

        Returns:
            Ids that have their row, ascending.
        """
        placeholders = repeated(self._run, validity.config.fetch.placeholder_repeats)
        stored = pa.array(sorted(_stored_names(self._run.originals)), pa.string())
        names = [*_READ, *(["pdq"] if len(validity.lists.pdq) else [])]
        paths = part_paths(self._run.images)
        schema = pa.schema([IMAGES.field(name) for name in names])
        parts = [read_table(path, schema) for path in paths]
        rows = pa.concat_tables([schema.empty_table(), *parts])
        holds = validity.holds(rows, candidates, stored, placeholders)
        ids = column(rows, "id")
        # A kill while parts were merged leaves some rows twice; and what was had in full size, or can't be any more,
        # has its row as a small copy still.
        valid = np.flatnonzero(holds)
        valid = valid[np.argsort(_mask(is_small(rows))[valid], kind="stable")]
        holds = np.zeros(len(ids), dtype=bool)
        holds[valid[np.unique(ids[valid], return_index=True)[1]]] = True
        start = 0
        for path, part in zip(paths, parts, strict=True):
            inside = holds[start : start + part.num_rows]
            start += part.num_rows
            if not inside.all():
                publish_table(path, read_table(path, IMAGES).filter(pa.array(inside)))
        return np.sort(ids[holds])

    def small_copies(self, full_size: Ints) -> dict[int, str]:
        """Of these pictures those that only a small copy is stored of: id to the SHA-256 of the full size."""
        table = read_parts(self._run.images, IMAGES, _PLACES)
        small = table.filter(pc.and_(is_small(table), pc.is_in(table["id"], value_set=pa.array(full_size))))
        return dict(zip(small.column("id").to_pylist(), small.column("sha256").to_pylist(), strict=True))

    def add(self, rows: list[Row]) -> None:
        """Publish rows as another part."""
        self._publish(pa.Table.from_pylist(rows, IMAGES))
        self._asked.add(rows)

    def add_table(self, table: pa.Table) -> None:
        """Publish rows as further parts; schema IMAGES."""
        for start in range(0, table.num_rows, MERGED_ROWS):
            self._publish(table.slice(start, MERGED_ROWS))

    def _publish(self, table: pa.Table) -> None:
        publish_table(part_path(self._run.images, self._next_part), table)
        self._next_part += 1

    def finish(self, repeats: int, full_size: Ints | None) -> None:
        """Refuse placeholders, merge small parts, and remove stored pictures that no row names.

        Args:
            repeats: [fetch] placeholder_repeats.
            full_size: Ids of those that stay in full size where there is a small copy too; None for all.
        """
        mark_placeholders(self._run, repeats)
        if full_size is not None:
            self._let_go(full_size)
        self._merge()
        self._asked.finish()
        self._remove_unreferenced()

    def counts(self, ids: Ints) -> dict[str, int]:
        """Of these pictures; each has one status."""
        table = read_parts(self._run.images, IMAGES, ["id", "status", "reason"])
        if pc.count_distinct(table.column("id")).as_py() != table.num_rows:
            raise DataError(
                f"{self._run.images}: a picture has two rows; run `popfactory fetch` with --force"
            )
        rows = rows_of(table, ids)
        status = counted(rows.column("status"))
        counts = {"candidates": len(ids), "fetched": status.get("fetched", 0)}
        counts |= {each: status[each] for each in (STATUS,) if each in status}
        counts["failed"] = status.get("failed", 0)
        for each in (STATUS, "failed"):
            reasons = rows.filter(pc.equal(rows.column("status"), each)).column("reason")
            counts |= {f"{each}_{reason}": count for reason, count in sorted(counted(reasons).items())}
        return counts

    def _let_go(self, full_size: Ints) -> None:
        """Of what is in full size but need not be any more, name the small copy only."""
        for path in part_paths(self._run.images):
            known = read_table(path, pa.schema([IMAGES.field(name) for name in _PLACES]))
            larger = pc.and_(
                known["small_path"].is_valid(), pc.not_equal(known["image_path"], known["small_path"])
            )
            too_many = pc.and_(larger, pc.invert(pc.is_in(known["id"], value_set=pa.array(full_size))))
            if not _mask(too_many).any():
                continue
            table = read_table(path, IMAGES)
            places = pc.if_else(too_many, table["small_path"], table["image_path"])
            publish_table(
                path, table.set_column(table.schema.get_field_index("image_path"), "image_path", places)
            )

    def _merge(self) -> None:
        """Put small parts together, sorted by id: what is fetched ends the same, whatever came first.

        A part is small so that a stopped fetch loses little; no longer than that.
        """
        small = [
            path for path in part_paths(self._run.images) if pq.read_metadata(path).num_rows < MERGED_ROWS
        ]
        while small:
            paths: list[Path] = []
            rows = 0
            while small and rows < _SORTED_ROWS:
                paths.append(small.pop(0))
                rows += pq.read_metadata(paths[-1]).num_rows
            table = pa.concat_tables(read_table(path, IMAGES) for path in paths)
            ordered = table.sort_by("id")
            if len(paths) == 1 and ordered.column("id").equals(table.column("id")):
                continue
            # The merged ones first: what a kill leaves twice, the next start drops.
            self.add_table(ordered)
            for path in paths:
                path.unlink()

    def _remove_unreferenced(self) -> None:
        """Stored pictures that no row names: left by a kill, or of rows that a new list took out."""
        table = read_parts(self._run.images, IMAGES, _PLACES)
        kept = table.filter(pc.and_(pc.equal(table["status"], "fetched"), table["http_status"].is_valid()))
        named = {
            name
            for column in ("image_path", "small_path")
            for name in _names(kept.column(column)).to_pylist()
            if name
        }
        for name in _stored_names(self._run.originals) - named:
            (self._run.originals / name[:2] / name).unlink()


def is_small(rows: pa.Table) -> pa.ChunkedArray:
    """Which rows of images/ have a small copy in the place of the picture: it isn't named by the picture's hash."""
    stored = pc.and_(pc.equal(rows.column("status"), "fetched"), rows.column("http_status").is_valid())
    stem = pc.replace_substring_regex(_names(rows.column("image_path")), r"\..*", "")
    return pc.and_(stored, pc.not_equal(stem, rows.column("sha256"))).fill_null(False)


def _names(places: pa.ChunkedArray) -> pa.ChunkedArray:
    """The files' names."""
    return pc.replace_substring_regex(places, r".*/", "")


def _stored_names(originals: Path) -> set[str]:
    """Names of the stored pictures."""
    if not originals.is_dir():
        return set()
    folders = [entry.path for entry in os.scandir(originals) if entry.is_dir()]
    names = (
        entry.name for folder in folders for entry in os.scandir(folder)
    )  # Path would cost as much again
    return {name for name in names if not name.startswith(".")}


def _mask(values: pa.ChunkedArray) -> Mask:
    return np.array(values.fill_null(False).to_numpy(), dtype=bool)
