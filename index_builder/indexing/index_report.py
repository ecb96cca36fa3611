"""What an index finds and what it costs, measured on itself: pictures of the pool ask for their neighbours.

The truth is an exact search over all vectors. A picture doesn't count as its own neighbour, and a neighbour as near as
the last of the exact ones counts as one of them: where pictures repeat, one is as right as the other.

Where candidates of coarse codes are ranked on the vectors themselves, more lists with fewer candidates may find as much
as fewer lists with more. Each nprobe is measured with the least over-fetch that is enough, and the cheapest of these
pairs is chosen: by what they cost in codes scanned, not by the clock, which would choose another every day.
"""

import time
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from index_builder.indexing.candidate_ranking import candidates_for, in_order
from index_builder.indexing.index_folder import IndexFolder
from index_builder.numerics.faiss_library import load_faiss
from index_builder.numerics.gpu import nearest
from index_builder.numerics.stored_vectors import StoredVectors
from spine.progress import SILENT, Progress
from spine.tables import Vectors

QUERIES = 256
"""Pictures of the pool that ask."""

DEPTH = 100
"""Neighbours that they ask for."""

_EQUAL = 1e-5  # similarities nearer to each other are one to float32
_NPROBE_MAX = 4_096
_FINE = 64  # from this nprobe on the steps are smaller
_BEYOND = 2  # steps measured beyond the one that is enough: with fewer candidates they may cost less

_OVER_FETCHES = (1, 1.25, 1.5, 2, 2.5, 3, 4, 5, 6, 7, 8, 10, 12, 16)
_NEARLY = 0.001  # of recall that candidates may lose, where the lists don't hold what was wanted

# One query on one thread of a Zen 4, RaBitQ of 768 dimensions, 256 to 2,048 lists of 200,000: 0.013 µs a code, 1.9 to
# 2.7 µs a list, 0.72 to 0.79 µs a candidate (fitted to 48 pairs by FAISS's scan, to 4 % on average). By ours, with
# lists of 98 codes, before these lay in blocks and candidates were left out, 2.8 µs a list with its codes and 0.6 µs a
# candidate: as much to each other.
_LIST_CODES, _CANDIDATE_CODES = 160, 55

Rows = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Step:
    """What searches with one nprobe find."""

    nprobe: int
    """0 for an index without lists."""
    over_fetch: float
    """Candidates a neighbour that are ranked on the vectors themselves; 0 where none are."""
    recall_at_10: float
    recall_at_100: float
    queries_per_s: float
    """All queries at once, with as many threads as FAISS has."""
    cpu_ms_per_query: float


@dataclass(frozen=True, slots=True)
class Measured:
    """What an index finds with each nprobe that was tried."""

    steps: list[Step]
    """By rising nprobe; empty where there is no neighbour to find."""
    chosen: int
    """Which of them is the cheapest that is enough, or where none is, the first nearly as good as any."""
    enough: bool
    """Whether it reaches the recall that was wanted."""
    queries: int
    depth: int
    """Neighbours asked for: 100, or all others of a smaller pool."""

    @property
    def nprobe(self) -> int:
        """The nprobe to search with; 0 where nothing was measured or there are no lists."""
        return self.steps[self.chosen].nprobe if self.steps else 0

    @property
    def over_fetch(self) -> float:
        """Candidates a neighbour to rank; 0 where nothing was measured or none are ranked."""
        return self.steps[self.chosen].over_fetch if self.steps else 0.0

    def as_json(self, wanted: float) -> dict[str, Any]:
        """For index_report.json."""
        best = self.steps[self.chosen] if self.steps else None
        return {
            "queries": self.queries,
            "k": self.depth,
            "recall_wanted": wanted,
            "recall_reached": self.enough,
            "recall_at_10": best and round(best.recall_at_10, 4),
            "recall_at_100": best and round(best.recall_at_100, 4),
            "queries_per_s": best and round(best.queries_per_s, 1),
            "cpu_ms_per_query": best and round(best.cpu_ms_per_query, 3),
            "by_nprobe": [
                {name: round(value, 4) for name, value in asdict(step).items()} for step in self.steps
            ],
        }


def measure(
    index: IndexFolder, vectors: StoredVectors, wanted: float, progress: Progress = SILENT
) -> Measured:
    """Search with rising nprobe until recall@100 is what was wanted, each with no more candidates than it needs.

    Reads all vectors once. The same index gives the same recall again; speeds are of this machine, now.

    Args:
        index: What was built.
        vectors: All that is in it, in its order.
        wanted: Recall, 0 to 1.
        progress: Told where the recall isn't reached.
    """
    n, depth = vectors.n, min(DEPTH, vectors.n - 1)
    if depth < 1:
        return Measured([], 0, True, 0, 0)
    own = np.sort(np.random.default_rng(0).choice(n, size=min(QUERIES, n), replace=False)).astype(np.int64)
    queries = vectors[own]
    exact, least = _exact(queries, own, vectors, depth)
    steps: list[Step] = []
    reached: list[int] = []
    for nprobe in _ladder(index.nlist):
        over_fetch = _over_fetch(index, queries, exact, wanted, nprobe)
        steps.append(_step(index, vectors, queries, own, least, nprobe, over_fetch))
        if steps[-1].recall_at_100 >= wanted:
            reached.append(len(steps) - 1)
        if len(reached) > _BEYOND:
            break
    recalls = [step.recall_at_100 for step in steps]
    enough = bool(reached)
    if enough:
        chosen = min(reached, key=lambda i: _cost(index, steps[i], depth))
    else:
        chosen = next(i for i, recall in enumerate(recalls) if recall >= max(recalls) - 0.002)
    if not enough:
        progress.say(
            f"[index] recall = {wanted:g} isn't reached: these codes find {max(recalls):.3f} of the {depth} nearest"
            f" at most; more [index] memory_budget gives finer ones"
        )
    return Measured(steps, chosen, enough, len(own), depth)


def _ladder(nlist: int) -> list[int]:
    """1, 2, 3, 4, 6, 8, 12 and on to 64, 80, 96, 112, 128 and on to all lists, 4,096 at most; 0 without lists."""
    if not nlist:
        return [0]
    top = min(nlist, _NPROBE_MAX)
    powers = [2**i for i in range(top.bit_length())]
    between = {
        power * quarters // 4
        for power in powers
        for quarters in ((4, 5, 6, 7) if power >= _FINE else (4, 6))
        if power * quarters // 4 <= top
    }
    return sorted(between | {top})


def _over_fetch(index: IndexFolder, queries: Vectors, exact: Rows, wanted: float, nprobe: int) -> float:
    """The least over-fetch whose candidates hold what is wanted of the exact neighbours (q, depth), or nearly all."""
    if not index.over_fetch:
        return 0.0
    k = exact.shape[1] + 1  # each query finds itself
    candidates = in_order(*index.candidates(queries, k, nprobe=nprobe, over_fetch=_OVER_FETCHES[-1]))[1]
    right = np.stack([np.isin(found, known) for found, known in zip(candidates, exact, strict=True)])
    recalls = right.sum(axis=0).cumsum() / exact.size  # by the number of candidates
    held = [float(recalls[min(candidates_for(k, each), len(recalls)) - 1]) for each in _OVER_FETCHES]
    least = min(wanted, held[-1] - _NEARLY)
    return next(each for each, recall in zip(_OVER_FETCHES, held, strict=True) if recall >= least)


def _cost(index: IndexFolder, step: Step, depth: int) -> float:
    """Of a search, in codes scanned."""
    lists = step.nprobe * (_LIST_CODES + index.n / max(1, index.nlist))
    return lists + _CANDIDATE_CODES * candidates_for(depth, step.over_fetch)


def _exact(
    queries: Vectors, own: Rows, vectors: StoredVectors, depth: int
) -> tuple[Rows, dict[int, npt.NDArray[np.float32]]]:
    """Rows of the exact neighbours (q, depth), and the similarity of the 10th (or last) and the last of each, by k."""
    faiss = load_faiss()
    # One more than asked for, since each finds itself.
    heap = faiss.ResultHeap(len(queries), depth + 1, keep_max=True)
    for first, block in vectors.blocks():
        k = min(depth + 1, len(block))
        similarities, rows = nearest(queries, block, k, faiss.METRIC_INNER_PRODUCT)
        heap.add_result(similarities, rows + first)
    heap.finalize()
    others = np.where(own[:, None] == heap.I, -np.inf, heap.D)
    order = np.argsort(-others, axis=1, kind="stable")[:, :depth]
    others = np.take_along_axis(others, order, axis=1)
    return np.take_along_axis(heap.I, order, axis=1), {k: others[:, k - 1] for k in {min(10, depth), depth}}


def _step(
    index: IndexFolder,
    vectors: StoredVectors,
    queries: Vectors,
    own: Rows,
    least: dict[int, npt.NDArray[np.float32]],
    nprobe: int,
    over_fetch: float,
) -> Step:
    depth = max(least)
    wall, cpu = time.perf_counter(), time.process_time()
    _, rows = index.search(queries, depth + 1, nprobe=nprobe, over_fetch=over_fetch)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    there = (rows >= 0) & (rows != own[:, None])
    numbers = np.unique(rows[there])
    stored = vectors[numbers]
    recalls = {}
    for k, bound in least.items():
        found = 0
        for i in range(len(queries)):
            near = rows[i][there[i]][:k]
            similarities = stored[np.searchsorted(numbers, near)] @ queries[i]
            found += int(np.count_nonzero(similarities >= bound[i] - _EQUAL))
        recalls[k] = found / (k * len(queries))
    return Step(
        nprobe,
        over_fetch,
        recalls[min(recalls)],
        recalls[depth],
        len(queries) / max(wall, 1e-9),
        1_000 * cpu / len(queries),
    )
