"""RaBitQ's codes, one bit a dimension, scanned for single queries, compiled.

FAISS's estimates to float32 rounding, in a fraction of its time: a query is rounded for a list many numbers at once,
and while a list is gone through the next one comes from memory. Codes are copied into blocks and scored sixty-four rows
at a time where memory may be spent on it; else a row's bits are counted many words at once.
"""

import math
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import numpy.typing as npt

from index_builder.indexing.sign_scan_kernel import lay_out_lists, scan_lists, search_few
from index_builder.metadata.metadata_rows import Rows
from index_builder.numerics.faiss_library import load_faiss
from index_builder.numerics.half_floats import widened
from index_builder.numerics.sign_blocks import BLOCK, block_bytes, takes
from index_builder.numerics.sign_codes import SignCodes
from spine.tables import Vectors

HALVES_BYTES = 2**25
"""What a copy of the centroids in float16 may take; more are read as they are."""

_FEW = 16  # queries that are given their lists here; more share FAISS's products of matrices
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
            search_few(queries, self._matrix, coarse, nprobe, self._l2, self._codes, in_blocks, values, rows)
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
            scan_lists(*asked, self._l2, self._codes, in_blocks, near, numbers)
            values[whose], rows[whose] = near, numbers

        size = max(1, -(-len(queries) // (_SHARES * threads)))
        shares = [slice(start, start + size) for start in range(0, len(queries), size)]
        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(scan, shares))

    def _in_blocks(self) -> tuple[npt.NDArray[np.int64], bool | None]:
        """The lists as `scan_lists` takes them, and whether they are blocks: copies, made at the first search."""
        if not self._takes_blocks:
            return self._lists, None
        with self._lock:
            if self._blocks is None:
                places, count = self._lists.copy(), -(-self._lists[:, 2] // BLOCK)
                ends = np.cumsum(count * block_bytes(self._codes[1]))
                blocks = np.zeros(ends[-1] if len(ends) else 0, dtype=np.uint8)
                places[1:, 0], places[:1, 0] = ends[:-1], 0
                places[:, 0] += blocks.ctypes.data
                lay_out_lists(self._lists, self._codes, places, blocks)
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
