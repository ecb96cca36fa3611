"""Centroid queries in bulk beside FAISS asked one query at a time: same file, same nprobe, one thread, in turn.

Time is CPU time with everything in memory. Bytes are those that the kernel fetched from the device for this
process (read_bytes of /proc/self/io) with the index memory-mapped and its file put out of the page cache before.
"""

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
from index_builder.bulk_query import bulk_query, explain
from index_builder.faiss_library import load_faiss
from index_builder.index_file import INDEX_FILE
from index_builder.index_folder import IndexFolder
from index_builder.indexes import index
from index_builder.inverted_lists import InvertedLists
from index_builder.kmeans import fit_centroids
from spine.config import write_config
from spine.run import Run
from spine.settings import Config, IndexConfig
from spine.shards import write_shard
from spine.stage import Stage
from spine.tables import METADATA

COLUMNS = ("id", "url", "caption", "width", "height")


NPROBE = 32


def main() -> None:
    """Build indices of three kinds, and search each both ways; then count bytes, and look rows up."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--quick", action="store_true")
    quick = parser.parse_args().quick
    n, d, q, ks = (120_000, 256, 2_000, (40,)) if quick else (1_000_000, 768, 10_000, (40, 1_000))
    vectors = draw_vectors(n, d)
    queries = fit_centroids(draw_vectors(8 * q, d, seed=1), q, iterations=5)
    exact = load_faiss().knn(queries[:500], vectors, max(ks), metric=load_faiss().METRIC_INNER_PRODUCT)[1]
    with tempfile.TemporaryDirectory() as temporary:
        run = pool_of(Path(temporary), vectors)
        for name, bytes_a_vector in (("sq8", 2 * d), ("pq", 2 * d), ("rabitq", d // 2)):
            write_config(run.config, Config(index=IndexConfig(memory_budget=f"{n * bytes_a_vector}B")))
            facts = index(run).facts
            if name == "pq":
                as_product_codes(run.index, vectors)
            for k in ks:
                with IndexFolder.open(run.index, memory_map=False, check_digests=False) as folder:
                    search(name, folder, queries, k, exact[:, :k], n=n, d=d, nlist=facts["nlist"])
            if name == "sq8":
                look_up(folder_of(run), n)
            if name != "rabitq":
                count_bytes(name, folder_of(run), queries, n=n, d=d, nlist=facts["nlist"])


def folder_of(run: Run) -> IndexFolder:
    """The run's index, left on disk."""
    return IndexFolder.open(run.index, check_digests=False)


def as_product_codes(folder: Path, vectors: Floats) -> None:
    """Put an index of product codes with the same lists in place of the one there."""
    faiss = load_faiss()
    whole = faiss.read_index(str(folder / INDEX_FILE))
    lists = faiss.downcast_index(whole)
    d = vectors.shape[1]
    built = faiss.index_factory(d, f"IVF{lists.nlist},PQ{d // 8}x8np", faiss.METRIC_INNER_PRODUCT)
    built.quantizer.add(lists.quantizer.reconstruct_n(0, lists.nlist))
    built.train(vectors[:: max(1, len(vectors) // 20_000)])
    built.add(vectors)
    faiss.write_index(built, str(folder / INDEX_FILE))


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
    """CPU seconds of each way, the better of two, and their recall. One query at a time 500 stand for all."""
    raw = folder.faiss_index()
    single = load_faiss().SearchParametersIVF(nprobe=NPROBE)
    if isinstance(raw, load_faiss().IndexPreTransform):
        single = load_faiss().SearchParametersPreTransform(index_params=single)
    some = queries[:: max(1, len(queries) // 500)]
    ways: dict[str, tuple[Floats, Callable[[Floats], np.ndarray]]] = {
        "faiss_single": (
            some,
            lambda asked: np.concatenate([raw.search(query[None], k, params=single)[1] for query in asked]),
        ),
        "folder_single": (
            some,
            lambda asked: np.concatenate(
                [folder.search(query[None], k, nprobe=NPROBE)[1] for query in asked]
            ),
        ),
        "faiss_batch": (queries, lambda asked: raw.search(asked, k, params=single)[1]),
        "bulk": (queries, lambda asked: in_bulk(folder, asked, k, ())),
        "bulk_with_metadata": (queries, lambda asked: in_bulk(folder, asked, k, COLUMNS)),
    }
    micro: dict[str, float] = {}
    for _ in range(2):
        for way, (asked, ask) in ways.items():
            start = time.process_time()
            ask(asked)
            spent = (time.process_time() - start) / len(asked) * 1e6
            micro[way] = round(min(micro.get(way, np.inf), spent), 1)
    conditions |= {
        "k": k,
        "queries": len(queries),
        "nprobe": NPROBE,
        "threads": 1,
        "recall": round(recall_at_k(in_bulk(folder, queries[:500], k, ()), exact), 4),
        "recall_faiss": round(recall_at_k(ways["faiss_batch"][1](queries[:500]), exact), 4),
        "cpu_us_a_query": micro,
        "plan": explain(folder, len(queries), k, NPROBE),
    }
    # Where candidates are ranked on the vectors themselves, one query of the folder does so too.
    base = "folder_single" if folder.exact_vectors is not None else "faiss_single"
    unit = f"x {base} (one query at a time), CPU seconds"
    report(f"bulk_speedup_{name}_k{k}", micro[base] / micro["bulk"], unit, at_least=5.0, **conditions)


def count_bytes(name: str, folder: IndexFolder, queries: Floats, **conditions: object) -> None:
    """Bytes fetched from the device for one pass, to the bytes of the lists that any query wants."""
    lists = InvertedLists(folder.faiss_index(), folder.path)
    wanted = np.unique(folder.faiss_index().quantizer.search(queries, NPROBE)[1])
    descriptor = os.open(folder.path, os.O_RDONLY)
    os.fsync(descriptor)
    os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    os.close(descriptor)
    before = fetched_bytes()
    for _ in bulk_query(folder, queries, 40, nprobe=NPROBE, columns=()):
        pass
    value = (fetched_bytes() - before) / lists.bytes_of(wanted)
    touched = {"lists": len(wanted), "lists_bytes": lists.bytes_of(wanted), "queries": len(queries)}
    report(f"bytes_read_{name}", value, "x bytes of the lists touched", at_most=1.05, **touched, **conditions)


def fetched_bytes() -> int:
    """What the device has given this process so far; what lay in the page cache doesn't count."""
    lines = Path("/proc/self/io").read_text(encoding="ascii").splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith("read_bytes:")))


def in_bulk(folder: IndexFolder, queries: Floats, k: int, columns: tuple[str, ...]) -> np.ndarray:
    """Rows (q, k) by the bulk call."""
    rows = np.full((len(queries), k), -1, dtype=np.int64)
    for answers in bulk_query(folder, queries, k, nprobe=NPROBE, columns=columns):
        table = answers.neighbours
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
