"""What a server's process leaves out and gives back, so that it starts soon and stays small."""

import ctypes
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib.abc import MetaPathFinder

import numpy as np
import pyarrow as pa
from numba.core.registry import cpu_target

_M_MMAP_THRESHOLD = -3  # of glibc's malloc.h
_LARGE = 2**20


def give_back_large() -> None:
    """Give what is a megabyte and more back to the system when it is freed.

    glibc learns to keep what comes and goes, up to 32 MB at a time, in each thread's own memory: the vectors of a
    query for 3,000 neighbours are 9 MB, and 60 MB stayed behind for good. Arrow's own allocator keeps likewise.
    """
    with suppress(AttributeError, OSError):  # another C library than glibc
        ctypes.CDLL(None).mallopt(_M_MMAP_THRESHOLD, _LARGE)
    pa.set_memory_pool(pa.system_memory_pool())


def leave_out_the_unused() -> None:
    """Have pyarrow find no pandas, and numba no linear algebra of SciPy's, where they aren't loaded yet.

    Where these are installed pyarrow loads pandas before its first array, to see whether it is one of its columns, and
    numba looks for products of matrices before its first kernel; no array is, and no kernel asks for one. Together
    they are some 50 MB and half a second of the start and the first answer.
    """
    if "pandas" not in sys.modules:
        with _absent("pandas"):
            pa.array(np.empty(0))  # after which it doesn't look again
    if "scipy.linalg" not in sys.modules:
        with _absent("scipy.linalg"):
            cpu_target.target_context.refresh()


@contextmanager
def _absent(name: str) -> Iterator[None]:
    """Inside, a module can't be imported."""
    finder = _Absent(name)
    sys.meta_path.insert(0, finder)
    try:
        yield
    finally:
        sys.meta_path.remove(finder)


class _Absent(MetaPathFinder):
    """Refuses one module, and has nothing to say of others."""

    def __init__(self, name: str) -> None:
        self._name = name

    def find_spec(self, name: str, *_: object) -> None:
        """Look at a module that is being imported."""
        if name == self._name:
            raise ModuleNotFoundError(f"{name} is left out of this process", name=name)
