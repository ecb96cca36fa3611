"""A finished run of any size whose tables are made up and whose pictures are a thousand small drawings."""

import hashlib
import io
from pathlib import Path

import numpy as np
import pyarrow as pa
from PIL import Image

from spine.config import with_demo_models, write_config
from spine.publish import publish_table
from spine.run import Run, part_path
from spine.settings import Config
from spine.shards import write_shard
from spine.stage import Stage
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

DRAWN = 1_000
SIDE_PX = 224
D = 8
_PART_ROWS = 100_000
_WORDS = [
    "red",
    "blue",
    "small",
    "large",
    "dotted",
    "striped",
    "plain",
    "cloudy",
    "bright",
    "round",
    "old",
    "new",
]


def plant_run(folder: Path, centroids: int, each: int, *, deep: int = 0, seed: int = 0) -> Run:
    """Write a run up to its selection.

    Args:
        folder: Where; not there yet.
        centroids: How many.
        each: Neighbours of each.
        deep: Neighbours of centroid 0; 0 for `each`.
        seed: Same seed, same run.
    """
    random = np.random.default_rng(seed)
    run = Run(folder)
    folder.mkdir(parents=True)
    write_config(run.config, with_demo_models(Config()))
    pictures = _draw(folder / "pictures", random)
    counts = np.full(centroids, each)
    counts[0] = deep or each
    _plant_concepts(run, pictures)
    _plant_centroids(run, centroids, random)
    _plant_found(run, counts, pictures, random)
    return run


def _draw(folder: Path, random: np.random.Generator) -> pa.Table:
    folder.mkdir()
    paths, hashes = [], []
    for number in range(DRAWN):
        coarse = random.integers(0, 256, (7, 7, 3), dtype=np.uint8)
        kept = io.BytesIO()
        Image.fromarray(coarse).resize((SIDE_PX, SIDE_PX), Image.Resampling.BICUBIC).save(
            kept, "WEBP", quality=75
        )
        path = folder / f"{number:04d}.webp"
        path.write_bytes(kept.getvalue())
        paths.append(str(path))
        hashes.append(hashlib.sha256(kept.getvalue()).hexdigest())
    return pa.table({"image_path": paths, "sha256": hashes})


def _plant_concepts(run: Run, pictures: pa.Table) -> None:
    stage = Stage.open("concepts", run.concepts, {}, {})
    rows = [
        row | {"id": -1 - number, "key": str(number), "width": SIDE_PX, "height": SIDE_PX}
        for number, row in enumerate(pictures.to_pylist())
    ]
    write_shard(
        run.concepts, 0, _units(np.random.default_rng(1), DRAWN), pa.Table.from_pylist(rows, schema=METADATA)
    )
    stage.finish({"embedded": DRAWN}, {"d": D, "demo_models": True})


def _plant_centroids(run: Run, count: int, random: np.random.Generator) -> None:
    stage = Stage.open("centroids", run.centroids, {}, {})
    schema = centroids_schema(D)
    words = random.choice(_WORDS, (count, 3))
    columns = {
        "centroid_id": np.arange(count),
        "size": random.integers(5, 200, count),
        "label": [" ".join(row) for row in words],
        "exemplar_ids": [[-1 - number % DRAWN] for number in range(count)],
        "inertia_share": np.full(count, 1 / count),
        "map_x": random.random(count),
        "map_y": random.random(count),
    }
    arrays = {name: pa.array(values, schema.field(name).type) for name, values in columns.items()}
    arrays["embedding"] = list_column(_units(random, count), pa.float32())
    publish_table(run.centroids_table, pa.table([arrays[name] for name in schema.names], schema=schema))
    stage.finish({"centroids": count}, {"d": D, "demo_models": True})


def _plant_found(run: Run, counts: np.ndarray, pictures: pa.Table, random: np.random.Generator) -> None:
    stages = {
        name: Stage.open(
            name, getattr(run, name), {"depths": counts.tolist()} if name == "images" else {}, {}
        )
        for name in ("neighbours", "images", "scores", "selection")
    }
    centroid = np.repeat(np.arange(len(counts)), counts)
    starts = np.concatenate([[0], np.cumsum(counts)[:-1]])
    rank = np.arange(len(centroid)) - starts[centroid]
    groups, chosen = [], []
    for number, first in enumerate(range(0, len(centroid), _PART_ROWS)):
        rows = slice(first, min(first + _PART_ROWS, len(centroid)))
        n = rows.stop - rows.start
        ids = np.arange(rows.start, rows.stop)
        drawn = pictures.take(pa.array(random.integers(0, DRAWN, n)))
        texts = pa.array([f"text of picture {each}" for each in ids])
        sizes = random.integers(300, 1600, (2, n))
        found = {
            "centroid_id": centroid[rows], "rank": rank[rows], "id": ids, "best_centroid": centroid[rows],
            "similarity": 0.9 - 0.002 * rank[rows], "caption": texts, "key": texts,
            "width": sizes[0], "height": sizes[1],
            "sha256": drawn.column("sha256"), "image_path": drawn.column("image_path"),
        }  # fmt: skip
        publish_table(part_path(run.neighbours, number), _table(NEIGHBOURS, found, n))
        images = {name: found[name] for name in ("id", "image_path", "sha256", "width", "height")}
        images |= {
            "status": ["fetched"] * n,
            "format": ["WEBP"] * n,
            "attempts": np.ones(n),
            "size_bytes": np.full(n, 5_000),
        }
        publish_table(part_path(run.images, number), _table(IMAGES, images, n))
        scores = {
            "id": ids, "embedding": list_column(_units(random, n), pa.float16()),
            "aesthetic": random.normal(5, 1, n), "aesthetic_model": ["planted"] * n,
            "unsafe": random.random(n) * 0.3, "unsafe_model": ["planted"] * n,
            "watermark": random.random(n), "watermark_model": ["planted"] * n,
        }  # fmt: skip
        publish_table(part_path(run.scores, number), _table(scores_schema(D), scores, n))
        groups.append(_table(GROUPS, {"id": ids, "group": ids, "group_size": np.ones(n)}, n))
        in_quota = rank[rows] < 60
        verdicts = {
            "centroid_id": centroid[rows], "rank": rank[rows], "id": ids, "similarity": found["similarity"],
            "verdict": np.where(in_quota, "selected", "rejected"), "rule": np.where(in_quota, "selected", "quota"),
            "detail": [""] * n,
        }  # fmt: skip
        chosen.append(_table(SELECTION, verdicts, n))
    publish_table(run.groups_table, pa.concat_tables(groups))
    publish_table(run.selection_table, pa.concat_tables(chosen))
    for name, stage in stages.items():
        stage.finish({name: len(centroid)}, {"d": D} if name == "scores" else {})


def _table(schema: pa.Schema, columns: dict[str, object], n: int) -> pa.Table:
    arrays = []
    for field in schema:
        values = columns.get(field.name)
        if isinstance(values, pa.ChunkedArray):
            values = values.combine_chunks()
        if values is None:
            arrays.append(pa.nulls(n, field.type))
        elif isinstance(values, pa.Array) and values.type == field.type:
            arrays.append(values)
        else:
            arrays.append(pa.array(values).cast(field.type))
    return pa.table(arrays, schema=schema)


def _units(random: np.random.Generator, n: int) -> np.ndarray:
    vectors = random.standard_normal((n, D)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
