"""Runs with drawn pictures that are all selected, to be captioned."""

import hashlib
from pathlib import Path

import numpy as np
import pyarrow as pa

from popfactory.demo_drawing import draw
from popfactory.demo_world import Scene, random_scene
from spine.config import write_config
from spine.ids import content_id
from spine.publish import publish_table
from spine.run import Run, part_path
from spine.settings import CaptionConfig, Config
from spine.stage import Stage
from spine.tables import IMAGES, SELECTION


def copies(folder: Path, scenes: list[Path], n: int) -> list[Path]:
    """n pictures of different bytes: drawn scenes with their number behind the last marker of the JPEG."""
    folder.mkdir(parents=True)
    files = [folder / f"{number:05d}.jpg" for number in range(n)]
    for number, file in enumerate(files):
        file.write_bytes(scenes[number % len(scenes)].read_bytes() + number.to_bytes(4, "big"))
    return files


def drawn(folder: Path, n: int) -> dict[Path, Scene]:
    """Drawn scenes by the file they are saved in."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(20_231_117)
    scenes = {folder / f"{number:05d}.jpg": random_scene(rng) for number in range(n)}
    for file, scene in scenes.items():
        draw(scene, 768, 768).save(file, quality=92)
    return scenes


def make_run(folder: Path, files: list[Path], settings: CaptionConfig) -> Run:
    """A run whose pictures are these files, all selected."""
    run = Run(folder)
    folder.mkdir(parents=True)
    write_config(run.config, Config(caption=settings))
    hashes = [hashlib.sha256(file.read_bytes()).hexdigest() for file in files]
    publish(run, [picture_id(file) for file in files], hashes, [str(file) for file in files])
    return run


def publish(run: Run, ids: list[int], hashes: list[str], places: list[str]) -> None:
    """Write images/ and selection/ as their stages do."""
    n = len(ids)
    stage = Stage.open("images", run.images, {}, {})
    columns = {"id": ids, "status": ["fetched"] * n, "image_path": places, "sha256": hashes}
    publish_table(part_path(run.images, 0), filled(IMAGES, columns, n))
    stage.finish({"fetched": n})
    stage = Stage.open("selection", run.selection, {}, {})
    chosen = {"id": ids, "verdict": ["selected"] * n, "centroid_id": [0] * n, "rank": list(range(n))}
    publish_table(run.selection_table, filled(SELECTION, chosen, n))
    stage.finish({"selected": n})


def filled(schema: pa.Schema, columns: dict[str, list[object]], n: int) -> pa.Table:
    """A table with these columns, the others null."""
    return pa.table({name: columns.get(name, pa.nulls(n)) for name in schema.names}).cast(schema)


def picture_id(file: Path) -> int:
    """The id of a drawn scene's file."""
    return content_id(file.name.encode())
