"""A run of many candidates, planted as tables alone: neighbours, fetched pictures, scores, no pictures."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from spine.config import write_config
from spine.lists import BlockLists
from spine.manifest import read_manifest
from spine.publish import publish_json, publish_table
from spine.run import Run, part_path
from spine.settings import Config, ListsConfig
from spine.stage import Stage
from spine.tables import GROUPS, IMAGES, NEIGHBOURS, centroids_schema, list_column, scores_schema

DEPTH = 100
"""Neighbours of a centroid."""

LISTED = 10_000
"""PDQ hashes on its lists; of addresses' hashes, content hashes and domains a tenth each."""

_D = 8
_PARTS = 10


@dataclass(frozen=True, slots=True)
class PlantedLedger:
    """What was planted."""

    run: Run
    pictures: int
    """Different ones, half of them gone."""
    some_ids: list[int]
    alive: Any
    """Ids of those that are not gone, an array."""


def plant_ledger(folder: Path, candidates: int) -> PlantedLedger:
    """Plant a run with finished neighbours, images and scores.

    Args:
        folder: The run's.
        candidates: Rows of neighbours, a multiple of 1,000; about every third picture is wanted twice.
    """
    run, config, chance = Run(folder), Config(), np.random.default_rng(0)
    folder.mkdir(parents=True)
    write_config(run.config, config)
    drawn = np.sort(chance.integers(0, candidates * 7 // 10, candidates).reshape(-1, DEPTH), axis=1).reshape(
        -1
    )
    pictures = drawn.astype(np.int64) * 2654435761 + 12345
    _neighbours(run, pictures, chance)
    ids = np.unique(pictures)
    alive = chance.random(len(ids)) < 0.5
    _images(run, config, ids, alive, candidates // DEPTH)
    plant_scores(run, ids[alive], chance)
    return PlantedLedger(run, len(ids), ids[:: len(ids) // 9].tolist(), ids[alive])


def plant_lists(run: Run) -> None:
    """Give the run lists that name none of its pictures, so that each is held against all of them."""
    chance = np.random.default_rng(2)
    domains = [f"listed{number}.example" for number in range(LISTED // 10)]
    (run.folder / "takedown.txt").write_text("\n".join(domains))
    kinds = ("pdq", LISTED), ("sha256", LISTED // 10), ("url", LISTED // 10)
    hashes = [f"{kind}:{digits}" for kind, count in kinds for digits in _random_hashes(count, chance)]
    (run.folder / "hashes.txt").write_text("\n".join(hashes))
    write_config(
        run.config, Config(lists=ListsConfig(takedown=("takedown.txt",), hash_block=("hashes.txt",)))
    )


def _random_hashes(count: int, chance: np.random.Generator) -> list[str]:
    digits = chance.bytes(32 * count).hex()
    return [digits[start : start + 64] for start in range(0, len(digits), 64)]


def _publish(folder: Path, schema: pa.Schema, known: dict[str, Any], rows: int, parts: int) -> None:
    columns = [known[field.name] if field.name in known else pa.nulls(rows, field.type) for field in schema]
    arrays = [
        each if isinstance(each, pa.Array) else pa.array(each, field.type)
        for each, field in zip(columns, schema, strict=True)
    ]
    table = pa.Table.from_arrays(arrays, schema=schema)
    edges = np.linspace(0, rows, parts + 1).astype(int).tolist()
    for number in range(parts):
        publish_table(
            part_path(folder, number), table.slice(edges[number], edges[number + 1] - edges[number])
        )


def _neighbours(run: Run, pictures: Any, chance: np.random.Generator) -> None:
    rows = len(pictures)
    k = rows // DEPTH
    centroids = Stage.open("centroids", run.centroids, {}, {})
    schema = centroids_schema(_D)
    known = {
        "centroid_id": np.arange(k),
        "embedding": list_column(np.ones((k, _D), np.float32), pa.float32()),
    }
    arrays = [
        known[field.name]
        if isinstance(known.get(field.name), pa.Array)
        else pa.array(known[field.name], field.type)
        if field.name in known
        else pa.nulls(k, field.type)
        for field in schema
    ]
    publish_table(run.centroids_table, pa.Table.from_arrays(arrays, schema=schema))
    centroids.finish({"centroids": k}, {"d": _D})
    stage = Stage.open("neighbours", run.neighbours, {}, {})
    rank = np.tile(np.arange(DEPTH), k)
    columns = {
        "centroid_id": np.repeat(np.arange(k), DEPTH),
        "rank": rank,
        "id": pictures,
        "similarity": (0.9 - 0.001 * rank).astype(np.float32),
        "best_centroid": np.repeat(np.arange(k), DEPTH),
        "url": [_url(number) for number in pictures.tolist()],
        "pwatermark": chance.random(rows).astype(np.float32),
        "width": chance.integers(500, 2000, rows),
        "height": chance.integers(500, 2000, rows),
    }
    _publish(run.neighbours, NEIGHBOURS, columns, rows, _PARTS)
    stage.finish({"neighbours": rows}, {"d": _D})


def _images(run: Run, config: Config, ids: Any, alive: Any, k: int) -> None:
    neighbours = read_manifest(run.neighbours).digest
    settings = config.fetch
    stage = Stage.open(
        "images",
        run.images,
        {
            "depths": [DEPTH] * k,
            "kept": [],
            "max_side_px": settings.max_side_px,
            "max_bytes": settings.max_bytes,
            "honour_opt_out": settings.honour_opt_out,
            "placeholder_repeats": settings.placeholder_repeats,
        },
        {"neighbours": neighbours, "lists": BlockLists.load(config.lists, run.folder).digest},
        grows_with={"depths", "kept", "neighbours", "lists", "honour_opt_out", "placeholder_repeats"},
    )
    publish_json(run.depths, {"neighbours": neighbours, "depths": [DEPTH] * k})
    hashes = [
        f"{number % 2**64:064x}" if live else None for number, live in zip(ids.tolist(), alive, strict=True)
    ]
    dead, looks = ~alive, _random_hashes(len(ids), np.random.default_rng(1))
    columns = {
        "id": ids,
        "status": np.where(dead, "failed", "fetched"),
        "reason": pa.array(np.full(len(ids), "gone"), pa.string(), mask=alive),
        "url": [_url(number) for number in ids.tolist()],
        "sha256": hashes,
        "md5": [text and text[:32] for text in hashes],
        "pdq": [" ".join([look] * 8) if live else None for look, live in zip(looks, alive, strict=True)],
        "width": np.full(len(ids), 1024),
        "height": np.full(len(ids), 1024),
        "size_bytes": np.full(len(ids), 100_000),
        "attempts": np.ones(len(ids), int),
        # As local files: their rows need no stored picture behind them.
        "opt_out": pa.nulls(len(ids), pa.string()),
    }
    _publish(run.images, IMAGES, columns, len(ids), _PARTS)
    stage.finish({"candidates": len(ids)}, named_by_hash=[run.originals.name])


def plant_scores(run: Run, ids: Any, chance: np.random.Generator, *, duplicates: float = 0.1) -> None:
    """Scores of fetched pictures; of a share of them another stands for it."""
    stage = Stage.open("scores", run.scores, {}, {"images": read_manifest(run.images).digest})
    rows = len(ids)
    columns = {
        "id": ids,
        "embedding": list_column(np.ones((rows, _D), np.float32), pa.float16()),
        "watermark": chance.random(rows).astype(np.float32),
        "watermark_model": np.full(rows, "planted"),
    }
    _publish(run.scores, scores_schema(_D), columns, rows, 1)
    groups = np.where(chance.random(rows) < duplicates, ids[chance.integers(0, rows, rows)], ids)
    table = pa.Table.from_arrays(
        [pa.array(ids), pa.array(groups), pa.array(np.ones(rows), pa.int32())], schema=GROUPS
    )
    publish_table(run.groups_table, table)
    stage.finish({"scored": rows}, {"d": _D})


def _url(number: int) -> str:
    return f"http://host{number % 1000}.example/{number}.jpg"
