"""The stage that builds the pool's index: FAISS's file, the metadata of its rows, and a report of what it finds."""

import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from index_builder.clustering.kmeans import fit_centroids
from index_builder.indexing.autofaiss import build_with_autofaiss
from index_builder.indexing.index_file import INDEX_FILE, METADATA_FOLDER, VECTORS_FILE
from index_builder.indexing.index_folder import IndexFolder
from index_builder.indexing.index_lists import part_rows, put_together, set_nprobe, write_index, write_parts
from index_builder.indexing.index_plot import index_plot
from index_builder.indexing.index_report import Measured, measure
from index_builder.indexing.planner import IndexPlan, plan_index
from index_builder.metadata.metadata_rows import METADATA_ROWS, metadata_paths, write_metadata
from index_builder.numerics.faiss_library import load_faiss
from index_builder.numerics.stored_vectors import StoredVectors, block_rows
from spine.config import load_config
from spine.errors import ConfigError, DataError
from spine.manifest import Manifest, package_versions, read_manifest
from spine.progress import SILENT, Progress
from spine.publish import publish_json, publish_text, publishing
from spine.run import Run
from spine.settings import IndexConfig, PoolConfig
from spine.shards import shards
from spine.sizes import parse_size
from spine.stage import Stage
from spine.tables import METADATA

REPORT_FILE = "index_report.json"
"""What was built and what it finds: kind, n, d, nlist, nprobe, sizes, recall, speed."""

PLOT_FILE = "index_report.svg"
"""Recall and speed by nprobe."""

_TRAINED, _SAMPLE = ".trained.index", ".sample.npy"  # hidden: no part of the folder
_ROUNDS = 5  # of k-means for the lists
_MANY_LISTS = 256  # from which comparing with near middles alone is cheaper; its lists are more even as well
_CODES_TRAINED_BY = 65_536


def index(run: Run, *, force: bool = False, progress: Progress = SILENT) -> Manifest:
    """Build the index of the pool.

    Reads pool/, writes index/: image.index, metadata/0.arrow and on, index_report.json with its plot, a folder that
    clip-retrieval reads too; with coarse codes vectors.npy as well. Vectors are streamed and lists built in parts:
    beside some hundred megabytes, memory holds a part of the index, a quarter of [index] memory_budget at most, and
    what trains it. Killed and started again it goes on with the next part.

    Args:
        run: Its [index] settings count.
        force: Start over.
        progress: Told of vectors added.

    Raises:
        ConfigError: [pool] names an index or a server, so there is none to build; the memory budget is
            too small; or the builder autofaiss isn't there.
        DataError: pool/ isn't finished, holds no usable picture or is damaged.
    """
    config = load_config(run.config)
    _needs_index(config.pool)
    source = read_manifest(run.pool)
    stage = Stage.open(
        "index",
        run.index,
        _parameters(config.index),
        {"pool": source.digest},
        grows_with=["recall"],  # it decides on nprobe and over-fetch alone: what is built stays
        force=force,
    )
    if stage.published is not None:
        _tidy(run.index)
        return stage.published
    vectors = StoredVectors.of_collection(run.pool)
    progress.begin("index", vectors.n, "vectors")
    _publish_metadata(run, vectors.n)
    key, build = _built(run, config.index, vectors, progress)
    report = _measured(run.index, key, config.index, vectors, build, progress)
    facts = {name: report[name] for name in ("kind", "n", "d", "nlist", "nprobe", "over_fetch")}
    facts |= {"model": source.facts.get("model"), "demo_models": bool(source.facts.get("demo_models", False))}
    manifest = stage.finish({"vectors": vectors.n}, facts, notes=[REPORT_FILE, PLOT_FILE])
    _tidy(run.index)
    progress.end()
    return manifest


def _parameters(config: IndexConfig) -> dict[str, Any]:
    return {
        "memory_budget": config.memory_budget,
        "recall": config.recall,
        "keep_vectors": config.keep_vectors,
        "factory": config.factory,
        "builder": config.builder,
    }


def _needs_index(pool: PoolConfig) -> None:
    for name, value in (("index", pool.index), ("server", pool.server)):
        if value:
            raise ConfigError(
                f"[pool] {name} = {value!r}: that is what is searched, there is no index to build"
            )


def _publish_metadata(run: Run, n: int) -> None:
    """The pool's metadata as Arrow files of a bounded number of rows; those that are there stay."""
    paths = metadata_paths(run.index / METADATA_FOLDER, n)
    waiting = [number for number, path in enumerate(paths) if not path.exists()]
    if not waiting:
        return
    start, kept, first = 0, METADATA.empty_table(), waiting[0] * METADATA_ROWS
    number = waiting[0]
    for shard in shards(run.pool):
        rows = pq.read_metadata(shard.metadata_path).num_rows
        start += rows
        if start <= first:
            continue
        table = shard.metadata(METADATA)
        kept = pa.concat_tables([kept, table.slice(max(0, first - (start - rows)))])
        first = max(first, start)
        while kept.num_rows >= METADATA_ROWS:
            write_metadata(paths[number], kept.slice(0, METADATA_ROWS))
            number, kept = number + 1, kept.slice(METADATA_ROWS)
    if number < len(paths):
        write_metadata(paths[number], kept)


def _built(
    run: Run, config: IndexConfig, vectors: StoredVectors, progress: Progress
) -> tuple[str, dict[str, Any]]:
    """Build image.index and what lies beside it; returns FAISS's name of it, and what that took."""
    found_built = (run.index / INDEX_FILE).exists()
    memory_bytes = parse_size(config.memory_budget)
    wall_s, cpu_s = time.perf_counter(), time.process_time()
    if config.builder == "autofaiss":
        key = build_with_autofaiss(run, memory_bytes)
        progress.advance(vectors.n)
    else:
        plan = plan_index(
            *vectors.shape, memory_bytes, keep_vectors=config.keep_vectors, factory=config.factory
        )
        progress.say(plan.line())
        key = plan.factory
        _build(run.index, plan, vectors, memory_bytes, progress)
    return key, {
        "wall_s": round(time.perf_counter() - wall_s, 2),
        "cpu_s": round(time.process_time() - cpu_s, 2),
        "found_built": found_built,
    }


def _build(
    folder: Path, plan: IndexPlan, vectors: StoredVectors, memory_bytes: int, progress: Progress
) -> None:
    vectors_path, index_path = folder / VECTORS_FILE, folder / INDEX_FILE
    if plan.keeps_vectors and not vectors_path.exists():
        _copy_vectors(vectors_path, vectors.n, vectors.d, (block for _, block in vectors.blocks()))
    if index_path.exists():
        progress.advance(vectors.n)
        return
    trained = _trained(folder, plan, vectors, memory_bytes)
    if plan.streams:
        rows = part_rows(trained, memory_bytes)
        parts = [folder / f".lists-{number:05d}.index" for number in range(-(-vectors.n // rows))]
        write_parts(trained, vectors, parts, rows, progress)
        put_together(trained, vectors.n, parts, index_path)
    else:
        for _, block in vectors.blocks():
            trained.add(block)
            progress.advance(len(block))
        write_index(trained, index_path)
    _tidy(folder)


def _trained(folder: Path, plan: IndexPlan, vectors: StoredVectors, memory_bytes: int) -> Any:
    """An empty index of the plan's kind, its lists found by our k-means on a sample."""
    faiss, path = load_faiss(), folder / _TRAINED
    if not plan.nlist:
        return faiss.index_factory(plan.d, plan.factory, faiss.METRIC_INNER_PRODUCT)
    if path.exists():
        return faiss.read_index(str(path))
    sample = _sample(folder / _SAMPLE, vectors, plan.training_rows)
    method = "neighbours" if plan.nlist >= _MANY_LISTS else "exact"
    middles = fit_centroids(sample, plan.nlist, iterations=_ROUNDS, method=method)
    # Where vectors repeat there may be fewer lists than planned.
    key = plan.factory.replace(f"IVF{plan.nlist}", f"IVF{len(middles)}")
    trained = faiss.index_factory(plan.d, key, faiss.METRIC_INNER_PRODUCT)
    few = max(1_024, min(_CODES_TRAINED_BY, memory_bytes // (16 * plan.d)))
    given = turned = sample[np.unique(np.linspace(0, len(sample) - 1, few).astype(np.int64))]
    if isinstance(trained, faiss.IndexPreTransform):
        for number in range(trained.chain.size()):
            transform = faiss.downcast_VectorTransform(trained.chain.at(number))
            if not transform.is_trained:
                transform.train(turned)
            turned, middles = transform.apply(turned), transform.apply(middles)
    lists = faiss.extract_index_ivf(trained)
    lists.quantizer.add(middles)  # FAISS trains only the codes then
    trained.train(given)
    lists.nprobe = min(32, lists.nlist)
    write_index(trained, path)
    return trained


def _sample(path: Path, vectors: StoredVectors, size: int) -> StoredVectors:
    """`size` of the vectors, drawn evenly, always the same ones, in a file of their own."""
    if not path.exists():
        rows = np.sort(np.random.default_rng(0).choice(vectors.n, size=size, replace=False))
        step = block_rows(vectors.d)
        _copy_vectors(path, size, vectors.d, (vectors[rows[at : at + step]] for at in range(0, size, step)))
    return StoredVectors([path])


def _copy_vectors(path: Path, n: int, d: int, blocks: Iterator[Any]) -> None:
    """Publish vectors as float16 .npy."""
    # Written, not mapped: a full disk is an error then, and not the end of the process by SIGBUS.
    with publishing(path) as temporary, temporary.open("wb") as file:
        header = {"descr": "<f2", "fortran_order": False, "shape": (n, d)}
        np.lib.format.write_array_header_1_0(file, header)
        for block in blocks:
            file.write(block.astype("<f2").data)


def _measured(
    folder: Path,
    key: str,
    config: IndexConfig,
    vectors: StoredVectors,
    build: dict[str, Any],
    progress: Progress,
) -> dict[str, Any]:
    """Measure what was built, choose nprobe and over-fetch by it, and publish the report."""
    path = folder / INDEX_FILE
    with IndexFolder.open(folder, vectors_beside=(folder / VECTORS_FILE).exists()) as built:
        if (built.n, built.d) != vectors.shape:
            raise DataError(
                f"{path}: {built.n:,} × {built.d}, {vectors.n:,} × {vectors.d} was needed; build it again with --force"
            )
        measured = measure(built, vectors, config.recall, progress)
        kind, nlist = built.kind, built.nlist
    if nlist and measured.nprobe:
        set_nprobe(path, measured.nprobe)
    report = {
        "builder": config.builder,
        "key": key,
        "kind": kind,
        "n": vectors.n,
        "d": vectors.d,
        "metric": "inner_product",
        "nlist": nlist,
        "nprobe": measured.nprobe,
        "over_fetch": measured.over_fetch,
        "memory_budget": config.memory_budget,
        "size_bytes": path.stat().st_size,
        "bytes_per_vector": round(path.stat().st_size / vectors.n, 1),
        "ranked_exactly": (folder / VECTORS_FILE).exists(),
        "build": build,
        "search": measured.as_json(config.recall),
        "machine": _machine(),
    }
    publish_json(folder / REPORT_FILE, report)
    publish_text(folder / PLOT_FILE, index_plot(report))
    _tell(measured, progress)
    return report


def _tell(measured: Measured, progress: Progress) -> None:
    if measured.steps:
        best = measured.steps[measured.chosen]
        settings = [f"nprobe {best.nprobe}"] if best.nprobe else []
        settings += [f"{best.over_fetch:g}·k + 240 candidates ranked"] if best.over_fetch else []
        progress.say(
            f"{', '.join(settings)}{': ' if settings else ''}recall@10 {best.recall_at_10:.3f},"
            f" recall@{measured.depth} {best.recall_at_100:.3f}, {best.queries_per_s:,.0f} queries/s in batches of"
            f" {measured.queries}"
        )


def _machine() -> dict[str, Any]:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    faiss = load_faiss()
    return {
        "cores": cores,
        "threads": faiss.omp_get_max_threads(),
        "gpus": faiss.get_num_gpus(),
        "versions": package_versions(),
    }


def _tidy(folder: Path) -> None:
    """Remove what only the building needed."""
    for path in [folder / _TRAINED, folder / _SAMPLE, *folder.glob(".lists-*.index")]:
        path.unlink(missing_ok=True)
