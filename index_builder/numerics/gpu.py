"""FAISS on GPUs: used where popfactory[gpu] is installed and there is one. No GPU has been tried yet.

A GPU serves one caller of FAISS at a time, so every call is made under a lock. Similarities differ from the
CPU's in their last bits.
"""

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from itertools import repeat
from typing import Any

import numpy as np
import numpy.typing as npt

from index_builder.numerics.faiss_library import load_faiss
from spine.tables import Vectors

K_MAX = 2_048
"""Neighbours and lists that FAISS's GPU side takes a query."""

_SHARED_FROM = 256  # queries for each GPU: fewer go to one alone
_lock = threading.Lock()

Found = tuple[Vectors, npt.NDArray[np.int64]]
"""Similarities or distances, and numbers, shape (q, k) each."""


@cache
def gpu_count() -> int:
    """GPUs that this FAISS can use; 0 for faiss-cpu."""
    return int(load_faiss().get_num_gpus())


@cache
def _resources() -> Any:
    return load_faiss().StandardGpuResources()


def nearest(queries: Vectors, vectors: Vectors, k: int, metric: int) -> Found:
    """Exact search, on a GPU where there is one.

    Args:
        queries: Shape (q, d).
        vectors: Shape (n, d).
        k: Neighbours a query, up to n.
        metric: FAISS's number of it.
    """
    faiss = load_faiss()
    if not gpu_count() or k > K_MAX:
        found: Found = faiss.knn(queries, vectors, k, metric=metric)
        return found
    with _lock:
        found = faiss.knn_gpu(_resources(), queries, vectors, k, metric=metric)
    return found


class GpuIndex:
    """Copies of an index, one on each GPU, searched instead of it where GPUs can answer.

    FAISS's own copies on several GPUs take no nprobe with a search, so queries are shared out here.
    """

    def __init__(self, copies: Sequence[Any]) -> None:
        self._copies = [(copy, threading.Lock()) for copy in copies]

    @classmethod
    def of(cls, index: Any, size_bytes: int) -> "GpuIndex | None":
        """Copy an index to the GPUs; None without one, for codes they don't search, or where it wouldn't fit.

        Args:
            index: Any FAISS index.
            size_bytes: What it takes.
        """
        if not gpu_count() or not _is_searched_there(index) or size_bytes > _free_bytes():
            return None
        faiss = load_faiss()
        try:
            return cls(
                [
                    faiss.index_cpu_to_gpu(faiss.StandardGpuResources(), number, index)
                    for number in range(gpu_count())
                ]
            )
        except RuntimeError:  # of codes of so many bits, or tables larger than a GPU's shared memory
            return None

    def takes(self, k: int, nprobe: int) -> bool:
        """Whether GPUs answer for so many neighbours and lists a query."""
        return max(k, nprobe) <= K_MAX

    def search(self, queries: Vectors, k: int, nprobe: int, parameters: Any) -> Found | None:
        """As FAISS's search; None where k or nprobe is more than GPUs take."""
        if not self.takes(k, nprobe):
            return None
        shares = np.array_split(queries, max(1, min(len(self._copies), len(queries) // _SHARED_FROM)))
        if len(shares) == 1:
            return self._on_one(self._free(), queries, k, parameters)
        with ThreadPoolExecutor(len(shares)) as pool:
            parts = list(pool.map(self._on_one, range(len(shares)), shares, repeat(k), repeat(parameters)))
        return np.concatenate([part[0] for part in parts]), np.concatenate([part[1] for part in parts])

    def _on_one(self, number: int, queries: Vectors, k: int, parameters: Any) -> Found:
        copy, lock = self._copies[number]
        with lock:
            found: Found = copy.search(np.ascontiguousarray(queries), k, params=parameters)
        return found

    def _free(self) -> int:
        """A GPU that nobody searches on at the moment, else the first."""
        return next((number for number, (_, lock) in enumerate(self._copies) if not lock.locked()), 0)


def nearest_on_gpu(index: Any) -> Callable[[Vectors], npt.NDArray[np.int64]] | None:
    """What finds the list of each vector (n, d) on GPUs; None without one, or where the middles are no plain list."""
    faiss = load_faiss()
    middles = faiss.downcast_index(faiss.extract_index_ivf(index).quantizer)
    if not gpu_count() or not isinstance(middles, faiss.IndexFlat):
        return None
    copy = faiss.index_cpu_to_all_gpus(middles)

    def find(vectors: Vectors) -> npt.NDArray[np.int64]:
        with _lock:
            found: npt.NDArray[np.int64] = copy.search(vectors, 1)[1][:, 0]
        return found

    return find


def _is_searched_there(index: Any) -> bool:
    faiss = load_faiss()
    plain = faiss.downcast_index(index.index) if isinstance(index, faiss.IndexPreTransform) else index
    return isinstance(
        plain, faiss.IndexFlat | faiss.IndexIVFFlat | faiss.IndexIVFPQ | faiss.IndexIVFScalarQuantizer
    )


def _free_bytes() -> int:
    """What the emptiest GPU has free, but for a fifth that searches need."""
    import torch

    devices = range(torch.cuda.device_count())
    return min((int(0.8 * torch.cuda.mem_get_info(device)[0]) for device in devices), default=0)
