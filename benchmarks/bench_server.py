"""What the server adds to FAISS: CPU and requests a second over HTTP, beside FAISS alone in the same run.

One index file and the same search parameters for both. The server is a process of its own, its CPU time is
read from the system; clients are threads of this one, so that requests a second are a lower bound.
"""

import argparse
import os
import re
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import numpy as np
import orjson
import pyarrow as pa

from benchmarks.report import report
from index_builder.faiss_library import load_faiss
from index_builder.index_folder import IndexFolder
from index_builder.metadata_rows import write_metadata
from spine.protocol import RetrievalClient

D, NPROBE = 768, 96  # of 4 sqrt(n) lists: enough for 3,000 results
SIZES = ((40, 40, False), (200, 200, False), (40, 3000, True))
_START = """
from pathlib import Path
from retrieval_server.serving import serve
from retrieval_server.settings import IndexSettings, ServerSettings
import sys
folder, port = Path(sys.argv[1]), int(sys.argv[2])
serve(ServerSettings(indices=(IndexSettings(name="pool", folder=folder, memory_map=False),)), port=port)
"""


def main() -> None:
    """Build an index, then measure single requests and batches."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--quick", action="store_true")
    quick = parser.parse_args().quick
    n, seconds = (50_000, 4.0) if quick else (1_000_000, 10.0)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "pool"
        queries = build(folder, n)
        process, address = start(folder)
        try:
            for num_images, k, deduplicate in SIZES:
                single(folder, address, process.pid, queries, n, num_images, k, deduplicate, seconds)
            batch(folder, address, queries, n)
        finally:
            process.terminate()
            process.wait(30)


def build(folder: Path, n: int) -> np.ndarray:
    """Write an index of n clustered vectors; 1,000 held-out queries."""
    faiss = load_faiss()
    generator = np.random.default_rng(0)
    centres = generator.standard_normal((500, D), dtype=np.float32)

    def draw(count: int) -> np.ndarray:
        rows = centres[generator.integers(500, size=count)]
        rows = rows + 0.8 * generator.standard_normal((count, D), dtype=np.float32)
        return rows / np.linalg.norm(rows, axis=1, keepdims=True)

    index = faiss.index_factory(D, f"IVF{int(4 * n**0.5)},SQ8", faiss.METRIC_INNER_PRODUCT)
    index.cp.niter = 5
    index.train(draw(min(n, 40_000)))
    for start_row in range(0, n, 50_000):
        index.add(draw(min(50_000, n - start_row)))
    index.nprobe = NPROBE
    folder.mkdir()
    faiss.write_index(index, str(folder / "image.index"))
    columns = {
        "url": [f"https://pictures.example/{row:012d}.jpg" for row in range(n)],
        "caption": [f"a picture with the number {row} and some words about it" for row in range(n)],
        "width": np.arange(n) % 2000,
        "height": np.arange(n) % 1500,
        "NSFW": ["UNLIKELY"] * n,
        "punsafe": generator.random(n, dtype=np.float32),
        "pwatermark": generator.random(n, dtype=np.float32),
        "aesthetic": generator.random(n, dtype=np.float32),
        "similarity": generator.random(n, dtype=np.float32),
    }
    write_metadata(folder / "metadata" / "0.arrow", pa.table(columns))
    return draw(1000)


def start(folder: Path) -> tuple["subprocess.Popen[str]", str]:
    """Start the server in a process of its own; it and its address."""
    command = [sys.executable, "-c", _START, str(folder), "0"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    for line in process.stderr:
        if found := re.search(r"serving on (http://\S+)", line):
            threading.Thread(target=process.stderr.read, daemon=True).start()
            return process, found[1]
    raise SystemExit("the server did not start")


def single(
    folder: Path,
    address: str,
    pid: int,
    queries: np.ndarray,
    n: int,
    num_images: int,
    k: int,
    deduplicate: bool,
    seconds: float,
) -> None:
    """Closed loop of 1 and 16 clients; CPU a request beside FAISS's own."""
    faiss_ms = faiss_cpu_ms(folder, queries, k, reconstruct=deduplicate)
    bodies = [
        orjson.dumps(
            {
                "embedding_input": query.tolist(),
                "num_images": num_images,
                "num_result_ids": k,
                "deduplicate": deduplicate,
                "modality": "image",
                "indice_name": "pool",
            }
        )
        for query in queries
    ]
    for clients in (1, 16):
        ask(address, bodies, clients, 0.5)
        before = cpu_s(pid)
        times = ask(address, bodies, clients, seconds)
        cpu_ms = (cpu_s(pid) - before) * 1000 / len(times)
        conditions = {
            "n": n,
            "d": D,
            "k": k,
            "num_images": num_images,
            "deduplicate": deduplicate,
            "clients": clients,
            "nprobe": NPROBE,
            "index": "IVF,SQ8",
            "load": round(os.getloadavg()[0], 1),
        }
        name = f"{num_images}_{k}_{clients}"
        goal = {40: 1.0, 200: 2.0, 3000: 30.0}[k]
        report(
            f"server_cpu_over_faiss_{name}",
            cpu_ms - faiss_ms,
            "ms",
            at_most=goal,
            faiss_ms=faiss_ms,
            **conditions,
        )
        report(f"server_requests_{name}", len(times) / seconds, "1/s", **conditions)
        p50, p99 = np.percentile(times, [50, 99]) * 1000
        report(f"server_p99_{name}", p99, "ms", p50_ms=float(p50), **conditions)


def faiss_cpu_ms(folder: Path, queries: np.ndarray, k: int, *, reconstruct: bool) -> float:
    """CPU of one search, one thread, one query a call; with the vectors of what is found where asked."""
    load_faiss().omp_set_num_threads(1)
    with IndexFolder.open(folder, memory_map=False) as index:
        index.search(queries[:5], k)
        start_s = time.process_time()
        for query in queries[:200]:
            _, rows = index.search(query[None], k)
            assert (rows >= 0).all(), "fewer rows than asked for: more lists must be searched"
            if reconstruct:
                index.reconstruct(rows[0][rows[0] >= 0])
        return (time.process_time() - start_s) * 1000 / 200


def ask(address: str, bodies: list[bytes], clients: int, seconds: float) -> list[float]:
    """Ask in a closed loop; seconds of each answer."""
    end = time.perf_counter() + seconds

    def loop(number: int) -> list[float]:
        times: list[float] = []
        with httpx.Client(base_url=address, timeout=60) as client:
            at = number * 37
            while (begin := time.perf_counter()) < end:
                response = client.post("/knn-service", content=bodies[at % len(bodies)])
                assert response.status_code == 200, response.text
                times.append(time.perf_counter() - begin)
                at += 1
        return times

    with ThreadPoolExecutor(clients) as threads:
        return [each for times in threads.map(loop, range(clients)) for each in times]


def batch(folder: Path, address: str, queries: np.ndarray, n: int) -> None:
    """1,000 queries with metadata through the client, beside FAISS's own batch search."""
    load_faiss().omp_set_num_threads(os.cpu_count() or 1)
    with IndexFolder.open(folder, memory_map=False) as index:
        index.search(queries, 40)
        begin = time.perf_counter()
        index.search(queries, 40)
        faiss_s = time.perf_counter() - begin
    with RetrievalClient(address) as client:
        client.knn_batch(queries[:10], 40)
        begin = time.perf_counter()
        table = client.knn_batch(queries, 40)
        batch_s = time.perf_counter() - begin
    assert table.num_rows == 40_000
    conditions = {
        "n": n,
        "d": D,
        "k": 40,
        "queries": 1000,
        "nprobe": NPROBE,
        "load": round(os.getloadavg()[0], 1),
    }
    report("server_batch", batch_s, "s", faiss_s=faiss_s, **conditions)


def cpu_s(pid: int) -> float:
    """User and system seconds that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


if __name__ == "__main__":
    main()
