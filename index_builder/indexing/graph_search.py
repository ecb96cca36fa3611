"""FAISS's HNSW index searched by a kernel of ours: the same rows, for two thirds of the time."""

import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from index_builder.indexing.graph_kernel import search_graph
from index_builder.numerics.compiled import compiled
from index_builder.numerics.faiss_library import load_faiss
from spine.tables import Vectors

_BLOCK = 8  # queries that a thread takes at once


@dataclass(frozen=True)
class GraphSearch:
    """A search of one HNSW index that gives what FAISS's own gives. Any number of threads may search at once.

    It reads the index where it lies, and keeps n·d bytes of its own. Rows added to the index later, another efSearch
    set on it, and FAISS's parameters of a single search (selected rows among them) are none of its concern.

    Similarities may differ from FAISS's in the last digits, since sums of floats are added up in another order; rows
    that are as near as each other may come in another order too.
    """

    index: Any
    """FAISS's own, whose memory is read: the object that frees it."""

    graph: tuple[Any, ...]
    """As `search_graph` takes it, and so are the next two."""

    coded: tuple[Any, ...]
    settings: tuple[Any, ...]

    rooms: list[tuple[Any, ...]] = field(default_factory=list)
    """Those that no search is using."""

    @classmethod
    def of(cls, index: Any, most_bytes: int) -> "GraphSearch | None":
        """What searches this index; about 1 s a GB of vectors.

        Args:
            index: Any FAISS index.
            most_bytes: What the codes may take.

        Returns:
            None where it isn't an IndexHNSWFlat of finite float32 vectors in memory with FAISS's defaults but
            for efSearch, holds none, or its codes would take more.
        """
        faiss = load_faiss()
        graph = faiss.downcast_index(index)  # a name of it that keeps nothing alive
        if type(graph) is not faiss.IndexHNSWFlat or not 0 < graph.ntotal * graph.d <= most_bytes:
            return None
        hnsw, storage = graph.hnsw, faiss.downcast_index(graph.storage)
        inner = graph.metric_type == faiss.METRIC_INNER_PRODUCT
        followed = hnsw.search_bounded_queue and hnsw.check_relative_distance
        followed = followed and hnsw.search_method == hnsw.SM_DEFAULT and sys.byteorder == "little"
        if not (followed and (inner or graph.metric_type == faiss.METRIC_L2)):
            return None
        if not isinstance(storage, faiss.IndexFlat) or storage.ntotal != graph.ntotal:
            return None
        vectors = _view(storage.codes).view(np.float32).reshape(graph.ntotal, graph.d)
        coded = _coded(vectors)
        if coded is None:
            return None
        levels = _view(hnsw.cum_nneighbor_per_level).astype(np.int64)
        arrays = vectors, _view(hnsw.neighbors), _view(hnsw.offsets).view(np.int64), levels
        settings = inner, int(hnsw.entry_point), int(hnsw.max_level), int(hnsw.efSearch)
        return cls(index, arrays, coded, settings)

    def search(self, queries: Vectors, k: int) -> tuple[Vectors, npt.NDArray[np.int64]]:
        """The nearest rows of each query, as FAISS's `search` gives them.

        Runs in as many threads as FAISS would use, the calling one where that is one.

        Args:
            queries: Shape (q, d), finite.
            k: Rows wanted, at least 1.

        Returns:
            Inner products or squared distances, the nearest first, and the rows, both (q, k); rows are -1 where
            fewer were found.
        """
        queries = np.ascontiguousarray(queries, dtype=np.float32)
        distances, rows = np.empty((len(queries), k), np.float32), np.empty((len(queries), k), np.int64)

        def work(start: int) -> None:
            some = slice(start, start + block)
            room, most = self._room(), max(k, self.settings[-1])
            seen = np.empty(most + most // 4 + 64, np.float32)
            search_graph(
                queries[some],
                self.graph,
                self.coded,
                self.settings,
                (*room, seen),
                distances[some],
                rows[some],
            )
            self.rooms.append(room)

        threads = min(load_faiss().omp_get_max_threads(), len(queries))
        block = len(queries) if threads < 2 else min(_BLOCK, -(-len(queries) // threads))
        if threads < 2:
            work(0)
        else:
            with ThreadPoolExecutor(threads) as pool:
                list(pool.map(work, range(0, len(queries), block)))
        return distances, rows

    def _room(self) -> tuple[Any, ...]:
        try:
            return self.rooms.pop()
        except IndexError:
            n = len(self.graph[0])
            return (
                np.zeros(n, np.uint8),
                np.zeros(1, np.uint8),
                np.empty(n, np.int64),
                np.empty(n, np.int64),
                np.empty(self.graph[0].shape[1], np.float32),
                np.empty(self.graph[3][1], np.int32),
                np.empty(2, np.float32),
            )


def _view(vector: Any) -> npt.NDArray[Any]:
    """A vector of FAISS's, where it lies."""
    array: npt.NDArray[Any] = load_faiss().rev_swig_ptr(vector.data(), vector.size())
    return array


def _coded(vectors: Vectors) -> tuple[Any, ...] | None:
    """Vectors rounded to one byte a dimension, as `search_graph` takes them; None where not all are finite."""
    low, high = vectors.min(axis=0), vectors.max(axis=0)
    step = (high - low) / np.float32(255)
    middle = low + np.float32(128) * step
    codes = np.empty(vectors.shape, dtype=np.int8)
    inverse = np.divide(1, step, out=np.zeros_like(step), where=step > 0)
    error = _round_all(vectors, middle, step, inverse, codes)
    reach = np.linalg.norm(middle) + 128 * np.linalg.norm(step)
    if not np.isfinite(error * reach):
        return None
    return codes, middle, step, np.float32(error), np.float32(reach)


@compiled
def _round_all(vectors: Any, middle: Any, step: Any, inverse: Any, codes: Any) -> Any:
    """Fill codes, and tell the largest distance between a vector and what its code stands for."""
    worst = np.float32(0)
    for row in range(len(vectors)):
        total = np.float32(0)
        for i in range(vectors.shape[1]):
            beyond = vectors[row, i] - middle[i]
            code = np.int8(min(max(np.rint(beyond * inverse[i]), np.float32(-128)), np.float32(127)))
            codes[row, i] = code
            total += (beyond - np.float32(code) * step[i]) ** 2
        worst = max(worst, total)
    return np.sqrt(worst)
