"""The newest of what a stage has written: whether a job goes well can be seen long before it is done."""

import contextlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from curation.links import STATUSES
from spine.run import Run, part_paths
from spine.table_files import read_table
from spine.tables import CAPTIONS, IMAGES, LINKS, METADATA, NEIGHBOURS
from ui.board import BLOCKED
from ui.gallery import Gallery

_MOST_SIGNS = 600
_SCORES = pa.schema(
    [
        ("id", pa.int64()),
        ("aesthetic", pa.float32()),
        ("unsafe", pa.float32()),
        ("watermark", pa.float32()),
    ]
)
Said = list[tuple[dict[str, Any], str]]
"""Rows of NEIGHBOURS as far as they are known, each with what the stage says of it; newest first."""


def samples(run: Run, gallery: Gallery, stage: str, count: int = 6) -> list[dict[str, Any]]:
    """Some pictures that this stage wrote of last, as `Gallery` shows them, each with what the stage `said`.

    Args:
        run: The run.
        gallery: Keeps back what lists block, and blurs what is unsafe or without a score.
        stage: As the job's journal names it. Of those that write no row a picture there are none.
        count: At most.
    """
    newest = _NEWEST.get(stage)
    said: Said = []
    with contextlib.suppress(FileNotFoundError):  # a part that was replaced between finding and reading it
        said = newest(run, count) if newest is not None else []
    known = [
        {"centroid_id": None, "rank": rank, "similarity": None} | row for rank, (row, _) in enumerate(said)
    ]
    rows = gallery.of_search(pa.Table.from_pylist(known, schema=NEIGHBOURS))
    return [
        row | {"said": "" if row["state"] == BLOCKED else text[:_MOST_SIGNS]}
        for row, (_, text) in zip(rows, said, strict=True)
    ]


def _embedded(folder: str) -> Callable[[Run, int], Said]:
    def newest(run: Run, count: int) -> Said:
        paths = sorted((run.folder / folder / "metadata").glob("metadata_*.parquet"))
        return [(row, row["caption"] or row["key"] or "") for row in _last(paths, METADATA, count)]

    return newest


def _found(run: Run, count: int) -> Said:
    return [
        (row, f"centroid {row['centroid_id']}, rank {row['rank']}, similarity {row['similarity']:.2f}")
        for row in _last(part_paths(run.neighbours), NEIGHBOURS, count)
    ]


def _fetched(run: Run, count: int) -> Said:
    columns = ("id", "status", "image_path", "url", "sha256", "width", "height", "format")
    rows = _last(part_paths(run.images), _narrowed(IMAGES, columns), count, "fetched")
    return [
        (
            {name: row[name] for name in columns if name in NEIGHBOURS.names},
            f"{row['width']} × {row['height']} px, {row['format'] or 'picture'}",
        )
        for row in rows
    ]


def _asked_again(run: Run, count: int) -> Said:
    rows = _last(part_paths(run.links), _narrowed(LINKS, ("id", "url", "status")), count)
    return [
        ({"id": row["id"], "url": row["url"]}, f"{row['status']}: {STATUSES[row['status']]}") for row in rows
    ]


def _scored(run: Run, count: int) -> Said:
    names = {"aesthetic": "aesthetic", "punsafe": "unsafe", "pwatermark": "watermark"}
    return [
        (
            {"id": row["id"], **{name: row[score] for name, score in names.items()}},
            ", ".join(f"{score} {row[score]:.2f}" for score in names.values() if row[score] is not None),
        )
        for row in _last(part_paths(run.scores), _SCORES, count)
    ]


def _captioned(run: Run, count: int) -> Said:
    rows = _last(
        part_paths(run.captions), _narrowed(CAPTIONS, ("id", "status", "caption")), count, "captioned"
    )
    return [({"id": row["id"]}, row["caption"] or "") for row in rows]


def _last(
    paths: Sequence[Path], schema: pa.Schema, count: int, status: str | None = None
) -> list[dict[str, Any]]:
    """The last rows of the newest parts, last first; those of one status where one is named."""
    rows: list[dict[str, Any]] = []
    for path in reversed(paths[-count:]):
        table = read_table(path, schema)
        if status is not None:
            table = table.filter(pc.equal(table.column("status"), status))
        rows += table.slice(max(0, table.num_rows - count + len(rows))).to_pylist()[::-1]
        if len(rows) == count:
            break
    return rows


def _narrowed(schema: pa.Schema, columns: Sequence[str]) -> pa.Schema:
    return pa.schema([schema.field(name) for name in columns])


_NEWEST: dict[str, Callable[[Run, int], Said]] = {
    "embed concepts": _embedded("concepts"),
    "embed pool": _embedded("pool"),
    "retrieve": _found,
    "search": _found,
    "fetch": _fetched,
    "links": _asked_again,
    "score": _scored,
    "caption": _captioned,
}
