"""Our server beside clip-retrieval 2.45 and beside FAISS alone, in one run, over the same vectors.

Both serve the same index file, the one that clip-retrieval's indexer would make; ours serves the planner's index too.
clip-retrieval runs in an environment of its own (scripts/set_up_peer.sh); where there is none, ours is measured alone.
"""

import argparse
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import orjson
import pyarrow as pa

from benchmarks.closed_loop import Load, load, post, resident_bytes
from benchmarks.report import report
from benchmarks.served_pool import COLUMNS, K, ServedPool, build, indices_paths, recall_at_k
from index_builder.indexing.index_file import INDEX_FILE, read_index
from index_builder.metadata.metadata_rows import MetadataRows
from index_builder.metadata.one_batch import open_metadata, write_one_batch
from index_builder.numerics.faiss_library import load_faiss
from spine.protocol import RetrievalClient
from tests.peer.servers import ROOT, Server, running_ours, running_peer

CLIENTS = 16
_BATCHES = 7
PROCESSES = max(
    1, (os.cpu_count() or 1) // 2
)  # of two searching threads each: connections aren't dealt out evenly
COPIES = "1GB"  # that the same index file may take besides, for its one-byte codes: n·d, 154 MB and 768 MB
SIZES = {"40_40": (40, 40, False), "200_200": (200, 200, False), "40_3000_dedup": (40, 3000, True)}
OVER_FAISS_MS = {"40_40": 1.0, "200_200": 2.0, "40_3000_dedup": 30.0}
TIMES_PARQUET = {"40_40": 10.0, "200_200": 10.0, "40_3000_dedup": 4.0}
TIMES_ARROW = {"40_40": 2.5, "200_200": 2.5, "40_3000_dedup": 4.0}
PLANNED_CPU = {"40_40": 0.1, "200_200": 0.1, "40_3000_dedup": 0.2}
PLANNED_TIMES = {"40_40": 8.0, "200_200": 8.0, "40_3000_dedup": 4.0}

Loads = dict[tuple[str, str], Load]
"""By index and size."""


def main() -> None:
    """Build the indices, then measure single requests, batches, metadata and the start."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--quick", action="store_true")
    quick = parser.parse_args().quick
    n, seconds = (200_000, 3.0) if quick else (1_000_000, 10.0)
    with tempfile.TemporaryDirectory() as temporary:
        pool = build(Path(temporary), n)
        conditions = {"n": n, "d": pool.queries.shape[1], "clients": CLIENTS, "index": "HNSW32, as autofaiss"}
        peer = peer_python()
        theirs = measure_peer(peer, pool, seconds) if peer else {}
        ours = measure_ours(pool, seconds, conditions)
        compare(pool, ours, theirs, conditions)
        measure_batch(pool, peer, conditions)
        measure_metadata(pool, conditions)
        measure_codec(conditions)


def peer_python() -> str:
    """clip-retrieval's interpreter; empty where there is none."""
    found = os.environ.get("PEER_PYTHON") or str(ROOT / ".venv-peer" / "bin" / "python")
    if Path(found).exists():
        return found
    print("no clip-retrieval here (scripts/set_up_peer.sh): ours is measured alone", file=sys.stderr)
    return ""


def measure_peer(peer: str, pool: ServedPool, seconds: float) -> Loads:
    """clip-retrieval's default set-up and its best."""
    with running_peer(peer, indices_paths(pool), threads=0) as server:
        return {
            (index, size): asked(server, pool, index, size, seconds)
            for index in ("parquet", "arrow")
            for size in SIZES
        }


def measure_ours(pool: ServedPool, seconds: float, conditions: dict[str, object]) -> Loads:
    """Ours on the same file, then on the planner's index; how it starts, and what memory it takes."""
    loads: Loads = {}
    with running_ours(indices_paths(pool), "--copies", COPIES) as server:
        for size in SIZES:
            loads["arrow", size] = asked(server, pool, "arrow", size, seconds)
    for size in SIZES:  # FAISS alone under the same load: as many threads as the server has
        loads["faiss", size] = faiss_alone(pool.folder / "peer-arrow", pool, size, seconds)
    with running_run(pool):
        pass  # what is compiled is compiled: once an installation, not at each start
    with running_run(pool) as (server, boot_s):
        for size in SIZES:
            loads["planned", size] = asked(server, pool, "run", size, seconds)
        held = held_by_faiss(pool.planned)
        own = resident_bytes(server.pid, besides=pool.planned) - held  # the rest of the index is mapped
        report("server_boot", boot_s, "s", at_most=3, **conditions)
        report(
            "server_memory_over_index",
            own / 1e6,
            "MB",
            at_most=400,
            held_by_faiss_mb=held / 1e6,
            **conditions,
        )
    with running_run(pool, PROCESSES) as (server, _):
        for size in SIZES:
            loads["processes", size] = asked(server, pool, "run", size, seconds)
        own = resident_bytes(server.pid, besides=pool.planned) - PROCESSES * held
        conditions = conditions | {"processes": PROCESSES}
        report("server_processes_memory_over_index", own / 1e6, "MB", **conditions)
    return loads


def held_by_faiss(folder: Path) -> int:
    """Bytes that FAISS itself has of a mapped index: the centroids of its lists, and what queries are rotated by."""
    faiss = load_faiss()
    index = read_index(folder / INDEX_FILE, memory_map=True)
    size = 4 * faiss.extract_index_ivf(index).nlist * index.d
    if isinstance(index, faiss.IndexPreTransform):
        turn = faiss.downcast_VectorTransform(index.chain.at(0))
        size += 4 * faiss.vector_to_array(turn.A).size
    return int(size)


@contextmanager
def running_run(pool: ServedPool, processes: int = 1) -> Iterator[tuple[Server, float]]:
    """Our server over the planner's index, and the seconds until it listened."""
    paths = pool.folder / "planned.json"
    entry = {"indice_folder": str(pool.planned), "clip_model": "", "enable_faiss_memory_mapping": True}
    columns = {"columns_to_return": list(COLUMNS)}
    paths.write_bytes(orjson.dumps({"run": entry | columns}))
    begin = time.perf_counter()
    with running_ours(paths, "--processes", str(processes)) as server:
        yield server, time.perf_counter() - begin


def asked(server: Server, pool: ServedPool, index: str, size: str, seconds: float) -> Load:
    """A closed loop of CLIENTS with embedding queries of one size."""
    num_images, k, deduplicate = SIZES[size]
    fields = {"num_images": num_images, "num_result_ids": k, "deduplicate": deduplicate}
    fields |= {"modality": "image", "indice_name": index}
    requests = [
        post("/knn-service", orjson.dumps(fields | {"embedding_input": query.tolist()}))
        for query in pool.queries
    ]
    done = load(int(server.http.base_url.port or 0), server.pid, requests, CLIENTS, seconds)
    print(f"{index} {size}: {done.per_second:.1f}/s, {done.cpu_ms:.2f} CPU ms", file=sys.stderr, flush=True)
    return done


def faiss_alone(folder: Path, pool: ServedPool, size: str, seconds: float) -> Load:
    """FAISS's own part of such requests, one query a call in as many threads as the server's.

    The file as FAISS reads it; the server also moves it to huge pages.
    """
    _, k, deduplicate = SIZES[size]
    faiss = load_faiss()
    index = faiss.read_index(str(folder / INDEX_FILE))
    end = time.perf_counter() + seconds

    def loop(number: int) -> int:
        faiss.omp_set_num_threads(1)
        done = 0
        while time.perf_counter() < end:
            query = pool.queries[(number * 37 + done) % len(pool.queries)][None]
            (index.search_and_reconstruct if deduplicate else index.search)(query, k)
            done += 1
        return done

    cpu, begin = time.process_time(), time.perf_counter()
    with ThreadPoolExecutor(os.cpu_count() or 1) as threads:
        done = sum(threads.map(loop, range(os.cpu_count() or 1)))
    return Load(done, time.perf_counter() - begin, time.process_time() - cpu, [])


def compare(pool: ServedPool, ours: Loads, theirs: Loads, conditions: dict[str, object]) -> None:
    """Report ours beside FAISS and clip-retrieval."""
    recall = {name: recall_at_k(folder, pool) for name, folder in _folders(pool).items()}
    report("planned_recall_at_40", recall["planned"], "", at_least=recall["arrow"], **conditions)
    for size in SIZES:
        same, faiss, planned = ours["arrow", size], ours["faiss", size], ours["planned", size]
        measured = conditions | {"recall_at_40": recall["arrow"], "load": round(os.getloadavg()[0], 1)}
        measured |= {"copies": COPIES}
        report(
            f"server_cpu_over_faiss_{size}",
            same.cpu_ms - faiss.cpu_ms,
            "ms",
            at_most=OVER_FAISS_MS[size],
            faiss_ms=faiss.cpu_ms,
            **measured,
        )
        p50, p99 = same.percentile_ms(50), same.percentile_ms(99)
        report(f"server_p99_{size}", p99 / p50, "x p50", at_most=3, p50_ms=p50, p99_ms=p99, **measured)
        for name, goal in (("parquet", TIMES_PARQUET[size]), ("arrow", TIMES_ARROW[size])):
            if (name, size) in theirs:
                peer = theirs[name, size]
                facts = {"ours": same.per_second, "theirs": peer.per_second}
                facts |= {"our_cpu_ms": same.cpu_ms, "their_cpu_ms": peer.cpu_ms}
                facts |= {"their_p50_ms": peer.percentile_ms(50), "their_p99_ms": peer.percentile_ms(99)}
                ratio = same.per_second / peer.per_second
                unit = f"x clip-retrieval's requests/s, {name}"
                report(f"server_requests_{name}_{size}", ratio, unit, at_least=goal, **facts, **measured)
        if ("arrow", size) in theirs:
            peer = theirs["arrow", size]
            facts = {"our_recall_at_40": recall["planned"], "their_recall_at_40": recall["arrow"]}
            facts |= {"their_cpu_ms": peer.cpu_ms, "theirs": peer.per_second}
            compare_planned(f"planned_{{}}_{size}", planned, peer, size, conditions | facts)
            facts |= {"processes": PROCESSES}
            several = ours["processes", size]
            compare_planned(f"planned_processes_{{}}_{size}", several, peer, size, conditions | facts)


def compare_planned(name: str, ours: Load, peer: Load, size: str, conditions: dict[str, object]) -> None:
    """Report ours on the planner's index beside clip-retrieval's best set-up."""
    conditions = conditions | {"our_cpu_ms": ours.cpu_ms, "ours": ours.per_second}
    conditions |= {"our_p50_ms": ours.percentile_ms(50), "our_p99_ms": ours.percentile_ms(99)}
    ratio = ours.cpu_ms / peer.cpu_ms
    unit = "x clip-retrieval's CPU, arrow"
    report(name.format("cpu"), ratio, unit, at_most=PLANNED_CPU[size], **conditions)
    ratio = ours.per_second / peer.per_second
    unit = "x clip-retrieval's requests/s, arrow"
    report(name.format("requests"), ratio, unit, at_least=PLANNED_TIMES[size], **conditions)


def measure_batch(pool: ServedPool, peer: str, conditions: dict[str, object]) -> None:
    """1,000 queries x 40 with metadata: one call of ours, the median of seven, beside four clients of clip-retrieval's.

    Theirs takes seconds, in which a clock that wanders comes to its mean by itself.
    """
    queries = np.concatenate([pool.queries, pool.queries])
    with running_run(pool) as (server, _), RetrievalClient(str(server.http.base_url)) as client:
        client.knn_batch(queries, K)  # which loads what is compiled; theirs has been asked before as well
        seconds = []
        for _ in range(_BATCHES):
            begin = time.perf_counter()
            table = client.knn_batch(queries, K)
            seconds.append(time.perf_counter() - begin)
            assert table.num_rows == K * len(queries)
        batch_s = statistics.median(seconds)
    if not peer:
        report("server_batch", batch_s, "s", **conditions)
        return
    with running_peer(peer, indices_paths(pool), threads=0) as theirs:

        def ask(query: np.ndarray) -> None:
            body = {"embedding_input": query.tolist(), "num_images": K, "num_result_ids": K}
            body |= {"modality": "image", "indice_name": "arrow"}
            theirs.http.post("/knn-service", content=orjson.dumps(body)).raise_for_status()

        with ThreadPoolExecutor(4) as threads:
            list(threads.map(ask, queries[:50]))
            begin = time.perf_counter()
            list(threads.map(ask, queries))
            peer_s = time.perf_counter() - begin
    facts = {"queries": len(queries), "k": K, "our_s": batch_s, "their_s": peer_s}
    report("server_batch", batch_s / peer_s, "x clip-retrieval's time", at_most=1 / 40, **facts, **conditions)


def measure_metadata(pool: ServedPool, conditions: dict[str, object]) -> None:
    """Metadata of 40 rows, from one record batch and from thousands as LAION-5B's files have."""
    one = MetadataRows.open(pool.folder / "peer-arrow" / "metadata")
    many = pool.folder / "many" / "metadata" / "0.arrow"
    many.parent.mkdir(parents=True)
    everything = one.take(np.arange(one.n))
    with pa.ipc.new_file(str(many), everything.schema) as writer:
        writer.write_table(everything, max_chunksize=max(1, one.n // 4000))
    random = np.random.default_rng(0)
    wanted = [random.integers(one.n, size=40) for _ in range(500)]
    thousands = MetadataRows.open(many.parent)
    write_one_batch(many.parent)
    for name, rows, goal in (
        ("one", one, 100),
        ("4000", thousands, None),
        ("4000_put_together", open_metadata(many.parent), 100),
    ):
        for each in wanted[:50]:
            rows.take(each)
        begin = time.process_time()
        for each in wanted:
            rows.take(each)
        taken = (time.process_time() - begin) / len(wanted)
        report(f"metadata_40_rows_{name}", taken * 1e6, "us", at_most=goal, columns=12, **conditions)


def measure_codec(conditions: dict[str, object]) -> None:
    """A batch's way in and out: 1,000 x 768 as .npy, 1,000 x 100 rows of ids and similarities as Arrow."""
    from retrieval_server.bodies import arrow_stream, parse_npy
    from spine.protocol import npy

    queries = np.random.default_rng(0).random((1000, 768), dtype=np.float32)
    table = pa.table({name: np.arange(100_000) for name in ("query", "rank", "id", "similarity")})
    begin = time.process_time()
    for _ in range(50):
        parse_npy(npy(queries), 768)
        pa.ipc.open_stream(arrow_stream(table)).read_all()
    report("batch_codec", (time.process_time() - begin) / 50 * 1000, "ms", at_most=1, **conditions)


def _folders(pool: ServedPool) -> dict[str, Path]:
    return {"arrow": pool.folder / "peer-arrow", "planned": pool.planned}


if __name__ == "__main__":
    main()
