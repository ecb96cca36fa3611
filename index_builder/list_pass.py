"""All queries against the inverted lists in one pass: each list is read and decoded once, for all that want it.

FAISS answers a query by going through its lists; a thousand queries make it read and decode a popular list
hundreds of times. Here the (query, list) pairs are sorted by list. A list is read once, in the order of the
file, decoded once, and one matrix product scores it for all its queries; FAISS's heaps keep the best k of each.

Source: the idea is that of `faiss.contrib.big_batch_search`.
"""

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from index_builder.faiss_library import load_faiss
from index_builder.inverted_lists import Codes, InvertedLists
from index_builder.list_codes import ListDecoder, list_decoder
from index_builder.matrix_threads import one_matrix_thread
from index_builder.metadata_rows import Rows
from spine.tables import Vectors

Similarities = npt.NDArray[np.float32]
Given = TypeVar("Given")
Made = TypeVar("Made")

_ASSIGNED = 4_096  # queries given their lists at once
_VECTORS, _VECTORS_LEAST = 2_048, 64  # of a list, decoded at once: 6 MB at d = 768
_SCORES = 2**20  # of them with the list's queries, unless these alone are more
_TILES = 16
# With fewer query rows OpenBLAS takes kernels that round the last columns otherwise: equal vectors would
# get similarities that differ in the last bit, and lose the order of their rows.
_QUERIES_LEAST = 16


@dataclass(frozen=True, slots=True)
class _Pairs:
    """Which queries want which list, sorted by list in the order of the file."""

    numbers: npt.NDArray[np.int64]
    """Lists wanted by any query, shape (t,)."""
    starts: npt.NDArray[np.int64]
    """Where each list's pairs begin, and where the last ones end, shape (t + 1,)."""
    queries: npt.NDArray[np.int64]
    """The query of each pair."""
    middles: Similarities
    """What FAISS's coarse quantiser said of each pair: inner product, or squared distance."""


@dataclass(frozen=True, slots=True)
class _Tile:
    """A piece of one list, and all queries that want it."""

    number: int
    codes: Codes
    rows: Rows
    queries: npt.NDArray[np.int64]
    middles: Similarities


class ListPass:
    """The list-major search over one index.

    Attributes:
        lists: The inverted lists it goes through.
        codes: What they hold: "flat", "scalar" or "product".
    """

    def __init__(self, index: Any, path: Path) -> None:
        """Look at an index; see `open_list_pass`."""
        faiss = load_faiss()
        self._index = index  # what its parts below belong to
        self._transforms, self._ivf = _parts(index)
        self._l2 = index.metric_type == faiss.METRIC_L2
        decoder = list_decoder(self._ivf)
        if decoder is None:
            raise ValueError("FAISS alone can score these codes")
        self._decoder: ListDecoder = decoder
        self.codes = decoder.kind
        self.lists = InvertedLists(self._ivf, path)

    def search(self, queries: Vectors, k: int, nprobe: int) -> tuple[Similarities, Rows]:
        """The k nearest rows of each query among its nprobe nearest lists.

        As many threads work as FAISS has. Memory holds 12 bytes for each of the q · k results, 20 for each of the
        q · nprobe pairs, one stretch of the file twice, and some 30 MB a thread.

        Args:
            queries: Shape (q, d), float32, contiguous, finite.
            k: Neighbours a query, 1 at least.
            nprobe: Lists a query.

        Returns:
            Similarities (q, k) and rows (q, k), in the order of FAISS's heaps, not sorted; where fewer than k are
            found the rest is row -1 with similarity -inf. Of an l2 index 1 - distance / 2.

        Raises:
            DataError: Lists on disk can't be read.
        """
        moved = _moved(queries, self._transforms)
        heaps = _Heaps(len(queries), k)
        pairs = self._pairs(moved, min(nprobe, int(self._ivf.nlist)))
        norms = (moved * moved).sum(axis=1) if self._l2 else None
        with one_matrix_thread():
            for scored in in_order(
                lambda tiles: [self._score(tile, moved, norms) for tile in tiles],
                _shares(self._tiles(pairs)),
                load_faiss().omp_get_max_threads(),
            ):
                for tile, scores in scored:
                    heaps.add(tile.queries, scores, tile.rows)
        return heaps.results()

    def _tiles(self, pairs: "_Pairs") -> Iterator["_Tile"]:
        """The work, in the order of the file, in pieces of a bounded number of scores."""
        place = {int(number): i for i, number in enumerate(pairs.numbers)}
        for each in self.lists.read(pairs.numbers):
            i = place[each.number]
            inside = slice(int(pairs.starts[i]), int(pairs.starts[i + 1]))
            queries, middles = pairs.queries[inside], pairs.middles[inside]
            step = max(_VECTORS_LEAST, min(_VECTORS, _SCORES // len(queries)))
            for start in range(0, len(each.rows), step):
                codes, rows = each.codes[start : start + step], each.rows[start : start + step]
                yield _Tile(each.number, codes, rows, queries, middles)

    def _pairs(self, queries: Vectors, nprobe: int) -> _Pairs:
        """Give each query its lists, as FAISS's search does, and sort by list."""
        found = [
            self._ivf.quantizer.search(queries[start : start + _ASSIGNED], nprobe)
            for start in range(0, len(queries), _ASSIGNED)
        ]
        middles = np.concatenate([each for each, _ in found]).ravel()
        numbers = np.concatenate([each for _, each in found]).ravel()
        position = np.empty(len(self.lists.order), dtype=np.int32)
        position[self.lists.order] = np.arange(len(self.lists.order), dtype=np.int32)
        there = np.flatnonzero(numbers >= 0)  # a graph as coarse quantiser may find fewer
        order = there[np.argsort(position[numbers[there]], kind="stable")]
        numbers = numbers[order]
        starts = np.flatnonzero(np.diff(numbers, prepend=-1))
        return _Pairs(numbers[starts], np.append(starts, len(numbers)), order // nprobe, middles[order])

    def _score(
        self, tile: "_Tile", queries: Vectors, norms: Similarities | None
    ) -> tuple["_Tile", Similarities]:
        """Similarities of a tile's queries to its vectors, shape (queries, vectors)."""
        vectors = self._decoder.decode(tile.codes)
        if norms is not None:
            if self._decoder.residual:
                vectors = vectors + self._centroid(tile.number)
            lengths = np.einsum("ij,ij->i", vectors, vectors)
            scores = _products(queries, tile.queries, vectors)
            scores += 1 - (lengths + norms[tile.queries, None]) / 2  # 1 - |q - v|² / 2
            return tile, scores
        scores = _products(queries, tile.queries, vectors)
        if self._decoder.residual:
            scores += tile.middles[:, None]
        return tile, scores

    def _centroid(self, number: int) -> Vectors:
        centroid: Vectors = self._ivf.quantizer.reconstruct(number)
        return centroid


def open_list_pass(index: Any, path: Path) -> ListPass | None:
    """The list-major search over an index; None for a kind that it doesn't know.

    It knows IVF indexes of plain vectors, scalar and product quantisers, also behind transforms such as OPQ.

    Args:
        index: A FAISS index.
        path: Its file, or its folder if it stays on disk.
    """
    _, ivf = _parts(index)
    return ListPass(index, path) if ivf is not None and list_decoder(ivf) is not None else None


def _parts(index: Any) -> tuple[list[Any], Any]:
    """The transforms before an IVF index, and the index; none and None for anything else."""
    faiss, transforms = load_faiss(), []
    index = faiss.downcast_index(index)
    if isinstance(index, faiss.IndexPreTransform):
        transforms = [faiss.downcast_VectorTransform(index.chain.at(i)) for i in range(index.chain.size())]
        index = faiss.downcast_index(index.index)
    return (transforms, index) if isinstance(index, faiss.IndexIVF) else ([], None)


def _moved(queries: Vectors, transforms: list[Any]) -> Vectors:
    for transform in transforms:
        queries = transform.apply(queries)
    return np.ascontiguousarray(queries, dtype=np.float32)


def _products(queries: Vectors, some: npt.NDArray[np.int64], vectors: Vectors) -> Similarities:
    """Inner products of some of the queries with vectors, shape (len(some), n)."""
    if len(some) < _QUERIES_LEAST:
        few = np.zeros((_QUERIES_LEAST, queries.shape[1]), dtype=np.float32)
        few[: len(some)] = queries[some]
        products: Similarities = (few @ vectors.T)[: len(some)]
    else:
        products = np.take(queries, some, axis=0) @ vectors.T
    return products


def _shares(tiles: Iterator["_Tile"]) -> Iterator[list["_Tile"]]:
    """Tiles handed out together, so that small ones don't cost a thread more than they are worth."""
    share: list[_Tile] = []
    scores = 0
    for tile in tiles:
        share.append(tile)
        scores += len(tile.queries) * len(tile.rows)
        if scores >= _SCORES // 8 or len(share) >= _TILES:
            yield share
            share, scores = [], 0
    if share:
        yield share


def in_order(function: Callable[[Given], Made], items: Iterator[Given], threads: int) -> Iterator[Made]:
    """`map`, by several threads, a few items ahead; results in the order of the items."""
    if threads <= 1:
        yield from map(function, items)
        return
    waiting: deque[Future[Made]] = deque()
    with ThreadPoolExecutor(threads, thread_name_prefix="lists") as workers:
        try:
            for item in items:
                waiting.append(workers.submit(function, item))
                if len(waiting) > 2 * threads:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()


class _Heaps:
    """The best k of each query so far, in FAISS's heaps.

    Where a heap is full and two of its lowest are equal, FAISS lets go of the one with the smaller label. Rows go
    in as negative labels, so that of equals the first row stays.
    """

    def __init__(self, q: int, k: int) -> None:
        faiss = load_faiss()
        self._values = np.empty((q, k), dtype=np.float32)
        self._labels = np.empty((q, k), dtype=np.int64)
        self._heaps = faiss.float_minheap_array_t()
        self._heaps.k, self._heaps.nh = k, q
        self._heaps.val, self._heaps.ids = faiss.swig_ptr(self._values), faiss.swig_ptr(self._labels)
        self._heaps.heapify()

    def add(self, queries: npt.NDArray[np.int64], scores: Similarities, rows: Rows) -> None:
        """Offer every row to each of these queries; `scores` has a line a query."""
        faiss, labels = load_faiss(), -2 - rows  # -1 marks an empty place
        self._heaps.addn_query_subset_with_ids(
            len(queries),
            faiss.swig_ptr(queries),
            len(rows),
            faiss.swig_ptr(scores),
            faiss.swig_ptr(labels),
            0,
        )

    def results(self) -> tuple[Similarities, Rows]:
        """Similarities and rows, each (q, k), not sorted."""
        empty = self._labels == -1
        self._values[empty] = -np.inf
        np.subtract(-2, self._labels, out=self._labels)  # -1 stays -1
        return self._values, self._labels
