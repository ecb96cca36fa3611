"""The released pictures themselves: WebDataset tars, the same bytes each time.

A row is three members of one name: its picture as it is kept, its caption as .txt, its row as .json.
Time, owner and rights of every member are the same, so that equal rows give equal tars.

Source: webdataset/webdataset, "The WebDataset Format".
"""

import hashlib
import json
import tarfile
from collections import Counter
from pathlib import Path
from typing import Any

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


def write_tars(folder: Path, table: pa.Table, progress: Progress) -> dict[str, int]:
    """Write the tars of a release, each published whole.

    A picture that is no longer what was measured isn't put in: its row stays in dataset.parquet.

    Args:
        folder: The release's.
        table: The dataset.
        progress: Told of rows written.

    Returns:
        pixels: pictures put in; pixels_missing_REASON: those that were not.
    """
    counts: Counter[str] = Counter({"pixels": 0})
    for number, start in enumerate(range(0, table.num_rows, TAR_ROWS)):
        rows = table.slice(start, TAR_ROWS).to_pylist()
        with publishing(folder / FOLDER / f"{number:05d}.tar") as temporary:
            counts += _write_tar(temporary, rows)
        progress.advance(len(rows))
    return dict(sorted(counts.items()))


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
