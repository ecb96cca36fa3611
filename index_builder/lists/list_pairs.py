"""Which queries want which inverted lists."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from index_builder.lists.inverted_lists import Numbers
from index_builder.lists.ordered_threads import mapped_in_order
from index_builder.numerics.faiss_library import load_faiss
from index_builder.numerics.matrix_threads import alone, one_faiss_thread
from spine.tables import Vectors

PAIRS = 32 * 2**20
"""Pairs of a query and a list that are held at once, 20 bytes each; from so many on the rest wait for another pass."""

_ASSIGNED = 256  # queries given their lists at once, by one thread
_DISTANCES = 4 * 2**20  # of queries to lists, asked for at once


@dataclass(frozen=True, slots=True)
class Pairs:
    """Pairs of a query and a list it wants, sorted by list in the order of the file."""

    numbers: Numbers
    """Lists wanted by any query, shape (t,)."""
    starts: Numbers
    """Where each list's pairs begin, and where the last ones end, shape (t + 1,)."""
    queries: Numbers
    """The query of each pair."""
    middles: npt.NDArray[np.float32]
    """What the coarse quantiser said of each pair: inner product, or squared distance."""
    lists: Numbers
    """How many of its nearest lists each query goes through, those without a row for it counted; shape (q,). It may
    be shorter than the queries asked for: these are the first."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """How far a query goes, where a predicate lets only some of each list's rows pass."""

    passing: Numbers
    """Rows of each list that pass, shape (nlist,)."""
    rows: int
    """A query takes further lists until so many passing rows are in them, or no list is left."""


_Part = tuple[Numbers, Numbers, npt.NDArray[np.float32], Numbers]
"""Of some queries: query, list and middle of each pair, and how many lists each query took."""


def pair_up(ivf: Any, order: Numbers, queries: Vectors, nprobe: int, wanted: Wanted | None) -> Pairs:
    """Give each query its nprobe nearest lists, as FAISS's search does, and with `wanted` as many more as it takes.

    Lists without a passing row are left out.

    Args:
        ivf: A FAISS IndexIVF.
        order: List numbers as they follow each other in the file.
        queries: Shape (q, d), as the lists have them: after the index's transforms.
        nprobe: Lists a query, at most as many as there are.
        wanted: What passes; None for everything.
    """
    if wanted is None:
        most = -(-PAIRS // (_ASSIGNED * nprobe)) * _ASSIGNED
        found = _nearest(ivf, queries[:most], nprobe)
    else:
        found, start, held = [], 0, 0
        step = min(_ASSIGNED, max(1, _DISTANCES // nprobe))
        while start < len(queries) and held < PAIRS:
            block = queries[start : start + step]
            found.append(_as_many_as_it_takes(ivf, block, start, nprobe, wanted))
            start += len(block)
            held += len(found[-1][0])
    empty = (np.empty(0, dtype=np.int64),) * 2 + (np.empty(0, dtype=np.float32), np.empty(0, dtype=np.int64))
    asking, numbers, middles, lists = (np.concatenate(each) for each in zip(*(found or [empty]), strict=True))
    # Numbers of two bytes are sorted in a tenth of the time.
    position = np.empty(len(order), dtype=np.uint16 if len(order) <= 2**16 else np.int32)
    position[order] = np.arange(len(order))
    by_list = np.argsort(position[numbers], kind="stable")
    numbers = numbers[by_list]
    starts = np.flatnonzero(np.diff(numbers, prepend=-1))
    return Pairs(numbers[starts], np.append(starts, len(numbers)), asking[by_list], middles[by_list], lists)


def _nearest(ivf: Any, queries: Vectors, nprobe: int) -> list[_Part]:
    """Each query's nprobe nearest lists, by as many threads as FAISS has.

    A block is multiplied by one thread, so that similarities have the same bits however many there are.
    """

    def assign(start: int) -> _Part:
        middles, numbers = ivf.quantizer.search(queries[start : start + _ASSIGNED], nprobe)
        asking = np.repeat(np.arange(start, start + len(numbers)), nprobe)
        there = np.flatnonzero(numbers.ravel() >= 0)  # a graph as coarse quantiser may find fewer
        lists = np.full(len(numbers), nprobe)
        return asking[there], numbers.ravel()[there], middles.ravel()[there], lists

    starts = iter(range(0, len(queries), _ASSIGNED))
    threads = load_faiss().omp_get_max_threads()
    with one_faiss_thread():  # where there is but one, it is this
        return list(mapped_in_order(assign, starts, threads, alone))


def _as_many_as_it_takes(ivf: Any, queries: Vectors, first: int, nprobe: int, wanted: Wanted) -> _Part:
    """Query, list and middle of each pair, and how many lists each query took."""
    nlist = len(wanted.passing)
    lists = np.zeros(len(queries), dtype=np.int64)
    parts = []
    short = np.arange(len(queries))
    depth, quantizer = nprobe, ivf.quantizer
    while len(short):
        ends = depth == nlist and _finds_all(quantizer)
        step = max(1, _DISTANCES // depth)
        ended = []
        for at in range(0, len(short), step):
            some = short[at : at + step]
            middles, numbers = quantizer.search(queries[some], depth)
            passing = np.where(numbers >= 0, wanted.passing[numbers], 0)
            enough = passing.cumsum(axis=1) >= wanted.rows
            done = enough[:, -1] | ends
            taken = np.where(enough[:, -1], enough.argmax(axis=1) + 1, depth)
            taken = np.maximum(taken, nprobe)
            lists[some[done]] = taken[done]
            pick = done[:, None] & (np.arange(depth) < taken[:, None]) & (passing > 0)
            line, column = np.nonzero(pick)
            parts.append((some[line] + first, numbers[line, column], middles[line, column]))
            ended.append(some[~done])
        short = np.concatenate(ended)
        depth = min(4 * depth, nlist)
        if len(short) and not _finds_all(quantizer):
            quantizer = _exact(quantizer)
    asking, numbers, middles = (np.concatenate(each) for each in zip(*parts, strict=True))
    return asking, numbers, middles, lists


def _finds_all(quantizer: Any) -> bool:
    """Whether it finds every list where it is asked for all: a graph may not."""
    faiss = load_faiss()
    return isinstance(faiss.downcast_index(quantizer), faiss.IndexFlat)


def _exact(quantizer: Any) -> Any:
    """One of the same centroids that does."""
    faiss = load_faiss()
    exact = faiss.IndexFlat(quantizer.d, quantizer.metric_type)
    exact.add(quantizer.reconstruct_n(0, quantizer.ntotal))
    return exact
