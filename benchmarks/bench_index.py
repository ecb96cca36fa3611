"""Our index beside autofaiss' way at the same bytes a vector: OPQ and product codes, built by FAISS.

Vectors are drawn into a pool's shards block by block, and read from there by both sides; what is held of a million
is a sample that trains theirs. CPU seconds are of all threads, the cores that this process may use.
"""

import argparse
import json
import os
import tempfile
import time
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", str(len(os.sched_getaffinity(0))))
os.environ["OPENBLAS_NUM_THREADS"] = os.environ["OMP_NUM_THREADS"]
os.environ["OMP_WAIT_POLICY"] = "PASSIVE"

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from benchmarks.drawn_vectors import Floats, draw_fine_vectors, fine_blocks
from benchmarks.report import report
from index_builder.indexes import index
from index_builder.indexing.index_folder import IndexFolder
from index_builder.indexing.planner import list_count
from index_builder.numerics.blas import VARIABLE
from index_builder.numerics.faiss_library import load_faiss
from index_builder.numerics.stored_vectors import StoredVectors
from spine.config import write_config
from spine.manifest import read_manifest
from spine.run import Run
from spine.settings import Config, IndexConfig
from spine.shards import write_shard
from spine.stage import Stage
from spine.tables import METADATA

D, K, QUERIES = 768, 100, 300
CODES = 96  # bytes of theirs; ours have 104
# In their favour: FAISS's own 50 rounds of OPQ on 65,536 rows, the first of 40 rounds of k-means, would cost some
# 400 CPU seconds more.
ROUNDS, SAMPLE = 4, 16_384
NPROBES = (8, 16, 32, 64)

Rows = npt.NDArray[np.int64]


def main() -> None:
    """Build both, search both."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--quick", action="store_true")
    quick = parser.parse_args().quick
    n = 200_000 if quick else 1_000_000
    nlist = list_count(n)
    queries = draw_fine_vectors(QUERIES, D, seed=1)
    with tempfile.TemporaryDirectory() as folder:
        run = Run(Path(folder))
        vectors = drawn_pool(run, n)
        truth = exact(queries, vectors)
        ours_cpu, ours = built_by_us(run, queries, nlist)
        theirs_cpu, theirs = built_their_way(vectors, queries, nlist)
    found = {name: recalls(rows, truth) for name, rows in (ours | {"recall_theirs": theirs}).items()}
    conditions = {"n": n, "d": D, "k": K, "nlist": nlist, "nprobes": NPROBES, "queries": QUERIES}
    conditions |= {"threads": int(os.environ["OMP_NUM_THREADS"]), "kernels": os.environ.get(VARIABLE)}
    conditions |= {"load_average": round(os.getloadavg()[0], 1)}
    conditions |= {
        "ours": our_key(nlist),
        "theirs": their_key(nlist),
        "opq_rounds": ROUNDS,
        "opq_rows": SAMPLE,
    }
    tell(ours_cpu, theirs_cpu, found, conditions, quick=quick)


def tell(
    ours_cpu: float,
    theirs_cpu: float,
    found: dict[str, list[float]],
    conditions: dict[str, object],
    *,
    quick: bool,
) -> None:
    """Report the figures."""
    report(
        "index_build_speedup",
        theirs_cpu / ours_cpu,
        "x autofaiss' way, CPU seconds to train, add and write",
        at_least=5,
        cpu_s=round(ours_cpu, 1),
        cpu_s_theirs=round(theirs_cpu, 1),
        **conditions,
    )
    code_bytes = -(-D // 8) + 8 + 8
    sizes = {"bytes": code_bytes, "theirs_bytes": CODES + 8}
    report("index_bytes", code_bytes, "bytes a vector: code and row number", at_most=112, **sizes)
    at = NPROBES.index(32)
    plain, ranked, theirs = (found[name][at] for name in ("recall", "recall_ranked", "recall_theirs"))
    conditions = conditions | sizes | found
    report(
        "index_recall_gain",
        100 * (plain - theirs),
        "points of recall@100 at nprobe 32, by codes alone",
        # The nearest of few vectors lie far apart: coarse codes too tell them from others, and the lead is smaller.
        at_least=None if quick else 10,
        **conditions,
    )
    on_disk = {"ranked_on_bytes": 2 * D}
    report(
        "index_recall_gain_ranked",
        100 * (ranked - theirs),
        "points of recall@100 at nprobe 32, ours as it is searched: ranked on float16 rows on disk",
        at_least=10,
        **conditions,
        **on_disk,
    )
    report(
        "index_recall_ranked",
        ranked,
        "recall@100 at nprobe 32, ranked on float16 rows on disk",
        at_least=0.98,
        **conditions,
        **on_disk,
    )


def our_key(nlist: int) -> str:
    """What the planner takes where memory holds codes and rows."""
    return f"RR{D},IVF{nlist},RaBitQ"


def their_key(nlist: int) -> str:
    """What autofaiss takes at this size."""
    return f"OPQ{CODES}_{D},IVF{nlist}_HNSW32,PQ{CODES}x8"


def drawn_pool(run: Run, n: int) -> StoredVectors:
    """n vectors as the embed stage leaves them."""
    settings = IndexConfig(factory=our_key(list_count(n)), memory_budget="8GB", recall=0.99)
    write_config(run.config, Config(index=settings))
    stage = Stage.open("pool", run.pool, {}, {})
    for number, (start, block) in enumerate(fine_blocks(n, D)):
        table = pa.table({name: pa.nulls(len(block), METADATA.field(name).type) for name in METADATA.names})
        table = table.set_column(0, "id", pa.array(np.arange(start, start + len(block))))
        write_shard(run.pool, number, block, table.cast(METADATA))
    stage.finish({}, {"model": "drawn"})
    return StoredVectors.of_collection(run.pool)


def exact(queries: Floats, vectors: StoredVectors) -> Rows:
    """The rows of the K nearest, compared with all."""
    faiss = load_faiss()
    heap = faiss.ResultHeap(len(queries), K, keep_max=True)
    for first, block in vectors.blocks():
        similarities, rows = faiss.knn(queries, block, K, metric=faiss.METRIC_INNER_PRODUCT)
        heap.add_result(similarities, rows + first)
    heap.finalize()
    found: Rows = heap.I
    return found


def built_by_us(run: Run, queries: Floats, nlist: int) -> tuple[float, dict[str, list[Rows]]]:
    """CPU seconds of the stage without its report, and what searches find by codes alone and ranked on the rows."""
    index(run)
    seconds = json.loads((run.index / "index_report.json").read_text())["build"]["cpu_s"]
    assert read_manifest(run.index).facts["nlist"] == nlist
    with IndexFolder.open(run.index) as built:
        ranked = [built.search(queries, K, nprobe=nprobe)[1] for nprobe in NPROBES]
    with IndexFolder.open(run.index, vectors_beside=False) as built:
        plain = [built.search(queries, K, nprobe=nprobe)[1] for nprobe in NPROBES]
    return float(seconds), {"recall": plain, "recall_ranked": ranked}


def built_their_way(vectors: StoredVectors, queries: Floats, nlist: int) -> tuple[float, list[Rows]]:
    """The same of the index that autofaiss builds, with fewer rounds of OPQ."""
    faiss = load_faiss()
    start = time.process_time()
    built = faiss.index_factory(D, their_key(nlist), faiss.METRIC_INNER_PRODUCT)
    rotation = faiss.downcast_VectorTransform(built.chain.at(0))
    rotation.niter, rotation.max_train_points = ROUNDS, SAMPLE
    rotation.niter_pq = rotation.niter_pq_0 = 4
    rows = min(vectors.n, 64 * nlist)
    built.train(vectors[np.sort(np.random.default_rng(0).choice(vectors.n, rows, replace=False))])
    for _, block in vectors.blocks():
        built.add(block)
    with tempfile.NamedTemporaryFile() as file:
        faiss.write_index(built, file.name)
    seconds = time.process_time() - start
    lists, found = faiss.extract_index_ivf(built), []
    for nprobe in NPROBES:
        lists.nprobe = nprobe
        found.append(built.search(queries, K)[1])
    return seconds, found


def recalls(found: list[Rows], truth: Rows) -> list[float]:
    """recall@100 for each nprobe."""
    return [
        round(float(np.mean([len(np.intersect1d(a, b)) / K for a, b in zip(rows, truth, strict=True)])), 4)
        for rows in found
    ]


if __name__ == "__main__":
    main()
