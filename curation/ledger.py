"""The link ledger: what a fetch of another day may keep of what is written down of each picture.

One row a picture, with one status and its reason. A row stands until something it was made from
changes: its place or address, a list, what may be taken; or until a retry asks for it again.
"""

from collections import Counter
from dataclasses import dataclass
from typing import Any, ClassVar
from urllib.parse import urlsplit

import pyarrow as pa
import pyarrow.compute as pc

from spine.lists import BlockLists
from spine.polite_web import NOTHING_RESERVED, may_answer_later
from spine.publish import publish_table
from spine.run import Run, part_paths
from spine.settings import Config
from spine.tables import IMAGES, read_parts, read_table

ON_LISTS = ("takedown", "hash_block")
"""Reasons that a list gives."""

Row = dict[str, Any]
Repeated = tuple[str, str]
"""A host, and the SHA-256 of what it gives for several addresses."""


@dataclass(frozen=True, slots=True)
class Validity:
    """By what the row of an earlier start still holds."""

    COLUMNS: ClassVar = (
        *("id", "status", "reason", "image_path", "url"),
        *("sha256", "md5", "pdq", "http_status", "opt_out"),
    )
    """What `holds` reads."""

    config: Config
    lists: BlockLists
    retry_failed: bool
    placeholders: frozenset[Repeated]

    @classmethod
    def of(cls, run: Run, config: Config, lists: BlockLists, retry_failed: bool) -> "Validity":
        """As things stand now."""
        return cls(config, lists, retry_failed, repeated(run, config.fetch.placeholder_repeats))

    def holds(self, row: Row, source: tuple[str | None, str | None] | None) -> bool:
        """Whether a row says what would be found now.

        Args:
            row: With COLUMNS.
            source: Its place and address as a candidate, None where it is none at present.
        """
        blocked = self.lists.blocks(
            picture_id=row["id"], url=row["url"], sha256=row["sha256"], md5=row["md5"], pdq=row["pdq"]
        )
        if blocked != (row["reason"] if row["reason"] in ON_LISTS else None):
            return False
        if row["status"] == "fetched" and row["md5"] is None:  # from before there was such a column
            return False
        if not self._may_be_taken(row):
            return False
        if row["reason"] == "placeholder" and _key(row) not in self.placeholders:
            return False
        if source is None:
            return True
        if self.retry_failed and may_answer_later(row["reason"], row["http_status"]):
            return False
        place, url = source
        return bool(row["image_path"] == place) if place is not None else bool(row["url"] == url)

    def _may_be_taken(self, row: Row) -> bool:
        if not self.config.fetch.honour_opt_out:
            return bool(row["reason"] != "opted_out")
        downloaded = row["status"] == "fetched" and row["http_status"] is not None
        return not downloaded or row["opt_out"] == NOTHING_RESERVED


def mark_placeholders(run: Run, repeats: int) -> None:
    """Refuse the pictures that a host gives for many addresses; known only once all are fetched."""
    placeholders = repeated(run, repeats)
    if not placeholders:
        return
    message = f"{repeats} or more addresses of its host give this very picture"
    for path in part_paths(run.images):
        rows = read_table(path, IMAGES).to_pylist()
        marked = [
            row
            for row in rows
            if row["status"] == "fetched" and row["http_status"] is not None and _key(row) in placeholders
        ]
        for row in marked:
            row |= {"status": "failed", "reason": "placeholder", "message": message, "image_path": None}
        if marked:
            publish_table(path, pa.Table.from_pylist(rows, IMAGES))


def repeated(run: Run, repeats: int) -> frozenset[Repeated]:
    """What hosts give for so many addresses or more: pictures that stand for missing ones.

    Args:
        run: With fetched pictures.
        repeats: 2 or more; 0 finds nothing.
    """
    if not repeats:
        return frozenset()
    table = read_parts(run.images, IMAGES, ["status", "reason", "url", "sha256", "http_status"])
    downloaded = table.filter(pc.is_valid(table.column("http_status"))).to_pylist()
    given = Counter(
        _key(row) for row in downloaded if row["status"] == "fetched" or row["reason"] == "placeholder"
    )
    return frozenset(key for key, count in given.items() if count >= repeats)


def _key(row: Row) -> Repeated:
    return urlsplit(row["url"]).netloc.lower(), row["sha256"]
