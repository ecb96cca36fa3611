"""Small runs planted for curation's tests: real tables by the real stage calls, pictures that show their own number."""

import io
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from PIL import Image

from curation.decisions import Decisions, Event
from spine.config import write_config
from spine.ids import content_id, laion_id
from spine.manifest import Manifest, read_manifest
from spine.publish import publish_table, sha256_of
from spine.run import Run, part_path, part_paths
from spine.settings import (
    AestheticMin,
    Config,
    FetchConfig,
    FiltersConfig,
    ListsConfig,
    SelectConfig,
)
from spine.stage import Stage
from spine.table_files import read_parts, read_table
from spine.tables import (
    CAPTIONS,
    GROUPS,
    IMAGES,
    NEIGHBOURS,
    SELECTION,
    centroids_schema,
    list_column,
    scores_schema,
)

D = 8
CONFIG = Config(
    filters=FiltersConfig(min_side_px=16, pwatermark_max=0.8, punsafe_max=None, aesthetic_min=AestheticMin()),
    select=SelectConfig(quota_per_centroid=3),
    fetch=FetchConfig(concurrency=8, workers=2, per_host=8, timeout_s=5),
)


def numbered_picture(number: int, width: int = 32, height: int = 24) -> bytes:
    """A PNG whose 16 stripes are the bits of its number, white for 1."""
    pixels = np.zeros((height, width, 3), dtype=np.uint8)
    for bit in range(16):
        pixels[:, bit * width // 16 : (bit + 1) * width // 16] = 255 * (number >> bit & 1)
    kept = io.BytesIO()
    Image.fromarray(pixels).save(kept, "PNG")
    return kept.getvalue()


def number_in(content: bytes) -> int:
    """The number a picture shows: the reverse of numbered_picture, by plain NumPy."""
    pixels = np.asarray(Image.open(io.BytesIO(content)).convert("L"))
    middle = pixels[pixels.shape[0] // 2]
    return sum((int(middle[int((bit + 0.5) * len(middle) / 16)]) > 127) << bit for bit in range(16))


@dataclass(frozen=True)
class Planted:
    """One row to be in neighbours."""

    centroid: int
    rank: int
    values: dict[str, Any]


def local(folder: Path, number: int, **size: int) -> dict[str, Any]:
    """A picture file of this number, as a pool would know it."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{number}.png"
    path.write_bytes(numbered_picture(number, **size))
    return {
        "id": content_id(path.read_bytes()),
        "image_path": str(path),
        "sha256": sha256_of(path),
        "caption": f"number {number}",
        "key": str(number),
    }


def by_address(url: str, number: int) -> dict[str, Any]:
    """A picture known by its address only."""
    text = f"number {number}"
    return {"id": laion_id(url, text), "url": url, "caption": text, "key": str(number)}


def plant(folder: Path, rows: list[Planted], config: Config = CONFIG) -> Run:
    """A run with settings, centroids and neighbours."""
    run = Run(folder)
    folder.mkdir(parents=True, exist_ok=True)
    write_config(run.config, config)
    centroids = max((row.centroid for row in rows), default=-1) + 1
    _centroids(run, centroids)
    stage = Stage.open(
        "neighbours", run.neighbours, {"k": 100, "rows": len(rows)}, {"seed": str(hash(str(rows)))}
    )
    wanted_by: dict[int, list[tuple[float, int]]] = {}
    table = []
    for row in sorted(rows, key=lambda each: (each.centroid, each.rank)):
        similarity = 0.95 - 0.01 * row.rank
        wanted_by.setdefault(row.values["id"], []).append((-similarity, row.centroid))
        table.append(
            dict.fromkeys(NEIGHBOURS.names)
            | row.values
            | {"centroid_id": row.centroid, "rank": row.rank, "similarity": similarity}
        )
    for entry in table:
        entry["best_centroid"] = min(wanted_by[entry["id"]])[1]
    publish_table(part_path(run.neighbours, 0), pa.Table.from_pylist(table, NEIGHBOURS))
    stage.finish({"neighbours": len(table)}, {"d": D, "demo_models": True})
    return run


def _centroids(run: Run, k: int) -> None:
    stage = Stage.open("centroids", run.centroids, {"k": k}, {})
    vectors = np.eye(max(k, D), D, dtype=np.float32)[:k]
    columns: dict[str, Any] = {
        "centroid_id": pa.array(range(k), pa.int32()),
        "embedding": list_column(vectors, pa.float32()),
        "size": pa.array([5] * k, pa.int64()),
        "label": [f"concept {each}" for each in range(k)],
        "exemplar_ids": pa.array([[each] for each in range(k)], pa.list_(pa.int64())),
        **{name: pa.array([0.5] * k, pa.float32()) for name in ("inertia_share", "map_x", "map_y")},
    }
    publish_table(run.centroids_table, pa.table(columns, schema=centroids_schema(D)))
    stage.finish({"centroids": k, "pictures": 5 * k}, {"d": D})


def score_all(run: Run, groups: dict[int, int] | None = None, **overrides: dict[int, float]) -> Manifest:
    """Scores for every fetched picture, as the stage would leave them; `overrides`: score by id."""
    images = read_parts(run.images, IMAGES, ["id", "status"])
    ids = [row["id"] for row in images.to_pylist() if row["status"] == "fetched"]
    stage = Stage.open(
        "scores", run.scores, {}, {"images": read_manifest(run.images).digest}, grows_with={"images"}
    )
    if stage.published is not None:
        return stage.published
    rows = pa.table(
        {
            "id": pa.array(ids, pa.int64()),
            "embedding": list_column(np.tile(np.eye(1, D), (len(ids), 1)), pa.float16()),
            "aesthetic": pa.array(
                [overrides.get("aesthetic", {}).get(each, 6.0) for each in ids], pa.float32()
            ),
            "aesthetic_model": pa.array(["planted-v1"] * len(ids), pa.string()),
            "unsafe": pa.array([overrides.get("unsafe", {}).get(each, 0.1) for each in ids], pa.float32()),
            "unsafe_model": pa.array(["planted-nsfw"] * len(ids), pa.string()),
            "watermark": pa.array(
                [overrides.get("watermark", {}).get(each, 0.1) for each in ids], pa.float32()
            ),
            "watermark_model": pa.array(["planted-mark"] * len(ids), pa.string()),
            "violence": pa.array([overrides.get("violence", {}).get(each) for each in ids], pa.float32()),
            "violence_model": pa.array(
                ["planted-violence" if each in overrides.get("violence", {}) else None for each in ids],
                pa.string(),
            ),
        },
        schema=scores_schema(D),
    )
    of = {each: (groups or {}).get(each, each) for each in ids}
    size = {group: list(of.values()).count(group) for group in of.values()}
    publish_table(part_path(run.scores, 0), rows)
    publish_table(
        run.groups_table,
        pa.table(
            {
                "id": pa.array(ids, pa.int64()),
                "group": pa.array([of[each] for each in ids], pa.int64()),
                "group_size": pa.array([size[of[each]] for each in ids], pa.int32()),
            },
            schema=GROUPS,
        ),
    )
    return stage.finish({"pictures": len(ids), "scored": len(ids)}, {"d": D, "demo_models": True})


def caption_all(
    run: Run, failed: dict[int, str] | None = None, text: str = "a picture of number {key}"
) -> Manifest:
    """Captions for every selected picture, as the stage would leave them; `failed`: reason by id."""
    selection = read_table(run.selection_table, SELECTION)
    found = [run.found_table] if run.found_table.is_file() else []
    named = [read_table(path, NEIGHBOURS) for path in (*part_paths(run.neighbours), *found)]
    keys = {row["id"]: row["key"] for table in named for row in table.to_pylist()}
    chosen = sorted({row["id"] for row in selection.to_pylist() if row["verdict"] == "selected"})
    stage = Stage.open("captions", run.captions, {}, {"selection": read_manifest(run.selection).digest})
    rows = []
    for number in chosen:
        reason = (failed or {}).get(number)
        caption = text.format(key=keys[number])
        rows.append(
            dict.fromkeys(CAPTIONS.names)
            | {
                "caption_id": f"{number % 2**64:032x}",
                "id": number,
                "status": "failed" if reason else "captioned",
                "reason": reason,
                "caption": None if reason else caption,
                "raw_caption": None if reason else f"This image showcases {caption}",
                "prefix_found": None if reason else True,
                "finish_reason": None if reason else "stop",
                "prompt_id": "laion-pop",
                "engine": "embedded",
                "model": "planted-llava",
                "family": "llava",
                "attempts": 1,
            }
        )
    publish_table(part_path(run.captions, 0), pa.Table.from_pylist(rows, CAPTIONS))
    lost = len(failed or {})
    return stage.finish(
        {"selected": len(rows), "captioned": len(rows) - lost, "failed": lost}, {"demo_models": True}
    )


def edit_caption(run: Run, name: str, text: str) -> None:
    """Ada writes a caption of her own over the one of this id."""
    event = Event(client="t", seq=1, curator="ada", action="keep", target="caption", ids=(name,), text=text)
    Decisions.open(run.decisions).record([event])


def with_lists(run: Run, config: Config, *, takedown: str = "", hash_block: str = "") -> None:
    """Give the run lists with these lines."""
    (run.folder / "takedown.txt").write_text(takedown)
    (run.folder / "hashes.txt").write_text(hash_block)
    lists = ListsConfig(takedown=("takedown.txt",), hash_block=("hashes.txt",))
    write_config(run.config, replace(config, lists=lists))
