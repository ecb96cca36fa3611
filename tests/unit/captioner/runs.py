"""Writes the folders that a captioning run reads."""

import hashlib
from pathlib import Path

import numpy as np
import pyarrow as pa
from PIL import Image

from spine.ids import content_id
from spine.publish import publish_table
from spine.run import Run, part_path
from spine.stage import Stage
from spine.tables import IMAGES, SELECTION


def noise(seed: int, width: int = 40, height: int = 30) -> Image.Image:
    """A picture like no other."""
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def publish_images(run: Run, files: list[Path]) -> None:
    """Write images/ as fetch does for local files."""
    stage = Stage.open("images", run.images, {}, {"files": str(len(files))}, force=True)
    rows = [
        dict.fromkeys(IMAGES.names)
        | {
            "id": picture_id(file),
            "status": "fetched",
            "image_path": str(file),
            "sha256": hashlib.sha256(file.read_bytes()).hexdigest(),
        }
        for file in files
    ]
    publish_table(part_path(run.images, 0), pa.Table.from_pylist(rows, IMAGES))
    stage.finish({"fetched": len(rows)})


def publish_selection(run: Run, files: list[Path], not_selected: int = 0) -> None:
    """Write selection/ with all but the last `not_selected` files selected."""
    stage = Stage.open("selection", run.selection, {}, {"images": str(len(files))}, force=True)
    rows = [
        {
            "centroid_id": 0,
            "rank": rank,
            "id": picture_id(file),
            "similarity": 0.5,
            "verdict": "selected" if rank < len(files) - not_selected else "rejected",
            "rule": "quota",
            "detail": None,
        }
        for rank, file in enumerate(files)
    ]
    publish_table(run.selection_table, pa.Table.from_pylist(rows, SELECTION))
    stage.finish({"selected": len(rows) - not_selected})


def picture_id(file: Path) -> int:
    """An id that files of one content don't share, as pictures from several addresses don't."""
    return content_id(file.name.encode())
