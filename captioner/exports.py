"""Captions in the forms that other tools read: JSON lines, and WebDataset tars of sidecars without the pictures.

A member's name is its picture's id as in a release's tars, so the two can be read side by side.
"""

import itertools
import json
import tarfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from spine.errors import DataError
from spine.publish import publishing
from spine.run import Run, part_paths
from spine.table_files import read_table
from spine.tables import CAPTIONS, SELECTION
from spine.tar_members import add_member, key_of

TAR_ROWS = 10_000
"""Captions in one tar."""


def export(run: Run, folder: Path) -> dict[str, int]:
    """Write the captions that the captioner asked now has given of selected pictures, as it gave them.

    What curators chose or wrote instead stands in a release.

    Args:
        run: With captions, finished or not.
        folder: Gets captions.jsonl, a line a row, failures too; and 00000.tar and on with KEY.txt and KEY.json of each
            caption. Files of these names are replaced.

    Returns:
        rows: lines of captions.jsonl; captions: those in tars; tars.

    Raises:
        DataError: There are no captions, or a table is damaged.
    """
    if not part_paths(run.captions):
        raise DataError(f"{run.captions}: no captions yet; `popfactory caption {run.folder}` writes them")
    counts = {"rows": 0, "captions": 0, "tars": 0}
    with publishing(folder / "captions.jsonl") as temporary, temporary.open("w", encoding="utf-8") as lines:
        for row in _rows(run):
            lines.write(_line(row) + "\n")
            counts["rows"] += 1
    captioned = (row for row in _rows(run) if row["status"] == "captioned")
    while rows := list(itertools.islice(captioned, TAR_ROWS)):
        _write_tar(folder / f"{counts['tars']:05d}.tar", rows)
        counts["captions"] += len(rows)
        counts["tars"] += 1
    return counts


def _write_tar(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    with publishing(path) as temporary, tarfile.open(temporary, "w", format=tarfile.USTAR_FORMAT) as tar:
        for row in rows:
            add_member(tar, f"{key_of(row['id'])}.txt", row["caption"].encode())
            add_member(tar, f"{key_of(row['id'])}.json", _line(row).encode())


def _rows(run: Run) -> Iterator[dict[str, Any]]:
    """The rows of selected pictures, part by part."""
    chosen = read_table(run.selection_table, pa.schema([SELECTION.field("id"), SELECTION.field("verdict")]))
    ids = chosen.filter(pc.equal(chosen["verdict"], "selected"))["id"].combine_chunks()
    for path in part_paths(run.captions):
        rows = read_table(path, CAPTIONS)
        yield from rows.filter(pc.is_in(rows["id"], ids)).to_pylist()


def _line(row: dict[str, Any]) -> str:
    """A row as JSON; its id as text, since many readers lose digits of large numbers."""
    return json.dumps(row | {"id": str(row["id"]), "key": key_of(row["id"])}, ensure_ascii=False)
