"""Placeholders: what a host gives in the place of pictures that it has no more, the same bytes for many addresses."""

from collections import Counter
from typing import Any
from urllib.parse import urlsplit

import pyarrow as pa
import pyarrow.compute as pc

from curation.candidates import counted
from spine.publish import publish_table
from spine.run import Run, part_paths
from spine.table_files import read_parts, read_table
from spine.tables import IMAGES

Repeated = tuple[str, str]
"""A host, and the SHA-256 of what it gives for several addresses."""


def repeated(run: Run, repeats: int) -> set[Repeated]:
    """What hosts give for so many addresses or more: pictures that stand for missing ones.

    Args:
        run: With fetched pictures.
        repeats: 2 or more; 0 finds nothing.
    """
    if not repeats:
        return set()
    table = read_parts(run.images, IMAGES, ["status", "reason", "url", "sha256", "http_status"])
    given = pc.or_(
        pc.equal(table.column("status"), "fetched"),
        pc.equal(table.column("reason"), "placeholder").fill_null(False),
    )
    table = table.filter(pc.and_(given, table.column("http_status").is_valid()))
    often = [sha256 for sha256, count in counted(table.column("sha256")).items() if count >= repeats]
    rows = table.filter(pc.is_in(table.column("sha256"), value_set=pa.array(often, pa.string()))).to_pylist()
    return {key for key, count in Counter(map(key_of, rows)).items() if count >= repeats}


def mark_placeholders(run: Run, repeats: int) -> None:
    """Refuse the pictures that a host gives for many addresses; known only once all are fetched.

    Args:
        run: With fetched pictures.
        repeats: As `repeated`.
    """
    placeholders = repeated(run, repeats)
    if not placeholders:
        return
    message = f"{repeats} or more addresses of its host give this very picture"
    hashes = pa.array(sorted({sha256 for _, sha256 in placeholders}), pa.string())
    for path in part_paths(run.images):
        known = read_table(path, pa.schema([IMAGES.field("sha256"), IMAGES.field("status")]))
        if not pc.any(pc.is_in(known.column("sha256"), value_set=hashes)).as_py():
            continue
        rows = read_table(path, IMAGES).to_pylist()
        marked = [
            row
            for row in rows
            if row["status"] == "fetched" and row["http_status"] is not None and key_of(row) in placeholders
        ]
        for row in marked:
            row |= {"status": "failed", "reason": "placeholder", "message": message}
            row |= {"image_path": None, "small_path": None}
        if marked:
            publish_table(path, pa.Table.from_pylist(rows, IMAGES))


def key_of(row: dict[str, Any]) -> Repeated:
    """Host and hash of a row of IMAGES."""
    return urlsplit(row["url"]).netloc.lower(), row["sha256"]
