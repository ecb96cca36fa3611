"""What the server's benchmark serves: one drawn pool, as clip-retrieval's own set-ups and as our planner's index."""

import json
import time
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.drawn_vectors import Floats, draw_vectors
from index_builder.indexes import index
from index_builder.indexing.index_folder import IndexFolder
from index_builder.metadata.metadata_rows import write_metadata
from index_builder.numerics.faiss_library import load_faiss
from spine.config import preset, write_config
from spine.run import Run
from spine.settings import ClipConfig
from spine.shards import write_shard
from spine.stage import Stage
from spine.tables import METADATA

D, K = 768, 40
QUERIES = 500
AUTOFAISS = ("HNSW32", {200_000: 2829, 1_000_000: 3331})
"""What clip-retrieval's indexer chose for as many such vectors in its 4 GB: kind, and efSearch for 10 ms a query."""

RECALL = 0.994
"""Of the 100 nearest, for the planner's index: of the 40 nearest it then finds as many as clip-retrieval, or more."""

COLUMNS = (
    "url",
    "caption",
    "key",
    "width",
    "height",
    "alt_txt_similarity",
    "aesthetic",
    "pwatermark",
    "punsafe",
)
"""Of each answer; a null image_path, which clip-retrieval can't answer with, isn't among them."""


@dataclass(frozen=True)
class ServedPool:
    """Indices over the same vectors, and queries of the same world."""

    folder: Path
    """Holds peer-parquet/, peer-arrow/ (one index file) and the run's index."""
    planned: Path
    queries: Floats
    exact: npt.NDArray[np.int64]
    """(QUERIES, K): the true neighbours."""


def build(folder: Path, n: int) -> ServedPool:
    """Draw a pool of n vectors with metadata, and index it both ways."""
    vectors = draw_vectors(n, D, seed=1)
    vectors[7::50] = _near(vectors[6::50][: len(vectors[7::50])])  # 2 % near-duplicates
    # As both tools write embeddings: without it, one index would be of other vectors than the other.
    vectors = vectors.astype(np.float16).astype(np.float32)
    queries = draw_vectors(QUERIES, D, seed=2)
    exact = load_faiss().knn(queries, vectors, K, metric=load_faiss().METRIC_INNER_PRODUCT)[1]
    table = _metadata(n)
    _say(f"{n:,} vectors drawn")
    _write_peers(folder, vectors, table)
    _say("clip-retrieval's index built")
    planned = _planned(folder / "run", vectors, table)
    _say("the planner's index built")
    return ServedPool(folder, planned, queries, exact)


def recall_at_k(folder: Path, pool: ServedPool) -> float:
    """Share of the true neighbours that an index finds, as its file or manifest is set."""
    with IndexFolder.open(folder, memory_map=False) as opened:
        found = opened.search(pool.queries, K)[1]
    return float(np.mean([len(np.intersect1d(a, b)) / K for a, b in zip(found, pool.exact, strict=True)]))


def indices_paths(pool: ServedPool) -> Path:
    """indices_paths.json of all three, for both servers; each key in each entry, for there they leak."""
    entries = {
        name: {
            "indice_folder": str(folder),
            "clip_model": "",
            "enable_hdf5": False,
            "enable_faiss_memory_mapping": False,
            "columns_to_return": list(COLUMNS),
            "reorder_metadata_by_ivf_index": False,
            "enable_mclip_option": False,
            "use_jit": False,
            "use_arrow": arrow,
            "provide_safety_model": False,
            "provide_violence_detector": False,
            "provide_aesthetic_embeddings": False,
        }
        for name, folder, arrow in (
            ("parquet", pool.folder / "peer-parquet", False),
            ("arrow", pool.folder / "peer-arrow", True),
        )
    }
    path = pool.folder / "indices_paths.json"
    path.write_text(json.dumps(entries))
    return path


def _write_peers(folder: Path, vectors: Floats, table: pa.Table) -> None:
    faiss = load_faiss()
    kind, ef_search = AUTOFAISS
    graph = faiss.index_factory(D, kind, faiss.METRIC_INNER_PRODUCT)
    graph.add(vectors)
    graph.hnsw.efSearch = ef_search[min(ef_search, key=lambda known: abs(known - len(vectors)))]
    for name in ("peer-parquet", "peer-arrow"):
        (folder / name / "metadata").mkdir(parents=True)
    faiss.write_index(graph, str(folder / "peer-parquet" / "image.index"))
    (folder / "peer-arrow" / "image.index").hardlink_to(folder / "peer-parquet" / "image.index")
    pq.write_table(table, folder / "peer-parquet" / "metadata" / "metadata_0.parquet")
    write_metadata(folder / "peer-arrow" / "metadata" / "0.arrow", table)


def _planned(folder: Path, vectors: Floats, table: pa.Table) -> Path:
    """The index that a run gets, by its own stage."""
    run = Run(folder)
    run.folder.mkdir()
    config = preset("standard")
    settings = replace(config.index, recall=RECALL)
    write_config(run.config, replace(config, clip=ClipConfig(model="drawn", pretrained=""), index=settings))
    stage = Stage.open("pool", run.pool, {}, {})
    for number, start in enumerate(range(0, len(vectors), 100_000)):
        write_shard(run.pool, number, vectors[start : start + 100_000], table.slice(start, 100_000))
    n = len(vectors)
    stage.finish({"embedded": n}, {"n": n, "d": D, "model": "drawn", "demo_models": False})
    index(run)
    return run.index


def _metadata(n: int) -> pa.Table:
    generator = np.random.default_rng(0)
    rows = np.arange(n)
    columns = {
        "id": rows * 7919 + 2**60,
        "url": [f"https://pictures.example/{row:012d}.jpg" for row in rows],
        "caption": [f"a picture with the number {row} and some words about it" for row in rows],
        "key": [f"{row:09d}" for row in rows],
        "width": rows % 2000,
        "height": rows % 1500,
        "alt_txt_similarity": generator.random(n),
        "aesthetic": 10 * generator.random(n),
        "pwatermark": generator.random(n),
        "punsafe": generator.random(n),
    }
    arrays = [
        pa.array(columns[field.name]).cast(field.type) if field.name in columns else pa.nulls(n, field.type)
        for field in METADATA
    ]
    return pa.table(arrays, schema=METADATA)


def _near(vectors: Floats) -> Floats:
    step = np.random.default_rng(3).standard_normal(vectors.shape, dtype=np.float32)
    near = vectors + 0.2 * step / np.linalg.norm(step, axis=1, keepdims=True)
    unit: Floats = near / np.linalg.norm(near, axis=1, keepdims=True)
    return unit


def _say(words: str) -> None:
    import sys

    print(f"{time.strftime('%H:%M:%S')} {words}", file=sys.stderr, flush=True)
