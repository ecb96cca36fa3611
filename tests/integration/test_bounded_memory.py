"""Indexes and centroids are made of embeddings that stay on disk: the memory they take is watched."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from index_builder.indexing.index_folder import IndexFolder
from spine.config import write_config
from spine.manifest import read_manifest
from spine.run import Run
from spine.settings import CentroidsConfig, Config, IndexConfig
from spine.shards import write_shard
from spine.stage import Stage
from spine.table_files import read_table
from spine.tables import METADATA, vectors_of

N, D = 160_000, 256
FLOATS = 4 * N * D  # 164 MB: one float32 copy of all embeddings
ALLOWED = 140 * 10**6

WORK = """
import sys, threading
from pathlib import Path
import faiss, numpy, torch, pyarrow.parquet
from index_builder import indexes
from index_builder.clustering import exact_kmeans, neighbour_kmeans
from index_builder.metadata import metadata_rows
from index_builder.numerics import integer_products, stored_vectors
from index_builder.clustering import witnesses
from index_builder.indexing import index_report
from index_builder.indexing.candidate_ranking import ranked_exactly
from index_builder.centroids import centroids
from index_builder.indexes import index
from spine.run import Run

# As a pool of millions sees them: small parts of all.
integer_products._BLOCK_VALUES, stored_vectors.BLOCK_BYTES = 2**20, 2**21
exact_kmeans._STARTED_BY, neighbour_kmeans._SAMPLED_ROWS, integer_products._SAMPLED = 2**13, 8, 2**10
neighbour_kmeans._CELLS = witnesses._CELLS = 2**18
neighbour_kmeans._LEAST_GROUPS = 50
index_report.QUERIES = 32
indexes.METADATA_ROWS = metadata_rows.METADATA_ROWS = 10_000
pyarrow.set_cpu_count(1)
pyarrow.set_io_thread_count(1)
faiss.omp_set_num_threads(1)
torch.set_num_threads(1)
torch._int_mm(torch.ones(32, 64, dtype=torch.int8), torch.ones(64, 64, dtype=torch.int8))
one = numpy.ones((1, 1), "f4")
ranked_exactly(numpy.ones((1, 4), "f4"), numpy.zeros((1, 1), "i8"), one, numpy.ones((1, 4), "f2"), 1)


def anonymous():
    status = dict(line.split(":") for line in Path("/proc/self/status").read_text().splitlines())
    return int(status["RssAnon"].split()[0]) * 1024


before, peak, done = anonymous(), 0, threading.Event()


def watch():
    global peak
    while not done.wait(0.002):
        peak = max(peak, anonymous())


watcher = threading.Thread(target=watch)
watcher.start()
try:
    {"centroids": centroids, "index": index}[sys.argv[2]](Run(Path(sys.argv[1])))
finally:
    done.set()
    watcher.join()
print(peak - before)
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run whose concepts and pool are the same drawn vectors, in 12 shards."""
    run = Run(tmp_path_factory.mktemp("bounded") / "run")
    run.folder.mkdir()
    settings = Config(
        index=IndexConfig(memory_budget="3MB", recall=0.9),
        centroids=CentroidsConfig(k=800, iterations=2, method="neighbours", vocabulary=""),
    )
    write_config(run.config, settings)
    random = np.random.default_rng(0)
    middles = random.standard_normal((2_000, D))
    stages = [Stage.open(name, run.collection(name), {}, {}) for name in ("pool", "concepts")]
    for number in range(12):
        rows = np.arange(number * N // 12, (number + 1) * N // 12)
        vectors = middles[random.integers(2_000, size=len(rows))] + 0.6 * random.standard_normal(
            (len(rows), D)
        )
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        table = pa.table({"id": rows, "caption": [f"caption {row}" for row in rows]})
        for column in METADATA:
            if column.name not in table.column_names:
                table = table.append_column(column, pa.nulls(len(rows), column.type))
        for stage in stages:
            write_shard(
                stage.folder, number, vectors.astype(np.float32), table.select(METADATA.names).cast(METADATA)
            )
    for stage in stages:
        stage.finish({"embedded": N}, {"d": D, "model": "tiny", "demo_models": False})
    return run


def taken_by(run, stage):
    """Bytes of memory, the pages of mapped files not counted, that a stage took in a process of its own."""
    command = [sys.executable, "-c", WORK, str(run.folder), stage]
    threads = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "ARROW_DEFAULT_MEMORY_POOL": "system"}
    done = subprocess.run(
        command, env={**os.environ, **threads}, stdout=subprocess.PIPE, text=True, check=True, timeout=120
    )
    return int(done.stdout)


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads Linux's /proc")
@pytest.mark.parametrize("stage", ["index", "centroids"])
def test_a_stage_needs_less_memory_than_its_embeddings_take(run, stage):
    assert taken_by(run, stage) < ALLOWED < 0.9 * FLOATS
    if stage == "index":
        assert (run.index / "image.index").stat().st_size > 3 * 10**6, (
            "more than its budget: lists stay on disk"
        )
        with IndexFolder.open(run.index) as index:
            assert (index.n, index.kind) == (N, "IndexIVFRaBitQ")
    else:
        table = read_table(
            run.centroids_table, pa.schema([("embedding", pa.list_(pa.float32(), D)), ("size", pa.int64())])
        )
        assert sum(table.column("size").to_pylist()) == N
        assert np.isfinite(vectors_of(table.column("embedding"))).all()
        assert read_manifest(run.centroids).counts == {"pictures": N, "centroids": 800}
