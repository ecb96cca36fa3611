"""One thread for matrix products while threads of ours multiply side by side.

OpenBLAS shares one product among its threads, and lets no second product in meanwhile. Many small products are
faster the other way: one thread each.
"""

import ctypes
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from index_builder.numerics.faiss_library import load_faiss

_lock = threading.Lock()
_inside = 0  # how many are inside `one_matrix_thread`
_usual = 0  # threads before the first came in


@contextmanager
def one_matrix_thread() -> Iterator[None]:
    """NumPy's OpenBLAS has one thread inside, for the whole process, and what it had before after the last is out.

    A NumPy that was built with another library is left as it is.
    """
    global _inside, _usual
    library = _openblas()
    if library is None:
        yield
        return
    get, put = library
    with _lock:
        if not _inside:
            _usual = int(get())
            put(1)
        _inside += 1
    try:
        yield
    finally:
        with _lock:
            _inside -= 1
            if not _inside:
                put(_usual)


@contextmanager
def one_faiss_thread() -> Iterator[None]:
    """FAISS works with one thread inside, where it is called from the same thread of ours."""
    faiss = load_faiss()
    threads = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(1)
    try:
        yield
    finally:
        faiss.omp_set_num_threads(threads)


def alone() -> None:
    """What this thread calls works in it alone from now on, with no team that others' teams are in the way of."""
    load_faiss().omp_set_num_threads(1)


@cache
def _openblas() -> tuple[Any, Any] | None:
    """The functions that tell and set the threads of the OpenBLAS in NumPy's wheel."""
    for path in sorted((Path(np.__file__).parents[1] / "numpy.libs").glob("libscipy_openblas*")):
        library = ctypes.CDLL(str(path))  # loaded already: this is the same one
        for ending in ("64_", ""):
            names = [f"scipy_openblas_{verb}_num_threads{ending}" for verb in ("get", "set")]
            if all(hasattr(library, name) for name in names):
                return getattr(library, names[0]), getattr(library, names[1])
    return None
