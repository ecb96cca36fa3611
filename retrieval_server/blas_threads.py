"""One thread for NumPy's matrix products in a server, whose requests are what runs in parallel.

OpenBLAS starts a thread a core for each product and lets them spin; with several requests at once they
mostly wait for each other. Measured on 4 cores at load 12, deduplicating about 1,800 results: 571 ms of
CPU a request with its own choice, 33 ms with one thread. NumPy's wheel carries an OpenBLAS of its own, so
FAISS's, which serves batches, keeps its threads.
"""

import ctypes
from pathlib import Path

import numpy as np

_NAMES = ("scipy_openblas_set_num_threads64_", "scipy_openblas_set_num_threads")


def use_one_blas_thread() -> bool:
    """Set NumPy's OpenBLAS to one thread, for the whole process.

    Returns:
        Whether there was one; a NumPy that was built otherwise keeps its threads.
    """
    for path in sorted((Path(np.__file__).parents[1] / "numpy.libs").glob("libscipy_openblas*")):
        library = ctypes.CDLL(str(path))  # loaded already: this is the same one
        for name in _NAMES:
            if hasattr(library, name):
                getattr(library, name)(1)
                return True
    return False
