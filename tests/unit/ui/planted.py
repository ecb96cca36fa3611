"""A small run with planted pictures, scores, failures and verdicts, written through the spine's own tables.

Picture number p is a plain colour that encodes p, so that a tile can be traced to its row.
"""

import hashlib
import io
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
from PIL import Image

from spine.config import Config, with_demo_models, write_config
from spine.ids import content_id
from spine.lists import BlockLists
from spine.manifest import read_manifest
from spine.publish import publish_table
from spine.run import Run, part_path
from spine.settings import FiltersConfig, ListsConfig
from spine.shards import write_shard
from spine.stage import Stage
from spine.table_files import read_table
from spine.tables import (
    GROUPS,
    IMAGES,
    METADATA,
    NEIGHBOURS,
    SELECTION,
    centroids_schema,
    list_column,
    scores_schema,
)

D = 4
CENTROIDS = 3
EACH = 30
DEPTH = EACH - 2
HOSTILE = (
    "<script>window.ran=1</script><img src=x onerror='window.ran=2'>${window.ran=3}{{window.ran=4}}\u202e"
)
SHOWN = HOSTILE.replace("\u202e", "")
"""As pages show it: without the sign that would turn what they write behind it."""
LIMITS = FiltersConfig(min_side_px=64, pwatermark_max=0.8, punsafe_max=None)


@dataclass(frozen=True)
class Planted:
    """What was planted: number p's id, hash and place."""

    run: Run
    ids: list[int]
    hashes: list[str]


def picture_bytes(number: int) -> bytes:
    """A picture whose colour encodes its number; every fifth one is smaller than 64 px."""
    width, height = (48, 60) if number % 5 == 4 else (96, 80)
    image = Image.new("RGB", (width, height), (number % 256, 40 + number // 2 % 200, 255 - number % 256))
    image.paste((255, 255, 255), (8, 8, 20, 20))
    kept = io.BytesIO()
    image.save(kept, "PNG")
    return kept.getvalue()


def pdq_of(number: int) -> str:
    """A hash to be looked up by: the picture itself is too flat for one."""
    return hashlib.sha256(str(number).encode()).hexdigest()


def unsafe_of(number: int) -> float | None:
    """Every seventh picture is unsafe, every eleventh without a score, the others safe."""
    if number % 7 == 3:
        return 0.9
    return None if number % 11 == 5 else 0.05


def violence_of(number: int) -> float | None:
    """From -0.4 to 0.3 in steps; every eighth is without a score."""
    return None if number % 8 == 6 else 0.1 * (number % 8 - 4)


def plant(folder: Path, *, config: Config | None = None, text: str = "a plain colour") -> Planted:
    """Write the run. Each centroid has EACH neighbours: pictures EACH * c and on."""
    run = Run(folder)
    folder.mkdir(parents=True)
    write_config(run.config, config or with_demo_models(replace(Config(), filters=LIMITS)))
    count = CENTROIDS * EACH
    pictures = folder / "pictures"
    pictures.mkdir()
    ids, hashes, metadata = [], [], []
    for number in range(count):
        content = picture_bytes(number)
        path = pictures / f"{number:04d}.png"
        path.write_bytes(content)
        with Image.open(path) as image:
            width, height = image.size
        ids.append(content_id(content))
        hashes.append(hashlib.sha256(content).hexdigest())
        metadata.append(
            {"id": ids[-1], "image_path": str(path), "caption": f"{text} {number}", "key": path.name}
            | {"width": width, "height": height, "sha256": hashes[-1]}
        )
    _plant_concepts(run, metadata[:6])
    _plant_centroids(run, ids)
    _plant_neighbours(run, metadata)
    _plant_images(run, metadata)
    _plant_scores(run, ids)
    _plant_selection(run, ids)
    return Planted(run, ids, hashes)


def state_of(number: int) -> str:
    """Of a centroid's neighbours the last two were never asked for, and the three before could not be had."""
    rank = number % EACH
    return "ready" if rank < EACH - 5 else "gone" if rank < DEPTH else "pending"


def _plant_concepts(run: Run, metadata: list[dict]) -> None:
    stage = Stage.open("concepts", run.concepts, {}, {})
    rows = pa.Table.from_pylist(metadata, schema=METADATA)
    write_shard(run.concepts, 0, np.eye(D, dtype=np.float32)[np.arange(len(metadata)) % D], rows)
    stage.finish({"embedded": len(metadata)}, {"d": D, "demo_models": True})


def _plant_centroids(run: Run, ids: list[int]) -> None:
    stage = Stage.open("centroids", run.centroids, {}, {})
    schema = centroids_schema(D)
    columns = {
        "centroid_id": range(CENTROIDS),
        "size": [2] * CENTROIDS,
        "label": ["red squares", HOSTILE, "x" * 10_000],
        "exemplar_ids": [ids[2 * number : 2 * number + 2] for number in range(CENTROIDS)],
        "inertia_share": [0.1] * CENTROIDS,
        "map_x": [0.5] * CENTROIDS,
        "map_y": [0.5] * CENTROIDS,
    }
    arrays = {name: pa.array(list(values), schema.field(name).type) for name, values in columns.items()}
    arrays["embedding"] = list_column(np.eye(D, dtype=np.float32)[:CENTROIDS], pa.float32())
    publish_table(run.centroids_table, pa.table({name: arrays[name] for name in schema.names}, schema=schema))
    stage.finish({"centroids": CENTROIDS}, {"d": D, "demo_models": True})


def _plant_neighbours(run: Run, metadata: list[dict]) -> None:
    stage = Stage.open("neighbours", run.neighbours, {}, {})
    rows = [
        row
        | {"centroid_id": number // EACH, "rank": number % EACH, "similarity": 0.9 - 0.01 * (number % EACH)}
        | {"best_centroid": number // EACH, "caption": HOSTILE if number == 1 else row["caption"]}
        for number, row in enumerate(metadata)
    ]
    publish_table(part_path(run.neighbours, 0), pa.Table.from_pylist(rows[:EACH], schema=NEIGHBOURS))
    publish_table(part_path(run.neighbours, 1), pa.Table.from_pylist(rows[EACH:], schema=NEIGHBOURS))
    stage.finish({"neighbours": len(rows)}, {"d": D})


def _plant_images(run: Run, metadata: list[dict]) -> None:
    lists = BlockLists.load(ListsConfig(), run.folder)
    inputs = {"neighbours": read_manifest(run.neighbours).digest, "lists": lists.digest}
    stage = Stage.open("images", run.images, {"depths": [DEPTH] * CENTROIDS}, inputs)
    rows = []
    for number, row in enumerate(metadata):
        if state_of(number) == "ready":
            picked = {name: row[name] for name in ("id", "image_path", "sha256", "width", "height")}
            md5 = hashlib.md5(Path(row["image_path"]).read_bytes()).hexdigest()
            hashes = {"md5": md5, "pdq": pdq_of(number)}
            size = {"size_bytes": Path(row["image_path"]).stat().st_size}
            rows.append(picked | hashes | size | {"status": "fetched", "format": "PNG", "attempts": 1})
        elif state_of(number) == "gone":
            gone = {"status": "failed", "reason": "not_found", "message": "404"}
            rows.append({"id": row["id"], "attempts": 3} | gone)
    publish_table(part_path(run.images, 0), pa.Table.from_pylist(rows, schema=IMAGES))
    stage.finish({"images": len(rows)})


def pass_over(planted: Planted, numbers: list[int], rule: str) -> None:
    """Make it so that fetch never asked for these pictures, for what the pool says of them."""
    path = part_path(planted.run.images, 0)
    passed = {planted.ids[number] for number in numbers}
    rows = [row for row in read_table(path, IMAGES).to_pylist() if row["id"] not in passed]
    said = {"status": "rejected", "reason": rule, "message": "the pool says 300", "attempts": 0}
    rows += [{"id": picture} | said for picture in sorted(passed)]
    publish_table(path, pa.Table.from_pylist(rows, schema=IMAGES))


def _plant_scores(run: Run, ids: list[int]) -> None:
    stage = Stage.open("scores", run.scores, {}, {"images": read_manifest(run.images).digest})
    numbers = [number for number in range(len(ids)) if state_of(number) == "ready"]
    schema = scores_schema(D)
    rows = [
        {"id": ids[number], "embedding": [1.0, 0.0, 0.0, 0.0], "aesthetic": 3.0 + 0.05 * (number % EACH)}
        | {"aesthetic_model": "demo", "unsafe": unsafe_of(number), "unsafe_model": "demo"}
        | {"watermark": 0.95 if number % 6 == 2 else 0.1, "watermark_model": "demo"}
        | {"violence": violence_of(number), "violence_model": "demo"}
        for number in numbers
    ]
    publish_table(part_path(run.scores, 0), pa.Table.from_pylist(rows, schema=schema))
    groups = [
        {
            "id": ids[number],
            "group": ids[1] if number == 2 else ids[number],
            "group_size": 2 if number in (1, 2) else 1,
        }
        for number in numbers
    ]
    publish_table(run.groups_table, pa.Table.from_pylist(groups, schema=GROUPS))
    stage.finish({"scored": len(rows)})


def _plant_selection(run: Run, ids: list[int]) -> None:
    stage = Stage.open("selection", run.selection, {}, {})
    rows = []
    for number, picture in enumerate(ids):
        if state_of(number) == "pending":
            continue
        rule = "selected"
        if state_of(number) == "gone":
            rule = "unfetched"
        elif number % 5 == 4:
            rule = "min_side_px"
        elif number % 6 == 2:
            rule = "pwatermark_max"
        verdict = "selected" if rule == "selected" else "rejected"
        rows.append(
            {"centroid_id": number // EACH, "rank": number % EACH, "id": picture}
            | {"similarity": 0.9 - 0.01 * (number % EACH), "verdict": verdict, "rule": rule, "detail": ""}
        )
    publish_table(run.selection_table, pa.Table.from_pylist(rows, schema=SELECTION))
    rules = Counter(str(row["rule"]) for row in rows)
    chosen = rules.pop("selected")
    lost = {f"rejected_{rule}": count for rule, count in rules.items()}
    counts = {"candidates": len(rows), "selected": chosen, "pictures": len(rows), "pictures_selected": chosen}
    stage.finish(counts | lost)
