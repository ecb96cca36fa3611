"""The stage that finds the concepts: k-means over the embedded concept pictures."""

from dataclasses import asdict
from pathlib import PurePath
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from index_builder.kmeans import Labels, assign, fit_centroids
from index_builder.labels import cluster_labels
from index_builder.unit_vectors import unit_rows
from spine.config import load_config
from spine.errors import DataError
from spine.progress import SILENT, Progress
from spine.publish import publish_json, publish_table
from spine.run import Run
from spine.shards import read_shards
from spine.stage import Manifest, Stage, read_manifest
from spine.tables import METADATA, Vectors, centroids_schema, list_column

EXEMPLARS = 9
"""Concept pictures listed for a centroid at most."""

_LABELLED_BY = 200  # of a centroid's nearest pictures, those whose captions make its label
_READ = pa.schema([METADATA.field(name) for name in ("id", "caption", "key", "image_path")])


def centroids(run: Run, *, force: bool = False, progress: Progress = SILENT) -> Manifest:
    """Cluster the concept pictures into centroids.

    Reads concepts/, writes centroids/: centroids.parquet, the largest cluster first, and report.json.
    Holds all embeddings in memory, 8·n·d bytes. Where there are fewer pictures than [centroids] k, or
    fewer that differ, k is lowered, and said.

    Args:
        run: Its [centroids] settings count.
        force: Start over.
        progress: Told of each iteration.

    Raises:
        ConfigError: A setting is wrong.
        DataError: concepts/ isn't finished, or holds no usable picture.
    """
    config = load_config(run.config).centroids
    source = read_manifest(run.concepts)
    stage = Stage.open("centroids", run.centroids, asdict(config), {"concepts": source.digest}, force=force)
    if stage.published is not None:
        return stage.published
    embeddings, rows = _concepts(run)
    progress.begin("centroids", config.iterations, "iterations")
    found = fit_centroids(
        embeddings,
        min(config.k, len(embeddings)),
        iterations=config.iterations,
        seed=config.seed,
        spherical=config.spherical,
        progress=progress,
    )
    if len(found) < config.k:
        differ = "" if len(found) == len(embeddings) else " that differ"
        progress.say(f"k lowered from {config.k:,} to {len(found):,}: there are no more pictures{differ}")
    table, report = _described(embeddings, rows, found)
    publish_table(run.centroids_table, table)
    publish_json(
        run.centroids / "report.json", report | {"k_asked": config.k, "iterations": config.iterations}
    )
    manifest = stage.finish(
        {"pictures": len(embeddings), "centroids": len(found)},
        {
            "k": len(found),
            "d": embeddings.shape[1],
            "model": source.facts.get("model"),
            "demo_models": bool(source.facts.get("demo_models", False)),
        },
    )
    progress.end()
    return manifest


def _concepts(run: Run) -> tuple[Vectors, pa.Table]:
    pairs = [(unit_rows(vectors), rows) for vectors, rows in read_shards(run.concepts, _READ) if len(vectors)]
    if not pairs:
        raise DataError(
            f"{run.concepts}: no picture could be embedded; look at its statuses/ for the reasons"
        )
    if len({vectors.shape[1] for vectors, _ in pairs}) > 1:
        raise DataError(f"{run.concepts}: shards of different dimension; embed again with --force")
    rows = pa.concat_tables([rows for _, rows in pairs])
    return np.concatenate([vectors for vectors, _ in pairs]), rows


def _described(embeddings: Vectors, rows: pa.Table, found: Vectors) -> tuple[pa.Table, dict[str, Any]]:
    """The centroids' table, largest first, and the report on them."""
    labels, similarities = assign(embeddings, found)
    sizes = np.bincount(labels, minlength=len(found))
    by_size = np.argsort(-sizes, kind="stable")
    found, sizes, labels = found[by_size], sizes[by_size], np.argsort(by_size)[labels]
    members = _nearest_first(labels, similarities, len(found))
    spread = np.bincount(labels, weights=1 - np.minimum(similarities, 1), minlength=len(found))
    total = spread.sum()
    places = flat_map(found)
    ids = rows.column("id").to_numpy()
    columns = {
        "centroid_id": np.arange(len(found), dtype=np.int32),
        "embedding": list_column(found, pa.float32()),
        "size": sizes,
        "label": _labels(rows, members),
        "exemplar_ids": [ids[near[:EXEMPLARS]] for near in members],
        "inertia_share": (spread / total if total > 0 else spread).astype(np.float32),
        "map_x": places[:, 0],
        "map_y": places[:, 1],
    }
    report = {
        "k": len(found),
        "n": len(embeddings),
        "objective": round(float(similarities.mean(dtype=np.float64)), 6),
        "empty": int((sizes == 0).sum()),
        "sizes": {
            name: float(value)
            for name, value in zip(
                ("min", "p10", "median", "p90", "max"),
                np.percentile(sizes, [0, 10, 50, 90, 100]),
                strict=True,
            )
        },
    }
    return pa.table(columns, schema=centroids_schema(found.shape[1])), report


def _nearest_first(
    labels: Labels, similarities: npt.NDArray[np.float32], k: int
) -> list[npt.NDArray[np.intp]]:
    """The rows of each cluster, the most similar to its centroid first."""
    order = np.lexsort((-similarities, labels))
    return np.split(order, np.cumsum(np.bincount(labels, minlength=k))[:-1])


def _labels(rows: pa.Table, members: list[npt.NDArray[np.intp]]) -> list[str]:
    captions, names = [], []
    for number, near in enumerate(members):
        texts = rows.column("caption").take(pa.array(near[:_LABELLED_BY])).to_pylist()
        captions.append([text for text in texts if text])
        exemplar = {name: rows.column(name)[int(near[0])].as_py() for name in ("key", "image_path")}
        stem = PurePath(exemplar["key"] or exemplar["image_path"] or "").stem
        # A running number is no label: 000000123 says less than the centroid's own.
        names.append(stem if any(sign.isalpha() for sign in stem) else f"centroid {number}")
    return cluster_labels(captions, names)


def flat_map(vectors: Vectors) -> npt.NDArray[np.float32]:
    """Places of vectors on a map: their two main components, each scaled to 0 to 1.

    Args:
        vectors: Shape (n, d), n at least 1.

    Returns:
        Shape (n, 2). A component in which they don't differ is 0.5. Its sign is such that its largest
        weight is positive.
    """
    centred = vectors.astype(np.float64) - vectors.mean(axis=0, dtype=np.float64)
    _, axes = np.linalg.eigh(centred.T @ centred)
    main = np.zeros((vectors.shape[1], 2))
    for place, axis in enumerate(axes.T[::-1][:2]):
        main[:, place] = axis * np.sign(axis[np.argmax(np.abs(axis))])
    places = centred @ main
    low, width = places.min(axis=0), np.ptp(places, axis=0)
    scaled = np.where(width > 1e-9, (places - low) / np.maximum(width, 1e-9), 0.5)
    flat: npt.NDArray[np.float32] = scaled.astype(np.float32)
    return flat
