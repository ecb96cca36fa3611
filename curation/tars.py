"""The released pictures themselves: WebDataset tars, the same bytes each time.

A row is three members of one name: its picture as it is kept, its caption as .txt, its row as .json.
Time, owner and rights of every member are the same, so that equal rows give equal tars.

Source: webdataset/webdataset, "The WebDataset Format".
"""

import hashlib
import json
import math
import tarfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from curation.opening import SUFFIXES
from spine.errors import ImageError
from spine.images import open_header
from spine.progress import Progress
from spine.publish import publishing
from spine.sources import read_bytes
from spine.tar_members import add_member, key_of

FOLDER = "webdataset"
"""Of the tars, in a release."""

TAR_ROWS = 1_000
"""Rows in one tar."""


BUCKETS = ((1, 2), (9, 16), (2, 3), (3, 4), (4, 5), (1, 1), (5, 4), (4, 3), (3, 2), (16, 9), (2, 1))
"""Shapes that pictures are sorted by, width to height."""


def bucket_of(width: int, height: int) -> str:
    """The bucket nearest in shape, such as "3x2": by the ratio of the ratios, so that 2:1 and 1:2 are alike far off."""
    wide, high = min(BUCKETS, key=lambda each: abs(math.log(width * each[1] / (height * each[0]))))
    return f"{wide}x{high}"


def write_tars(
    folder: Path, table: pa.Table, progress: Progress, *, aspect_buckets: bool = False
) -> dict[str, int]:
    """Write the tars of a release, each published whole.

    A picture that is no longer what was measured isn't put in: its row stays in dataset.parquet. One that two
    concepts have stands in two rows there, and is put in once, with the first.

    Args:
        folder: The release's.
        table: The dataset.
        progress: Told of rows written.
        aspect_buckets: Sort them by shape, each tar of one.

    Returns:
        pixels: pictures put in; pixels_missing_REASON: those that were not.
    """
    counts: Counter[str] = Counter({"pixels": 0})
    _, first = np.unique(table.column("id").to_numpy(), return_index=True)
    for name, rows in _tars_of(table.take(pa.array(np.sort(first))), aspect_buckets):
        with publishing(folder / FOLDER / f"{name}.tar") as temporary:
            counts += _write_tar(temporary, rows.to_pylist())
        progress.advance(rows.num_rows)
    return dict(sorted(counts.items()))


def _tars_of(table: pa.Table, aspect_buckets: bool) -> Iterator[tuple[str, pa.Table]]:
    """Name and rows of each tar."""
    shapes: dict[str, list[int]] = {}
    if aspect_buckets:
        sizes = zip(table.column("width").to_pylist(), table.column("height").to_pylist(), strict=True)
        for row, (width, height) in enumerate(sizes):
            shapes.setdefault(f"{bucket_of(width, height)}-", []).append(row)
    else:
        shapes[""] = list(range(table.num_rows))
    for shape, rows in sorted(shapes.items()):
        for number, start in enumerate(range(0, len(rows), TAR_ROWS)):
            yield f"{shape}{number:05d}", table.take(pa.array(rows[start : start + TAR_ROWS], pa.int64()))


def _write_tar(path: Path, rows: list[dict[str, Any]]) -> Counter[str]:
    counts: Counter[str] = Counter()
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as tar:
        for row in rows:
            try:
                content = read_bytes(row["image_path"])
                if hashlib.sha256(content).hexdigest() != row["sha256"]:
                    raise ImageError("changed", "not the bytes that were measured")
                suffix = SUFFIXES[open_header(content)[2]]
            except ImageError as error:
                counts[f"pixels_missing_{error.reason}"] += 1
                continue
            key = key_of(row["id"])
            told = {name: value for name, value in row.items() if name != "image_path"}
            add_member(tar, f"{key}{suffix}", content)
            add_member(tar, f"{key}.txt", row["caption"].encode())
            add_member(tar, f"{key}.json", json.dumps(told, sort_keys=True, ensure_ascii=False).encode())
            counts["pixels"] += 1
    return counts
