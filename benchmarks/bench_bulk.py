"""Centroid queries in bulk: beside FAISS one by one, faiss.contrib.big_batch_search and the real clip-retrieval.

Same file, same nprobe, same k, in turn. Warm is CPU time of one thread with everything in memory. Cold is wall time,
see `benchmarks.bulk_cold`. clip-retrieval runs in an environment of its own, PEER_PYTHON or .venv-peer of `make peer`;
without one its figures are left out.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Hashable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import numpy as np

from benchmarks.bulk_cold import cold
from benchmarks.bulk_indices import COLUMNS, KINDS, NPROBE, Pool, build, evict, for_the_peer, in_bulk
from benchmarks.bulk_plot import cost_plot
from benchmarks.closed_loop import cpu_s
from benchmarks.drawn_vectors import Floats
from benchmarks.report import report
from index_builder.bulk_query import explain
from index_builder.indexing.candidate_ranking import ranked_exactly
from index_builder.indexing.index_folder import INDEX_FILE, IndexFolder
from index_builder.lists.inverted_lists import InvertedLists
from index_builder.metadata.predicates import Predicate, rows_that_pass
from index_builder.numerics.faiss_library import load_faiss
from index_builder.numerics.matrix_threads import one_matrix_thread
from index_builder.retrieval.pools import IndexPool, Question
from spine.settings import AestheticMin, FiltersConfig

PEER_K = 40
PEER_KIND, PEER_GOALS = "SQ8", ((0.96, 65.0), (0.99, 50.0))
"""Beside clip-retrieval: its codes; and recall that is to be reached, and how many times as fast."""
PROBES = (*range(8, 32, 2), *range(32, 64, 4), 64, 80, 96, 128)
ROOT = Path(__file__).resolve().parents[1]

Way = TypeVar("Way", bound=Hashable)


def main() -> None:
    """Build one pool in every code, and ask it in every way."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--plot", type=Path, help="write the cost per centroid to this SVG file")
    parser.add_argument("--memory", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.memory is not None:
        print(peak_memory(given.memory))
        return
    n, q, nlist = (200_000, 4_000, 1_024) if given.quick else (1_000_000, 10_000, 4_096)
    with tempfile.TemporaryDirectory() as temporary:
        pool = build(Path(temporary), n, 768, q, nlist)
        with one_thread():
            for kind in KINDS:
                for k in (40, 100):
                    warm(pool, kind, k)
            if not given.quick:
                warm(pool, "SQ8", 1_000)
            filtered(pool)
            curve(pool, given.plot)
        cold(pool)
        for kind in ("SQ8", "PQ"):
            count_bytes(pool, kind)
        memory(pool)
        against_peer(pool)


@contextmanager
def one_thread() -> Iterator[None]:
    """FAISS, NumPy and torch work with one thread inside."""
    threads = load_faiss().omp_get_max_threads()
    load_faiss().omp_set_num_threads(1)
    with one_matrix_thread():
        yield
    load_faiss().omp_set_num_threads(threads)


def by_faiss_ranked(index: IndexFolder, one: Floats, depth: int, k: int, parameters: Any) -> object:
    """FAISS's candidates of one query, ranked as ours are."""
    near, rows = index.faiss_index().search(one, depth, params=parameters)
    return ranked_exactly(one, rows, near, index.exact_vectors, k)


def warm(pool: Pool, kind: str, k: int) -> None:
    """CPU time of a query by each way, the better of two; one query at a time 300 stand for all."""
    with pool.open(kind) as index:
        raw, some = index.faiss_index(), pool.queries[:: len(pool.queries) // 300]
        single = load_faiss().SearchParametersIVF(nprobe=NPROBE)
        if kind == "RaBitQ":
            single = load_faiss().SearchParametersPreTransform(index_params=single)
        ways: dict[str, tuple[Floats, Callable[[Floats], object]]] = {
            "faiss_single": (some, lambda asked: [raw.search(one[None], k, params=single) for one in asked]),
            "folder_single": (
                some,
                lambda asked: [index.search(one[None], k, nprobe=NPROBE) for one in asked],
            ),
            "faiss_batch": (pool.queries[:1_000], lambda asked: raw.search(asked, k, params=single)),
            "bulk": (pool.queries, lambda asked: in_bulk(index, asked, k)),
            "bulk_with_metadata": (pool.queries, lambda asked: in_bulk(index, asked, k, COLUMNS)),
        }
        if index.exact_vectors is not None:  # then what FAISS finds must be ranked on the vectors as well
            depth = index.depth(k)
            ways["faiss_ranked"] = (
                some,
                lambda asked: [by_faiss_ranked(index, one[None], depth, k, single) for one in asked],
            )
        micro = spent_us(ways)
        base = "faiss_single" if index.exact_vectors is None else "faiss_ranked"
        report(
            f"bulk_speedup_{kind}_k{k}",
            micro[base] / micro["bulk"],
            f"x {base} (one query at a time), CPU seconds",
            at_least=5.0,
            k=k,
            nprobe=NPROBE,
            threads=1,
            recall_at_k=recall(in_bulk(index, pool.queries[:500], k), pool.exact[:, :k])
            if k <= 100
            else None,
            cpu_us_a_query=micro,
            plan=explain(index, len(pool.queries), k, NPROBE),
            load=round(os.getloadavg()[0], 1),
            **pool.sizes,
        )


def spent_us(ways: Mapping[Way, tuple[Floats, Callable[[Floats], object]]]) -> dict[Way, float]:
    """Microseconds of CPU a query by each way, the better of two, taken in turns: the clock of a VM wanders."""
    best = dict.fromkeys(ways, np.inf)
    for _ in range(2):
        for name, (asked, ask) in ways.items():
            start = time.process_time()
            ask(asked)
            best[name] = min(best[name], (time.process_time() - start) / len(asked) * 1e6)
    return {name: round(spent, 1) for name, spent in best.items()}


def recall(rows: np.ndarray, exact: np.ndarray) -> float:
    """Share of the exact nearest that were found."""
    found = [len(np.intersect1d(a, b)) / len(b) for a, b in zip(rows, exact, strict=False)]
    return round(float(np.mean(found)), 4)


def filtered(pool: Pool) -> None:
    """1 % of the rows pass: time to that of everything, k filled, recall; and what asking ten times as deep fills."""
    predicate = Predicate(
        filters=FiltersConfig(
            min_side_px=0, pwatermark_max=None, aesthetic_min=AestheticMin(value=9.9), unknown="drop"
        )
    )
    k = 100
    with pool.open("SQ8") as index:
        mask = rows_that_pass(index.rows, predicate)
        rows = mask.rows(0, mask.n)
        ways: dict[str, tuple[Floats, Callable[[Floats], object]]] = {
            "filtered": (
                pool.queries,
                lambda asked: in_bulk(index, asked, k, mask=rows_that_pass(index.rows, predicate)),
            ),
            "unfiltered": (pool.queries, lambda asked: in_bulk(index, asked, k)),
        }
        spent = spent_us(ways)
        found = in_bulk(index, pool.queries[:500], k, mask=mask)
        nearest = np.argsort(-(pool.queries[:500] @ pool.vectors[rows].T), axis=1)[:, :k]
        deep = in_bulk(index, pool.queries[:500], 10 * k)
    left = np.where(deep >= 0, mask.has(np.maximum(deep, 0)), False).sum(axis=1)
    conditions = {
        "k": k,
        "nprobe": NPROBE,
        "passing": mask.count,
        "filled": round(float((found >= 0).mean()), 4),
        "recall_at_k": recall(found, rows[nearest]),
        "filled_by_asking_10_times_as_deep": round(float(np.minimum(left, k).mean() / k), 4),
        "cpu_us_a_query": spent,
    }
    report(
        "bulk_filtered_1_percent",
        spent["filtered"] / spent["unfiltered"],
        "x unfiltered, CPU seconds",
        at_most=3.0,
        **conditions,
        **pool.sizes,
    )
    report("bulk_filtered_filled", conditions["filled"], "of the k that exist", at_least=1.0, **conditions)


def one_by_one(index: IndexFolder, queries: Floats) -> None:
    """FAISS's own search, a query a call, k = 100."""
    single = load_faiss().SearchParametersIVF(nprobe=NPROBE)
    for query in queries:
        index.faiss_index().search(query[None], 100, params=single)


def curve(pool: Pool, plot: Path | None) -> None:
    """CPU time of a centroid when 100 to 10,000 are asked together."""
    random = np.random.default_rng(3)
    many = pool.queries[random.integers(len(pool.queries), size=10_000)]
    many = many + 0.02 * random.standard_normal(many.shape).astype(np.float32)
    many /= np.linalg.norm(many, axis=1, keepdims=True)
    costs: dict[str, dict[int, float]] = {}
    for kind in ("SQ8", "PQ"):
        with pool.open(kind) as index:
            ways: dict[int, tuple[Floats, Callable[[Floats], object]]] = {
                q: (many[:q], partial(in_bulk, index, k=100)) for q in (100, 300, 1_000, 3_000, 10_000)
            }
            together = spent_us(ways | {1: (many[:300], partial(one_by_one, index))})
        alone = together.pop(1)
        costs[f"{kind}, FAISS one by one"] = dict.fromkeys((100, 10_000), alone)
        costs[f"{kind}, together"] = together
        report(
            f"bulk_cost_falls_{kind}",
            together[100] / together[10_000],
            "x as much CPU a centroid for 100 as for 10,000",
            at_least=1.0,
            k=100,
            nprobe=NPROBE,
            threads=1,
            cpu_us_a_centroid=together,
            faiss_single_us=alone,
            **{name: pool.sizes[name] for name in ("n", "d", "nlist")},
        )
    if plot is not None:
        n, d = pool.vectors.shape
        plot.write_text(cost_plot(costs, f"{n:,} x {d}, {pool.nlist:,} lists, nprobe {NPROBE}, k = 100"))


def count_bytes(pool: Pool, kind: str) -> None:
    """Bytes fetched from the device for one pass, to the bytes of the lists that any query wants."""
    with pool.open(kind, memory_map=True) as index:
        lists = InvertedLists(index.faiss_index(), index.path)
        wanted = np.unique(index.faiss_index().quantizer.search(pool.queries, NPROBE)[1])
        evict(index.path)
        before = fetched_bytes()
        in_bulk(index, pool.queries, 40)
        value = (fetched_bytes() - before) / lists.bytes_of(wanted)
    touched = {"lists": len(wanted), "lists_bytes": lists.bytes_of(wanted), "nprobe": NPROBE}
    report(f"bulk_bytes_{kind}", value, "x bytes of the lists touched", at_most=1.05, **touched, **pool.sizes)


def fetched_bytes() -> int:
    """What the device has given this process so far; what lay in the page cache doesn't count."""
    lines = Path("/proc/self/io").read_text(encoding="ascii").splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith("read_bytes:")))


def memory(pool: Pool) -> None:
    """Peak memory of a process that asks for 10,000 x 3,000 neighbours with metadata, index on disk."""
    command = [sys.executable, "-m", "benchmarks.bench_bulk", "--memory", str(pool.folder / "SQ8")]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT)
    value = float(done.stdout.split()[-1])
    conditions = {name: pool.sizes[name] for name in ("n", "d", "nlist")}
    report("bulk_peak_memory", value, "GB", at_most=4.0, k=3_000, queries=10_000, nprobe=NPROBE, **conditions)


def peak_memory(folder: Path) -> float:
    """GB that this process had at most.

    Not as getrusage tells it: there a process begins with what the one that started it has.
    """
    with IndexPool(folder) as source:
        d = source.d or 0
        queries = np.random.default_rng(0).standard_normal((10_000, d)).astype(np.float32)
        queries /= np.linalg.norm(queries, axis=1, keepdims=True)
        for _ in source.search(queries, Question(k=3_000, nprobe=NPROBE, columns=COLUMNS)):
            pass
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith("VmHWM:"))) * 1024 / 1e9


def against_peer(pool: Pool) -> None:
    """Wall time for all queries, 40 results with metadata, everything in memory, beside clip-retrieval's.

    For each goal all codes are tried and the fastest that reach its recall are taken; clip-retrieval has PEER_KIND at
    the nprobe where its recall reaches the lower one.
    """
    peer = os.environ.get("PEER_PYTHON", str(ROOT / ".venv-peer" / "bin" / "python"))
    if not Path(peer).is_file():
        print(f"no {peer}: `make peer` makes it, or PEER_PYTHON names one; left out", file=sys.stderr)
        return
    ways = {least: [together(pool, kind, least) for kind in KINDS] for least, _ in PEER_GOALS}
    its_nprobe = next(way["nprobe"] for way in ways[PEER_GOALS[0][0]] if way and way["kind"] == PEER_KIND)
    theirs = theirs_one_by_one(pool, peer, its_nprobe)
    for least, goal in PEER_GOALS:
        reached = [way for way in ways[least] if way]
        own = min(reached, key=lambda way: float(way["wall_s"]))
        report(
            f"bulk_warm_clip_retrieval_recall_{least}",
            theirs["wall_s"] / own["wall_s"],
            f"x clip-retrieval 2.45 ({PEER_KIND}, Arrow, four clients), wall, at recall@40 of at least {least}",
            at_least=goal,
            k=PEER_K,
            bulk=own,
            others=[way for way in reached if way is not own],
            clip_retrieval=theirs,
            threads=os.cpu_count(),
            load=round(os.getloadavg()[0], 1),
            **pool.sizes,
        )


def together(pool: Pool, kind: str, least: float) -> dict[str, Any] | None:
    """The smallest nprobe that reaches a recall, and what all queries take with it, the fastest of three.

    None where the codes don't reach it.
    """
    with pool.open(kind) as index:
        for nprobe in PROBES:
            reached = recall(
                in_bulk(index, pool.queries[:500], PEER_K, nprobe=nprobe), pool.exact[:, :PEER_K]
            )
            if reached >= least:
                break
        else:
            return None
        took = []
        for _ in range(3):  # the first as their server, which has been started and asked before
            begin, before = time.perf_counter(), time.process_time()
            in_bulk(index, pool.queries, PEER_K, COLUMNS, nprobe=nprobe)
            took.append((time.perf_counter() - begin, time.process_time() - before))
    wall_s, spent_s = min(took)
    return {"kind": kind, "nprobe": nprobe, "recall_at_k": reached, "wall_s": wall_s, "cpu_s": spent_s}


def theirs_one_by_one(pool: Pool, peer: str, nprobe: int) -> dict[str, Any]:
    """What clip-retrieval takes for all queries, from 800 of them."""
    from tests.peer.servers import running_peer

    some = pool.queries[:: max(1, len(pool.queries) // 800)]
    file = pool.folder / PEER_KIND / INDEX_FILE
    index = load_faiss().read_index(str(file))
    index.nprobe = nprobe  # clip-retrieval takes it from the file
    load_faiss().write_index(index, str(file))
    del index
    with running_peer(peer, for_the_peer(pool, PEER_KIND, pool.folder / "peer"), threads=1) as server:

        def ask(query: Floats) -> list[int]:
            body = {
                "embedding_input": query.tolist(),
                "modality": "image",
                "num_images": PEER_K,
                "num_result_ids": PEER_K,
                "indice_name": "pool",
                "deduplicate": False,
                "use_safety_model": False,
                "use_violence_detector": False,
            }
            return [
                row["id"] for row in server.http.post("/knn-service", json=body).raise_for_status().json()
            ]

        ask(some[0])
        with ThreadPoolExecutor(4) as clients:
            begin, before = time.perf_counter(), cpu_s(server.pid)
            found = list(clients.map(ask, some))
            share = len(some) / len(pool.queries)
            wall_s, spent_s = (time.perf_counter() - begin) / share, (cpu_s(server.pid) - before) / share
    padded = np.array([rows + [-1] * (PEER_K - len(rows)) for rows in found])
    numbers = np.arange(len(pool.queries))[:: max(1, len(pool.queries) // 800)]
    inside = numbers < len(pool.exact)
    return {
        "nprobe": nprobe,
        "from_queries": len(some),
        "recall_at_k": recall(padded[inside], pool.exact[numbers[inside], :PEER_K]),
        "wall_s": wall_s,
        "server_cpu_s": spent_s,
    }


if __name__ == "__main__":
    main()
