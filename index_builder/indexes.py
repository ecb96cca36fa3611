"""The stage that builds the pool's index: FAISS's file and the metadata of its rows."""

import errno
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from index_builder.faiss_library import load_faiss
from index_builder.index_folder import INDEX_FILE, METADATA_FOLDER, VECTORS_FILE
from index_builder.kmeans import fit_centroids
from index_builder.metadata_rows import write_metadata
from index_builder.planner import IndexPlan, plan_index
from index_builder.unit_vectors import unit_rows
from spine.config import load_config
from spine.errors import ConfigError, DataError
from spine.progress import SILENT, Progress
from spine.publish import publish_json, publishing
from spine.run import Run
from spine.settings import IndexConfig, PoolConfig
from spine.shards import read_shards, shards
from spine.sizes import format_size, parse_size
from spine.stage import Manifest, Stage, read_manifest
from spine.tables import METADATA, Vectors

REPORT_FILE = "index_report.json"
"""What was built: kind, n, d, nlist, nprobe, sizes."""

_TRAINED_BY = 64  # vectors a list is trained by
_ROUNDS = 8  # of k-means for the lists
_ADDED = 65_536  # vectors added at once


def index(run: Run, *, force: bool = False, progress: Progress = SILENT) -> Manifest:
    """Build the index of the pool.

    Reads pool/, writes index/: image.index, metadata/0.arrow and index_report.json, a folder that
    clip-retrieval reads too; with coarse codes vectors.npy as well. Vectors are streamed: the index
    and the sample that trains it are what memory has to hold, and the metadata once.

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
    parameters = {"memory_budget": config.index.memory_budget, "builder": config.index.builder}
    stage = Stage.open("index", run.index, parameters, {"pool": source.digest}, force=force)
    if stage.published is not None:
        return stage.published
    n, d = _size(run.pool)
    memory_bytes = parse_size(config.index.memory_budget)
    progress.begin("index", n, "vectors")
    metadata_path = run.index / METADATA_FOLDER / "0.arrow"
    if not metadata_path.exists():
        write_metadata(
            metadata_path, pa.concat_tables(shard.metadata(METADATA) for shard in shards(run.pool))
        )
    if config.index.builder == "autofaiss":
        _build_with_autofaiss(run, memory_bytes)
        progress.advance(n)
    else:
        plan = plan_index(n, d, memory_bytes)
        progress.say(f"{plan.key} for {n:,} vectors of dimension {d}: {format_size(plan.size_bytes)}")
        _build(run, plan, n, d, progress)
    report = _report(run, config.index, n, d)
    publish_json(run.index / REPORT_FILE, report)
    facts = {name: report[name] for name in ("kind", "n", "d", "nlist", "nprobe")}
    facts |= {"model": source.facts.get("model"), "demo_models": bool(source.facts.get("demo_models", False))}
    manifest = stage.finish({"vectors": n}, facts)
    progress.end()
    return manifest


def _needs_index(pool: PoolConfig) -> None:
    for name, value in (("index", pool.index), ("server", pool.server)):
        if value:
            raise ConfigError(
                f"[pool] {name} = {value!r}: that is what is searched, there is no index to build"
            )


def _size(folder: Path) -> tuple[int, int]:
    """n and d of a collection, from the headers of its vector files."""
    n, dimensions = 0, set()
    for shard in shards(folder):
        try:
            array = np.load(shard.vectors_path, mmap_mode="r", allow_pickle=False)
            rows, d = array.shape
        except (OSError, ValueError) as error:
            raise DataError(
                f"{shard.vectors_path}: can't be read ({error}); embed again with --force"
            ) from None
        n += rows
        dimensions |= {d} if rows else set()
    if not dimensions:
        raise DataError(f"{folder}: no picture could be embedded; look at its statuses/ for the reasons")
    if len(dimensions) > 1:
        raise DataError(f"{folder}: shards of dimension {sorted(dimensions)}; embed again with --force")
    return n, dimensions.pop()


def _build(run: Run, plan: IndexPlan, n: int, d: int, progress: Progress) -> None:
    vectors_path, index_path = run.index / VECTORS_FILE, run.index / INDEX_FILE
    if plan.keeps_vectors and not vectors_path.exists():
        with publishing(vectors_path) as temporary:
            _copy_vectors(run.pool, temporary, n, d)
    if not index_path.exists():
        built = _trained(plan, run.pool, n, d)
        for vectors in _blocks(run.pool):
            built.add(vectors)
            progress.advance(len(vectors))
        with publishing(index_path) as temporary:
            _write(built, temporary)
    else:
        progress.advance(n)


def _write(index: Any, path: Path) -> None:
    """Write an index. Of a full disk FAISS says only that it wrote too little; here it is an OSError as elsewhere."""
    try:
        load_faiss().write_index(index, str(path))
    except RuntimeError as error:
        if shutil.disk_usage(path.parent).free > 1_000_000:
            raise
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path)) from error


def _report(run: Run, config: IndexConfig, n: int, d: int) -> dict[str, Any]:
    """What the published file is, read from itself."""
    faiss, path = load_faiss(), run.index / INDEX_FILE
    built = faiss.read_index(str(path), faiss.IO_FLAG_MMAP | faiss.IO_FLAG_READ_ONLY)
    if (built.ntotal, built.d) != (n, d):
        raise DataError(
            f"{path}: {built.ntotal:,} × {built.d}, {n:,} × {d} was needed; build it again with --force"
        )
    lists = faiss.try_extract_index_ivf(built)
    return {
        "builder": config.builder,
        "kind": type(built if lists is None else faiss.downcast_index(lists)).__name__,
        "n": n,
        "d": d,
        "metric": "inner_product",
        "nlist": 0 if lists is None else lists.nlist,
        "nprobe": 0 if lists is None else lists.nprobe,
        "size_bytes": path.stat().st_size,
        "ranked_exactly": (run.index / VECTORS_FILE).exists(),
    }


def _trained(plan: IndexPlan, folder: Path, n: int, d: int) -> Any:
    """An empty index of the plan's kind, its lists found by our k-means on a sample."""
    faiss = load_faiss()
    if not plan.nlist:
        return faiss.index_factory(d, plan.key, faiss.METRIC_INNER_PRODUCT)
    sample = _sample(folder, n, min(n, plan.nlist * _TRAINED_BY))
    middles = fit_centroids(sample, plan.nlist, iterations=_ROUNDS)
    # Where vectors repeat there may be fewer lists than planned.
    key = plan.key.replace(f"IVF{plan.nlist},", f"IVF{len(middles)},")
    built = faiss.index_factory(d, key, faiss.METRIC_INNER_PRODUCT)
    lists = faiss.extract_index_ivf(built)
    if isinstance(built, faiss.IndexPreTransform):
        rotation = faiss.downcast_VectorTransform(built.chain.at(0))
        rotation.train(sample)
        middles = rotation.apply(middles)
    lists.quantizer.add(middles)  # FAISS trains only the codes then
    built.train(sample)
    lists.nprobe = min(plan.nprobe, lists.nlist)  # for other readers of the file
    return built


def _blocks(folder: Path) -> Iterator[Vectors]:
    """The collection's unit vectors in order, a bounded number at a time."""
    for vectors, _ in read_shards(folder, pa.schema([METADATA.field("id")])):
        for start in range(0, len(vectors), _ADDED):
            yield unit_rows(vectors[start : start + _ADDED])


def _sample(folder: Path, n: int, size: int) -> Vectors:
    """`size` of the collection's n unit vectors, drawn evenly; always the same ones."""
    rows = np.sort(np.random.default_rng(0).choice(n, size=size, replace=False))
    taken, start = [], 0
    for vectors in _blocks(folder):
        inside = rows[(rows >= start) & (rows < start + len(vectors))]
        taken.append(vectors[inside - start])
        start += len(vectors)
    return np.concatenate(taken)


def _copy_vectors(folder: Path, path: Path, n: int, d: int) -> None:
    """All vectors one after the other as float16 .npy."""
    # Written, not mapped: a full disk is an error then, and not the end of the process by SIGBUS.
    with path.open("wb") as file:
        header = {"descr": "<f2", "fortran_order": False, "shape": (n, d)}
        np.lib.format.write_array_header_1_0(file, header)
        for vectors in _blocks(folder):
            file.write(vectors.astype("<f2").data)


def _build_with_autofaiss(run: Run, memory_bytes: int) -> None:
    """Let autofaiss choose and build; it needs older packages than ours, so it is only ever a command."""
    command = shutil.which("autofaiss")
    if command is None:
        raise ConfigError(
            "[index] builder = 'autofaiss': no command autofaiss found; install it in an environment of its own"
            " and link its command into a folder on PATH, or set builder = 'planner'"
        )
    with publishing(run.index / INDEX_FILE) as temporary:
        arguments = {
            "embeddings": run.pool / "img_emb",
            "index_path": temporary,
            "index_infos_path": temporary.with_name(f"{temporary.name}.json"),
            "file_format": "npy",
            "metric_type": "ip",
            "max_index_memory_usage": f"{memory_bytes // 2**10}K",
            "current_memory_available": f"{3 * memory_bytes // 2**10}K",
            "should_be_memory_mappable": True,
        }
        try:
            done = subprocess.run(
                [command, "build_index", *(f"--{name}={value}" for name, value in arguments.items())],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                errors="replace",
                check=False,
            )
        finally:
            temporary.with_name(f"{temporary.name}.json").unlink(missing_ok=True)
        # It also gives up with exit code 0.
        if done.returncode or not temporary.is_file():
            last = "; ".join((done.stderr or done.stdout).strip().splitlines()[-3:])
            raise DataError(f"autofaiss build_index made no index (exit code {done.returncode}): {last}")
