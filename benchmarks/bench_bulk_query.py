"""Centroid queries in bulk beside FAISS asked one query at a time: same file, same nprobe, one thread, in turn."""

import argparse
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = os.environ["OPENBLAS_NUM_THREADS"] = "1"
os.environ["OMP_WAIT_POLICY"] = "PASSIVE"

import numpy as np
import pyarrow as pa

from benchmarks.drawn_vectors import Floats, draw_vectors
from benchmarks.report import report
from index_builder.bulk_query import bulk_query
from index_builder.faiss_library import load_faiss
from index_builder.index_folder import INDEX_FILE, IndexFolder
from index_builder.indexes import index
from index_builder.kmeans import fit_centroids
from spine.config import write_config
from spine.run import Run
from spine.settings import Config, IndexConfig
from spine.shards import write_shard
from spine.stage import Stage
from spine.tables import METADATA

COLUMNS = ("id", "url", "caption", "width", "height")


def main() -> None:
    """Build indices of two kinds with our own stage, and search each both ways; then look rows up."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--quick", action="store_true")
    quick = parser.parse_args().quick
    n, d, q, k = (120_000, 256, 500, 40) if quick else (1_000_000, 768, 2_000, 40)
    vectors = draw_vectors(n, d)
    queries = fit_centroids(draw_vectors(8 * q, d, seed=1), q, iterations=5)
    exact = load_faiss().knn(queries, vectors, k, metric=load_faiss().METRIC_INNER_PRODUCT)[1]
    with tempfile.TemporaryDirectory() as temporary:
        run = pool_of(Path(temporary), vectors)
        for name, bytes_a_vector in (("sq8", 2 * d), ("rabitq", d // 2)):
            write_config(run.config, Config(index=IndexConfig(memory_budget=f"{n * bytes_a_vector}B")))
            start = time.process_time()
            facts = index(run).facts
            built_s = time.process_time() - start
            with IndexFolder.open(run.index, memory_map=False) as folder:
                search(
                    name,
                    folder,
                    queries,
                    k,
                    exact,
                    n=n,
                    d=d,
                    kind=facts["kind"],
                    nlist=facts["nlist"],
                    build_cpu_s=built_s,
                )
                if name == "sq8":
                    look_up(folder, n)


def pool_of(folder: Path, vectors: Floats) -> Run:
    """A run whose pool/ holds these vectors."""
    run = Run(folder)
    stage = Stage.open("pool", run.pool, {}, {})
    for number, rows in enumerate(np.array_split(np.arange(len(vectors)), 4)):
        columns = {
            "id": rows * 7919,
            "url": [f"https://example.org/pictures/{row:09d}.jpg" for row in rows],
            "caption": [
                f"a drawn caption of ordinary length for the picture with the number {row}" for row in rows
            ],
            "width": np.full(len(rows), 1024),
            "height": np.full(len(rows), 768),
        }
        table = pa.table(
            {name: columns.get(name, [None] * len(rows)) for name in METADATA.names}, schema=METADATA
        )
        write_shard(run.pool, number, vectors[rows], table)
    stage.finish({"embedded": len(vectors)}, {"d": vectors.shape[1], "model": "drawn"})
    return run


def search(
    name: str, folder: IndexFolder, queries: Floats, k: int, exact: np.ndarray, **conditions: object
) -> None:
    """CPU seconds of both ways, the better of three each, and their recall."""
    raw = load_faiss().read_index(str(folder.folder / INDEX_FILE))
    single = load_faiss().SearchParametersIVF(nprobe=folder.nprobe)
    if isinstance(raw, load_faiss().IndexPreTransform):
        single = load_faiss().SearchParametersPreTransform(index_params=single)
    ways: dict[str, Callable[[], np.ndarray]] = {
        "faiss_single": lambda: np.concatenate(
            [raw.search(query[None], k, params=single)[1] for query in queries]
        ),
        "bulk": lambda: in_bulk(folder, queries, k, ()),
        "bulk_with_metadata": lambda: in_bulk(folder, queries, k, COLUMNS),
    }
    seconds: dict[str, float] = {}
    recall: dict[str, float] = {}
    for _ in range(3):
        for way, ask in ways.items():
            start = time.process_time()
            rows = ask()
            seconds[way] = min(seconds.get(way, np.inf), time.process_time() - start)
            recall[way] = round(recall_at_k(rows, exact), 4)
    conditions |= {
        "k": k,
        "queries": len(queries),
        "nprobe": folder.nprobe,
        "threads": 1,
        "recall": recall["bulk"],
        "recall_faiss": recall["faiss_single"],
        "ms_a_query": {way: round(1000 * value / len(queries), 3) for way, value in seconds.items()},
    }
    for way in ("bulk", "bulk_with_metadata"):
        goal = {"at_least": 5.0} if way == "bulk" else {}
        figure = f"{way}_speedup_{name}"
        report(
            figure,
            seconds["faiss_single"] / seconds[way],
            "x FAISS one by one, CPU seconds",
            **goal,
            **conditions,
        )


def in_bulk(folder: IndexFolder, queries: Floats, k: int, columns: tuple[str, ...]) -> np.ndarray:
    """Rows (q, k) by the bulk call."""
    rows = np.full((len(queries), k), -1, dtype=np.int64)
    for table in bulk_query(folder, queries, k, columns=columns):
        rows[table.column("query").to_numpy(), table.column("rank").to_numpy()] = table.column(
            "row"
        ).to_numpy()
    return rows


def recall_at_k(rows: np.ndarray, exact: np.ndarray) -> float:
    """Share of the exact nearest that were found."""
    return float(np.mean([len(np.intersect1d(a, b)) / len(b) for a, b in zip(rows, exact, strict=True)]))


def look_up(folder: IndexFolder, n: int) -> None:
    """CPU time of 40 rows of metadata by number."""
    random = np.random.default_rng(0)
    draws = [random.integers(n, size=40) for _ in range(1_000)]
    start = time.process_time()
    for rows in draws:
        folder.metadata(rows, COLUMNS)
    value = (time.process_time() - start) / len(draws) * 1000
    report("metadata_40_rows", value, "ms CPU", at_most=0.1, n=n, columns=len(COLUMNS))


if __name__ == "__main__":
    main()
