import subprocess
import sys

CODE = """
import ctypes, os
from pathlib import Path
import numpy as np
from retrieval_server.blas_threads import use_one_blas_thread

[path] = (Path(np.__file__).parents[1] / "numpy.libs").glob("libscipy_openblas*")
threads = ctypes.CDLL(str(path)).scipy_openblas_get_num_threads64_
assert threads() == min(2, len(os.sched_getaffinity(0))), threads()
assert use_one_blas_thread()
assert threads() == 1, threads()
"""


def test_numpys_openblas_is_set_to_one_thread():
    environment = {"OPENBLAS_NUM_THREADS": "2"}
    done = subprocess.run(
        [sys.executable, "-c", CODE], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
