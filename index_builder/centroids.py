"""The stage that finds the concepts: k-means over the embedded concept pictures."""

import itertools
from dataclasses import asdict
from pathlib import PurePath
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from index_builder.clustering.kmeans import Clusters, Labels, fit_clusters
from index_builder.clustering.labels import cluster_labels, terms_of
from index_builder.clustering.vocabulary import named_by_vocabulary, read_vocabulary
from index_builder.numerics.stored_vectors import StoredVectors
from spine.config import load_config
from spine.manifest import Manifest, read_manifest
from spine.progress import SILENT, Progress
from spine.publish import publish_json, publish_table
from spine.run import Run
from spine.settings import Config
from spine.shards import shards
from spine.stage import Stage
from spine.tables import METADATA, Vectors, centroids_schema, list_column

EXEMPLARS = 9
"""Concept pictures listed for a centroid at most."""

_LABELLED_BY = 200  # of a centroid's nearest pictures, those whose captions make its label
_READ = pa.schema([METADATA.field(name) for name in ("id", "caption", "key", "image_path")])


def centroids(run: Run, *, force: bool = False, progress: Progress = SILENT) -> Manifest:
    """Cluster the concept pictures into centroids.

    Reads concepts/, writes centroids/: centroids.parquet, the largest cluster first, and report.json.
    Embeddings stay on disk: memory holds some 60 bytes a picture, 20 k·d for the centroids, 200 captions a
    centroid, and a gigabyte for all else. Where there are fewer pictures than [centroids] k, or fewer that
    differ, k is lowered, and said.

    Args:
        run: Its [centroids] settings count.
        force: Start over.
        progress: Told of each iteration.

    Raises:
        ConfigError: A setting is wrong.
        DataError: concepts/ isn't finished or holds no usable picture, or the vocabulary can't be read.
    """
    config = load_config(run.config)
    source = read_manifest(run.concepts)
    stage = Stage.open(
        "centroids", run.centroids, asdict(config.centroids), {"concepts": source.digest}, force=force
    )
    if stage.published is not None:
        return stage.published
    if config.centroids.vocabulary:
        read_vocabulary(config.centroids.vocabulary)  # before the long work
    embeddings, model = StoredVectors.of_collection(run.concepts), source.facts.get("model")
    k, iterations = config.centroids.k, config.centroids.iterations
    progress.begin("centroids", iterations, "iterations")
    found = fit_clusters(
        embeddings,
        min(k, len(embeddings)),
        method=config.centroids.method,
        iterations=iterations,
        seed=config.centroids.seed,
        spherical=config.centroids.spherical,
        exact_assignment=config.centroids.exact_assignment,
        progress=progress,
    )
    if len(found.centroids) < k:
        differ = "" if len(found.centroids) == len(embeddings) else " that differ"
        progress.say(f"k lowered from {k:,} to {len(found.centroids):,}: there are no more pictures{differ}")
    table, report = _described(run, found, config, model, progress)
    publish_table(run.centroids_table, table)
    asked = {"k_asked": k, "iterations_asked": iterations, "method": config.centroids.method}
    publish_json(run.centroids / "report.json", report | asked)
    manifest = stage.finish(
        {"pictures": len(embeddings), "centroids": len(found.centroids)},
        {
            "k": len(found.centroids),
            "d": embeddings.d,
            "model": model,
            "demo_models": bool(source.facts.get("demo_models", False)),
        },
    )
    progress.end()
    return manifest


def _described(
    run: Run, found: Clusters, config: Config, model: str | None, progress: Progress
) -> tuple[pa.Table, dict[str, Any]]:
    """The centroids' table, largest first, and the report on them."""
    k = len(found.centroids)
    sizes = np.bincount(found.labels, minlength=k)
    by_size = np.argsort(-sizes, kind="stable")
    centroids, sizes, labels = found.centroids[by_size], sizes[by_size], np.argsort(by_size)[found.labels]
    members = _nearest_first(labels, found.similarities, k)
    spread = np.bincount(labels, weights=1 - np.minimum(found.similarities, 1), minlength=k)
    total = spread.sum()
    places = flat_map(centroids)
    rows, place = _rows_of(run, np.concatenate([near[:_LABELLED_BY] for near in members]))
    nearest = [place[near[:_LABELLED_BY]] for near in members]
    ids = rows.column("id").to_numpy()
    columns = {
        "centroid_id": np.arange(k, dtype=np.int32),
        "embedding": list_column(centroids, pa.float32()),
        "size": sizes,
        "label": _labels(rows, nearest, centroids, config, model, progress),
        "exemplar_ids": [ids[near[:EXEMPLARS]] for near in nearest],
        "inertia_share": (spread / total if total > 0 else spread).astype(np.float32),
        "map_x": places[:, 0],
        "map_y": places[:, 1],
    }
    return pa.table(columns, schema=centroids_schema(centroids.shape[1])), _report(found, sizes)


def _report(found: Clusters, sizes: npt.NDArray[np.int64]) -> dict[str, Any]:
    percentiles = np.percentile(sizes, [0, 10, 50, 90, 100])
    bounds = 2 ** np.arange(int(sizes.max()).bit_length() + 1)
    return {
        "k": len(sizes),
        "n": len(found.labels),
        "objective": round(float(found.similarities.mean(dtype=np.float64)), 6),
        "empty": int((sizes == 0).sum()),
        "iterations": found.iterations,
        "sizes": {
            name: float(value)
            for name, value in zip(("min", "p10", "median", "p90", "max"), percentiles, strict=True)
        },
        "histogram": [
            {"from": int(low), "to": int(high) - 1, "centroids": int(((sizes >= low) & (sizes < high)).sum())}
            for low, high in itertools.pairwise(bounds)
        ],
    }


def _rows_of(run: Run, wanted: npt.NDArray[np.int64]) -> tuple[pa.Table, npt.NDArray[np.int64]]:
    """The metadata of some concept pictures, and the place of each row in it (-1 for the others')."""
    parts, start = [], 0
    n = sum(pq.read_metadata(shard.metadata_path).num_rows for shard in shards(run.concepts))
    place = np.full(n, -1, dtype=np.int64)
    place[wanted] = 0
    for shard in shards(run.concepts):
        table = shard.metadata(_READ)
        inside = np.flatnonzero(place[start : start + table.num_rows] >= 0)
        parts.append(table.take(pa.array(inside)))
        start += table.num_rows
    place[place >= 0] = np.arange(np.count_nonzero(place >= 0))
    return pa.concat_tables(parts), place


def _nearest_first(
    labels: Labels, similarities: npt.NDArray[np.float32], k: int
) -> list[npt.NDArray[np.intp]]:
    """The rows of each cluster, the most similar to its centroid first."""
    order = np.lexsort((-similarities, labels))
    return np.split(order, np.cumsum(np.bincount(labels, minlength=k))[:-1])


def _labels(
    rows: pa.Table,
    nearest: list[npt.NDArray[np.int64]],
    centroids: Vectors,
    config: Config,
    model: str | None,
    progress: Progress,
) -> list[str]:
    """By the pictures' captions, else by a vocabulary, else by the nearest picture's name, else a number."""
    captions = []
    for near in nearest:
        texts = rows.column("caption").take(pa.array(near)).to_pylist()
        captions.append([text for text in texts if text])
    names = [""] * len(nearest)
    silent = [number for number, texts in enumerate(captions) if not any(terms_of(text) for text in texts)]
    named = None
    if silent:
        named = named_by_vocabulary(centroids, config.clip, config.centroids.vocabulary, model, progress)
    for number in silent:
        exemplar = {
            name: rows.column(name)[int(nearest[number][0])].as_py() for name in ("key", "image_path")
        }
        stem = PurePath(exemplar["key"] or exemplar["image_path"] or "").stem
        # A running number is no label: 000000123 says less than the centroid's own.
        plain = stem if any(sign.isalpha() for sign in stem) else f"centroid {number}"
        names[number] = plain if named is None else named[number]
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
