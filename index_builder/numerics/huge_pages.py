"""Memory that searches jump about in, put into pages of 2 MB: the CPU then finds an address at once.

A graph's search reads thousands of vectors from anywhere in gigabytes. With pages of 4 kB the CPU first has to
look up, in memory again, where nearly each of them lies.
"""

import ctypes
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from index_builder.numerics.faiss_library import load_faiss

HUGE_PAGE = 2**21
"""Bytes of one."""

_COLLAPSE = 25  # MADV_COLLAPSE of Linux 6.1: at once, not when the system comes by
_AT_ONCE = 16  # pages in one call; what else changes the process's memory waits as long
_POLICY = Path("/sys/kernel/mm/transparent_hugepage/enabled")

Bytes = npt.NDArray[np.uint8]


def index_into_huge_pages(index: Any) -> threading.Thread | None:
    """Move an index's large arrays to huge pages, in a thread: about 3 ms a MB, searches go on meanwhile.

    Args:
        index: A FAISS index that was read into memory. What is mapped from a file stays as it is.

    Returns:
        The thread, begun; None where nothing is large or this system has no huge pages to give.
    """
    arrays = [array for array in _large_arrays(index) if array.nbytes >= 2 * HUGE_PAGE]
    if not arrays or not _allowed():
        return None

    def work(_: Any) -> None:  # the index stays as long as the thread
        for array in arrays:
            into_huge_pages(array)

    thread = threading.Thread(target=work, args=(index,), name="huge pages", daemon=True)
    thread.start()
    return thread


def into_huge_pages(array: npt.NDArray[Any]) -> int:
    """Move an array's memory, whose content and address stay, and count the bytes that were moved.

    It stops at the first page that the system refuses: an older one refuses all, a full one some.
    """
    library = ctypes.CDLL(None, use_errno=True)
    start = -(-array.ctypes.data // HUGE_PAGE) * HUGE_PAGE
    end = (array.ctypes.data + array.nbytes) // HUGE_PAGE * HUGE_PAGE
    for place in range(start, end, _AT_ONCE * HUGE_PAGE):
        size = min(_AT_ONCE * HUGE_PAGE, end - place)
        if library.madvise(ctypes.c_void_p(place), ctypes.c_size_t(size), _COLLAPSE):
            return place - start
    return max(0, end - start)


def _large_arrays(index: Any) -> Iterator[Bytes]:
    """Where a graph's links lie, and vectors that aren't in lists."""
    faiss = load_faiss()
    index = faiss.downcast_index(index)
    if isinstance(index, faiss.IndexPreTransform | faiss.IndexIDMap):
        yield from _large_arrays(index.index)
    elif isinstance(index, faiss.IndexHNSW):
        yield from _large_arrays(index.storage)
        links = index.hnsw.neighbors
        yield faiss.rev_swig_ptr(links.data(), links.size()).view(np.uint8)
    elif isinstance(index, faiss.IndexFlatCodes):
        yield faiss.rev_swig_ptr(index.codes.data(), index.codes.size())


def _allowed() -> bool:
    """Whether the system gives huge pages to those who ask."""
    try:
        return "[never]" not in _POLICY.read_text(encoding="ascii")
    except OSError:
        return False
