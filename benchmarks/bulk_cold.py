"""Centroid queries in bulk of an index that memory doesn't hold, beside FAISS's two ways; a process of its own.

Where a control group can limit the memory of the process, to half of the index at most, it does; otherwise the index's
pages are put out of the cache before each way. Either is said.
"""

import json
import math
import mmap
import os
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import redirect_stdout
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import numpy as np

from benchmarks.bulk_indices import COLUMNS, NPROBE, Pool, evict, in_bulk
from benchmarks.drawn_vectors import Floats
from benchmarks.memory_group import join, memory_group
from benchmarks.report import report
from index_builder.indexing.index_folder import INDEX_FILE, IndexFolder
from index_builder.numerics.faiss_library import load_faiss

K, FEW = 100, 12
ROOM = 1.2e9
"""Bytes that a process needs beside an index: libraries, lists put off, queries and results."""
ROOT = Path(__file__).resolve().parents[1]


def cold(pool: Pool) -> None:
    """Wall time of all queries, k = 100 with metadata, none of the index in memory at the start."""
    half = (pool.folder / "Flat" / INDEX_FILE).stat().st_size // 2
    kind = "Flat" if half >= ROOM else "SQ8"
    queries = pool.folder / "queries.npy"
    np.save(queries, pool.queries)
    command = [sys.executable, "-m", "benchmarks.bulk_cold", str(pool.folder / kind), str(queries)]
    with memory_group(half) as group:
        limited = group is not None and kind == "Flat"
        done = subprocess.run(
            [*command, str(group)] if limited else command, stdout=subprocess.PIPE, check=True, cwd=ROOT
        )
    measured = json.loads(done.stdout.splitlines()[-1])
    took = measured["wall_s"]
    conditions = {
        "kind": kind,
        "k": K,
        "nprobe": NPROBE,
        "threads": os.cpu_count(),
        **measured,
        "with": "metadata",
        "one_by_one_from_queries": FEW,
        "memory_limit_bytes": half if limited else None,
        "evicted": "posix_fadvise",
        "load": round(os.getloadavg()[0], 1),
    }
    for name, goal in (("big_batch_search", 3.0), ("one_by_one", 30.0)):
        value = took[name] / took["bulk"]
        report(f"bulk_cold_{name}", value, f"x {name}, wall", at_least=goal, **conditions, **pool.sizes)


def main() -> None:
    """Measure each way, and print seconds as JSON."""
    folder, queries = Path(sys.argv[1]), np.load(sys.argv[2])
    if len(sys.argv) > 3:
        join(Path(sys.argv[3]))
    with IndexFolder.open(folder, check_digests=False) as index:
        in_bulk(index, queries, K, COLUMNS)  # what is loaded and made ready once is no part of it
    ways: dict[str, Callable[[IndexFolder, Floats], object]] = {
        "bulk": lambda index, asked: in_bulk(index, asked, K, COLUMNS),
        "big_batch_search": big_batch,
        "one_by_one": one_by_one,
    }
    wall_s: dict[str, float] = {}
    cpu_s: dict[str, float] = {}
    # Turn about: whoever reads a file first on a virtual machine may pay for the host's own cache.
    for name in ("bulk", "big_batch_search", "bulk", "big_batch_search", "one_by_one"):
        some = [queries] if name != "one_by_one" else queries[:: len(queries) // FEW][:FEW, None]
        wall = cpu = 0.0
        for asked in some:
            with IndexFolder.open(
                folder, check_digests=False
            ) as index:  # anew: mapped pages can't be put out
                evict(folder / INDEX_FILE)
                begin, before = time.perf_counter(), time.process_time()
                ways[name](index, asked)
                share = len(queries) / len(asked) / len(some)
                wall += (time.perf_counter() - begin) * share
                cpu += (time.process_time() - before) * share
        if wall < wall_s.get(name, math.inf):
            wall_s[name], cpu_s[name] = wall, cpu
    print(json.dumps({"wall_s": wall_s, "cpu_s": cpu_s, "disk_gb_per_s": disk_speed(folder / INDEX_FILE)}))


def disk_speed(path: Path) -> float:
    """GB a second that the disk gives at most, read from front to back past the page cache by two threads."""
    size, block = path.stat().st_size, 8 * 2**20
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECT)

    def read(first: int) -> None:
        with mmap.mmap(-1, block) as room:
            for start in range(first, size - block, 2 * block):
                os.preadv(descriptor, [room], start)

    begin = time.perf_counter()
    with ThreadPoolExecutor(2) as readers:
        list(readers.map(read, (0, block)))
    took = time.perf_counter() - begin
    os.close(descriptor)
    return size / took / 1e9


def big_batch(index: IndexFolder, queries: Floats) -> None:
    """faiss.contrib's way, then the metadata."""
    from faiss.contrib.big_batch_search import big_batch_search

    index.faiss_index().nprobe = NPROBE
    # Its search has threads of its own; with more for computation its default function doesn't work (1.15.1).
    with redirect_stdout(sys.stderr):  # it tells how far it is
        _, rows = big_batch_search(index.faiss_index(), queries, K, threaded=2, prefetch_threads=2)
    for start in range(0, len(rows), 256):
        index.metadata(rows[start : start + 256][rows[start : start + 256] >= 0], COLUMNS)


def one_by_one(index: IndexFolder, query: Floats) -> None:
    """One query through the memory map, as clip-retrieval asks it."""
    single = load_faiss().SearchParametersIVF(nprobe=NPROBE)
    _, found, _ = index.faiss_index().search_and_reconstruct(query, K, params=single)
    index.metadata(found[0][found[0] >= 0], COLUMNS)


if __name__ == "__main__":
    main()
