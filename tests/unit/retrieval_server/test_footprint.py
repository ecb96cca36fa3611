"""What a server's process leaves out: seen in processes of their own, since it holds for good."""

import platform
import subprocess
import sys

import pytest

LEFT_OUT = """
import sys
import numpy as np
import pyarrow as pa
from retrieval_server.footprint import leave_out_the_unused
leave_out_the_unused()
from index_builder.numerics.pair_products import dot
assert pa.array(np.arange(3)).to_pylist() == [0, 1, 2]
assert dot(np.ones(5, np.float32), np.ones(5, np.float32)) == 5
assert not {"pandas", "scipy.linalg"} & set(sys.modules), sorted(sys.modules)
import pandas, scipy.linalg
print(pandas.DataFrame({"a": [1]})["a"].tolist())
"""

KEPT = """
import ctypes
import sys
import numpy as np
import pyarrow as pa
from retrieval_server.footprint import give_back_large


class State(ctypes.Structure):
    names = "arena ordblks smblks hblks hblkhd usmblks fsmblks uordblks fordblks keepcost"
    _fields_ = [(name, ctypes.c_size_t) for name in names.split()]


libc = ctypes.CDLL(None)
libc.mallinfo2.restype = State
if sys.argv[1] == "give back":
    give_back_large()
    assert pa.default_memory_pool().backend_name == "system"
np.ones(2_000_000)  # which glibc takes for what it should keep from now on
before = libc.mallinfo2().hblks
kept = np.ones(1_000_000)
print(libc.mallinfo2().hblks - before)
"""


def run(code, *arguments):
    ended = subprocess.run(
        [sys.executable, "-c", code, *arguments], check=False, capture_output=True, text=True
    )
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


def test_neither_pandas_nor_linear_algebra_is_loaded_and_both_can_be_afterwards():
    assert run(LEFT_OUT) == "[1]\n"


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library than glibc")
def test_large_pieces_of_memory_go_back_to_the_system_when_they_are_freed():
    assert run(KEPT, "give back") == "1\n", "a piece of the system's own, which a free gives back"
    assert run(KEPT, "keep") == "0\n", "without it from what was freed before"
