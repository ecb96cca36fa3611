"""RaBitQ's codes, one bit a dimension, scanned for single queries, compiled.

FAISS's estimates to float32 rounding, in a fraction of its time: a query is rounded for a list many numbers at once,
and while a list is gone through the next one comes from memory. Codes are copied into blocks and scored sixty-four rows
at a time where memory may be spent on it; else a row's bits are counted many words at once.
"""

import math
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numba
import numpy as np
import numpy.typing as npt

from index_builder.indexing.nearest_lists import nearest_lists, products_of_few
from index_builder.metadata.metadata_rows import Rows
from index_builder.numerics.compiled import address, compiled, compiled_within, lowest_bit, wanted_soon
from index_builder.numerics.faiss_library import load_faiss
from index_builder.numerics.half_floats import widened
from index_builder.numerics.pair_products import dot
from index_builder.numerics.selection import best_first
from index_builder.numerics.sign_blocks import BLOCK, block_bytes, lay_out, takes
from index_builder.numerics.sign_codes import SignCodes
from index_builder.numerics.sign_scores import room_for_scores, round_for, scored
from spine.tables import Vectors

HALVES_BYTES = 2**25
"""What a copy of the centroids in float16 may take; more are read as they are."""

_LINE = 64  # bytes that come from memory at once
_AHEAD = 8  # row numbers, which lie here and there
_FEW = 16  # queries that are given their lists here; more share FAISS's products of matrices
_TOGETHER = 32  # queries, as a number has bits: a list comes from memory once for all that want it
_SHARES = 4  # of many queries that a thread is given, one after the other


class SignScan:
    """Searches an IVF index of such codes where FAISS holds it: in memory, or mapped from a file."""

    def __init__(
        self,
        index: Any,
        transforms: list[Any],
        ivf: Any,
        codes: SignCodes,
        centroids: Vectors,
        most_bytes: int,
    ) -> None:
        """Note where each list is; see `of`."""
        faiss = load_faiss()
        lists, nlist = faiss.downcast_InvertedLists(ivf.invlists), int(ivf.nlist)
        self._index = index  # what the addresses point into
        self._transforms, self._quantizer, self._centroids = transforms, ivf.quantizer, centroids
        self._l2 = ivf.metric_type == faiss.METRIC_L2
        sizes = [lists.list_size(number) for number in range(nlist)]
        self._lists = np.array(
            [
                (int(lists.get_codes(number)), int(lists.get_ids(number)), size) if size else (0, 0, 0)
                for number, size in enumerate(sizes)
            ],
            dtype=np.int64,
        ).reshape(nlist, 3)
        self._codes = codes.for_kernels
        self._matrix = _matrix(transforms)
        flat = isinstance(faiss.downcast_index(ivf.quantizer), faiss.IndexFlat)
        self._few = _FEW if flat and self._matrix is not None else 0
        size_bytes = int((-(-self._lists[:, 2] // BLOCK)).sum()) * block_bytes(codes.width)
        self._takes_blocks = takes(codes.width) and size_bytes <= most_bytes
        self._blocks: tuple[npt.NDArray[np.int64], npt.NDArray[np.uint8]] | None = None
        self._lock = threading.Lock()
        squared = np.einsum("ij,ij->i", centroids, centroids)
        halves = squared / 2 if self._l2 else np.zeros(nlist, dtype=np.float32)
        self._coarse = *_rounded(centroids if self._few else centroids[:0]), halves

    @classmethod
    def of(cls, index: Any, most_bytes: int) -> "SignScan | None":
        """The scan of an index; None for kinds that it doesn't know.

        Args:
            index: A FAISS index, downcast, whose lists stay as they are.
            most_bytes: What a copy of the codes in blocks may take; larger ones are scanned as FAISS has them.
        """
        faiss, transforms, ivf = load_faiss(), [], index
        if isinstance(index, faiss.IndexPreTransform):
            transforms = [
                faiss.downcast_VectorTransform(index.chain.at(i)) for i in range(index.chain.size())
            ]
            ivf = faiss.downcast_index(index.index)
        codes = SignCodes.of(ivf)
        if codes is None:
            return None
        known = (faiss.ArrayInvertedLists, faiss.OnDiskInvertedLists)
        centroids = _centroids(ivf)
        if centroids is None or not isinstance(faiss.downcast_InvertedLists(ivf.invlists), known):
            return None
        return cls(index, transforms, ivf, codes, centroids, most_bytes)

    def search(self, queries: Vectors, depth: int, nprobe: int) -> tuple[npt.NDArray[np.float32], Rows]:
        """The rows of each query's nearest lists with the highest estimates; in as many threads as FAISS has.

        Args:
            queries: Shape (q, d), float32, contiguous, finite.
            depth: How many at most.
            nprobe: Lists a query.

        Returns:
            Estimates as FAISS gives them, inner products or squared distances, and rows, in any order; (q, depth) each.
            Row -1 and the worst there is where fewer are found.
        """
        values = np.full((len(queries), depth), -np.inf, dtype=np.float32)
        rows = np.full((len(queries), depth), -1, dtype=np.int64)
        (lists, in_blocks), nprobe = self._in_blocks(), min(nprobe, len(self._lists))
        coarse = lists, self._centroids, self._coarse
        threads = load_faiss().omp_get_max_threads()
        if len(queries) <= self._few and (threads == 1 or len(queries) == 1):
            _search_few(queries, self._matrix, coarse, nprobe, self._l2, self._codes, in_blocks, values, rows)
        else:
            self._search_many(queries, nprobe, threads, values, rows)
        return (2 - 2 * values if self._l2 else values), rows

    def _search_many(
        self, queries: Vectors, nprobe: int, threads: int, values: npt.NDArray[np.float32], rows: Rows
    ) -> None:
        for transform in self._transforms:
            queries = transform.apply(queries)
        wanted = self._quantizer.search(queries, nprobe)[1]
        lists, in_blocks = self._in_blocks()
        alike = np.lexsort((wanted[:, 1 % nprobe], wanted[:, 0]))  # by their nearest lists

        def scan(some: slice) -> None:
            whose = alike[some]
            near, numbers = values[whose], rows[whose]
            asked = queries[whose], wanted[whose], lists, self._centroids
            _scan(*asked, self._l2, self._codes, in_blocks, near, numbers)
            values[whose], rows[whose] = near, numbers

        size = max(1, len(queries) // (_SHARES * threads))
        shares = [slice(start, start + size) for start in range(0, len(queries), size)]
        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(scan, shares))

    def _in_blocks(self) -> tuple[npt.NDArray[np.int64], bool | None]:
        """The lists as `_scan` takes them, and whether they are blocks: copies, made at the first search."""
        if not self._takes_blocks:
            return self._lists, None
        with self._lock:
            if self._blocks is None:
                places, count = self._lists.copy(), -(-self._lists[:, 2] // BLOCK)
                ends = np.cumsum(count * block_bytes(self._codes[1]))
                blocks = np.zeros(ends[-1] if len(ends) else 0, dtype=np.uint8)
                places[1:, 0], places[:1, 0] = ends[:-1], 0
                places[:, 0] += blocks.ctypes.data
                _lay_out(self._lists, self._codes, places, blocks)
                self._blocks = places, blocks
            return self._blocks[0], True


def _matrix(transforms: list[Any]) -> Vectors | None:
    """What queries are multiplied with before the lists, (d, d), no rows for nothing; None where more is done."""
    faiss = load_faiss()
    if not transforms:
        return np.zeros((0, 0), dtype=np.float32)
    first = transforms[0]
    if len(transforms) > 1 or not isinstance(first, faiss.LinearTransform) or first.have_bias:
        return None
    matrix: Vectors = faiss.vector_to_array(first.A).reshape(first.d_out, first.d_in)
    return matrix


def _rounded(centroids: Vectors) -> tuple[npt.NDArray[Any], float]:
    """Centroids as `nearest_lists` reads them all, and the longest of what that leaves of one."""
    if not centroids.size or centroids.nbytes // 2 > HALVES_BYTES:
        return centroids, 0.0
    if not np.abs(centroids).max() < np.finfo(np.float16).max:
        return centroids, 0.0
    halves = centroids.astype(np.float16)
    left = centroids - widened(halves)
    # What sums of float32 round away is less by far than a float16, but not nothing.
    longest = math.sqrt(np.einsum("ij,ij->i", left, left).max())
    return halves.view(np.uint16), longest + 1e-5 * math.sqrt(
        np.einsum("ij,ij->i", centroids, centroids).max()
    )


def _centroids(ivf: Any) -> Vectors | None:
    """Those of an IVF index where its quantiser holds them, (nlist, d); None for one that holds no plain vectors."""
    faiss = load_faiss()
    quantizer = faiss.downcast_index(ivf.quantizer)
    if isinstance(quantizer, faiss.IndexHNSW):
        quantizer = faiss.downcast_index(quantizer.storage)
    if not isinstance(quantizer, faiss.IndexFlat) or quantizer.ntotal != ivf.nlist:
        return None
    vectors: Vectors = faiss.rev_swig_ptr(quantizer.get_xb(), int(ivf.nlist) * int(ivf.d))
    return vectors.reshape(int(ivf.nlist), int(ivf.d))


@compiled
def _lay_out(lists: Any, codes: Any, places: Any, blocks: Any) -> None:
    """Lay all lists out, each where `places` say."""
    for number in range(len(lists)):
        if lists[number, 2]:
            begin = places[number, 0] - blocks.ctypes.data
            lay_out(lists[number, 0], codes, lists[number, 2], blocks[begin:])


@compiled
def _scan(
    queries: Any, wanted: Any, lists: Any, centroids: Any, l2: bool, codes: Any, in_blocks: Any, values: Any, rows: Any
) -> None:  # fmt: skip
    """Find the rows with the highest estimates.

    Args:
        queries: Shape (q, d), as the lists have them; those that are alike one after the other.
        wanted: Numbers of lists, the nearest first; below 0 for none; (q, nprobe).
        lists: Of each list the addresses of its codes and of its row numbers, and how many rows; (nlist, 3), int64.
        centroids: Shape (nlist, d).
        l2: Whether a similarity is 1 - |q - v|² / 2, not the inner product.
        codes: As `SignCodes.for_kernels` gives them.
        in_blocks: True where lists are blocks of codes; None where they are as FAISS has them.
        values: Takes estimates, as far as there are rows; (q, depth).
        rows: Takes row numbers.
    """
    # Views of these, a row each for every list, are counted by no one: it is the caller who holds them.
    queries = numba.carray(address(queries.ctypes.data), queries.shape, np.float32)
    centroids = numba.carray(address(centroids.ctypes.data), centroids.shape, np.float32)
    most = np.float32(1) if l2 else np.float32(np.inf)  # no distance is below zero
    d, depth, together = queries.shape[1], values.shape[1], min(_TOGETHER, len(queries))
    stride = BLOCK * codes[0] if in_blocks is None else block_bytes(codes[1])
    room = room_for_scores(d, codes)
    near = room[2][2]
    found = np.empty((together, 2 * depth + 1), dtype=np.float32)
    found_at = np.empty((together, 2 * depth + 1), dtype=np.int64)
    counts, least, own = (
        np.empty(together, np.int64),
        np.empty(together, np.float32),
        np.empty(together, np.float32),
    )
    turns = np.empty(together * wanted.shape[1] + 1, dtype=np.int64)
    whose = np.zeros(len(lists) if together > 1 else 1, dtype=np.uint32)  # a query alone wants them all
    for first in range(0, len(queries), together):
        here = min(together, len(queries) - first)
        for j in range(here):
            counts[j], least[j] = 0, np.float32(-np.inf)
            own[j] = np.float32(2) if l2 else dot(queries[first + j], queries[first + j])
        _take_turns(wanted, first, here, turns, whose)
        turn = 0
        while turns[turn] >= 0:
            number, turn = turns[turn], turn + 1
            place, ids, n = lists[number, 0], lists[number, 1], lists[number, 2]
            soon, end = _announce(turns[turn], lists, stride, centroids)
            asking = np.int64(whose[number]) if together > 1 else 1
            while asking:
                j = lowest_bit(asking)
                asking &= asking - 1
                rounded = round_for(queries[first + j], own[j], centroids[number], codes, in_blocks, room)
                for start in range(0, n, BLOCK):
                    for line in range(soon, min(end, soon + stride), _LINE):
                        wanted_soon(line)
                    soon += stride
                    count = min(BLOCK, n - start)
                    if scored(place, start, count, codes, in_blocks, rounded, room) < least[j]:
                        continue
                    for r in range(count):
                        similarity = min(near[r], most)
                        if similarity >= least[j]:
                            at = counts[j]
                            found[j, at], found_at[j, at] = similarity, ids + 8 * (start + r)
                            counts[j] = at + 1
                            if at + 1 == found.shape[1]:
                                best_first(found[j], found_at[j], at + 1, depth)
                                counts[j], least[j] = depth, found[j, depth - 1]
            if together > 1:
                whose[number] = 0
        for j in range(here):
            if counts[j] > depth:
                best_first(found[j], found_at[j], counts[j], depth)
            _give(found[j], found_at[j], min(counts[j], depth), values[first + j], rows[first + j])


@compiled
def _take_turns(wanted: Any, first: int, count: int, turns: Any, whose: Any) -> None:
    """The lists that some queries want, those that one of them has nearest first, and who wants each.

    Args:
        wanted: As of `_scan`.
        first: The first of the queries.
        count: How many, _TOGETHER at most.
        turns: Takes the lists' numbers, and -1 after them.
        whose: Takes a bit for each query that wants a list; zeros, of each list, or one where there is but one query.
    """
    turn, alone = 0, len(whose) == 1
    for i in range(wanted.shape[1]):
        for j in range(count):
            number = wanted[first + j, i]
            if number < 0:
                continue
            place = 0 if alone else number
            if alone or not whose[place]:
                turns[turn] = number
                turn += 1
            whose[place] |= np.uint32(1 << j)
    turns[turn] = -1


@compiled_within
def _announce(number: int, lists: Any, stride: int, centroids: Any) -> Any:
    """Have a list's centroid brought from memory; from where to where the list lies, 0 for none, below 0."""
    if number < 0:
        return np.int64(0), np.int64(0)
    size = 4 * centroids.shape[1]
    centroid = centroids.ctypes.data + number * size
    for line in range(0, size, _LINE):
        wanted_soon(centroid + line)
    begin = lists[number, 0]
    return begin, begin + -(-lists[number, 2] // BLOCK) * stride


@compiled
def _give(found: Any, found_at: Any, count: int, values: Any, rows: Any) -> None:
    """Write down what was found, with the row numbers from where they are."""
    for i in range(count):
        if i + _AHEAD < count:
            wanted_soon(found_at[i + _AHEAD])
        values[i] = found[i]
        rows[i] = numba.carray(address(found_at[i]), (1,), np.int64)[0]


@compiled
def _search_few(
    queries: Any, matrix: Any, coarse: Any, nprobe: int, l2: bool, codes: Any, in_blocks: Any, values: Any, rows: Any
) -> None:  # fmt: skip
    """All of a search for a few queries.

    Args:
        queries: Shape (q, d), as they are asked.
        matrix: What they are multiplied with first, (d, d); no rows for nothing.
        coarse: Lists and centroids, as `_scan` has them, and what `nearest_lists` has of these.
        nprobe: Lists a query.
        l2: As of `_scan`, and so are the others.
        codes: Likewise.
        in_blocks: Likewise.
        values: Likewise.
        rows: Likewise.
    """
    lists, centroids, rounded = coarse
    moved = products_of_few(queries, matrix) if len(matrix) else queries
    wanted = nearest_lists(moved, centroids, rounded, nprobe)
    _scan(moved, wanted, lists, centroids, l2, codes, in_blocks, values, rows)
