import os
import subprocess
import sys

import numpy as np
import pytest

from index_builder.numerics.blas import cpu_flags
from index_builder.numerics.panel_products import LANES, QUERIES, ROWS, laid_out, multiplied, room


@pytest.mark.parametrize("d", [4, 100, 768])
def test_a_panels_products_are_numpys(d):
    random = np.random.default_rng(d)
    rows = random.integers(0, 256, size=(ROWS, d), dtype=np.uint8)
    queries = random.integers(-127, 128, size=(QUERIES, d)).astype(np.int8)
    panel, products = room(2 * (d // 4) * LANES), room(QUERIES, ROWS)
    laid_out(rows, panel, ROWS)
    addresses = queries.ctypes.data + d * np.arange(QUERIES)

    multiplied(panel, addresses, d // 4, products)

    assert np.array_equal(products, queries.astype(np.int64) @ rows.T.astype(np.int64))


ON_ANOTHER_CPU = """
import sys
from index_builder.numerics import blas
flags = frozenset(sys.argv[1].split(","))
blas.cpu_flags = lambda: flags
import numpy as np
from index_builder.numerics import panel_products as panels
random = np.random.default_rng(0)
rows = random.integers(0, 256, size=(panels.ROWS, 100), dtype=np.uint8)
queries = random.integers(-127, 128, size=(panels.QUERIES, 100)).astype(np.int8)
panel, products = panels.room(50 * panels.LANES), panels.room(panels.QUERIES, panels.ROWS)
panels.laid_out(rows, panel, panels.ROWS)
panels.multiplied(panel, queries.ctypes.data + 100 * np.arange(panels.QUERIES), 25, products)
assert np.array_equal(products, queries.astype(np.int64) @ rows.T.astype(np.int64))
print(panels.LANES)
"""


@pytest.mark.parametrize(
    ("has", "needs", "lanes"),
    [("avx2,avx_vnni", {"avx_vnni"}, 8), ("avx2", {"avx2"}, 8), ("none", set(), 16)],
)
def test_cpus_with_other_instructions_or_none_give_the_same(has, needs, lanes, tmp_path):
    if not (needs <= cpu_flags() or (needs == {"avx_vnni"} and {"avx512_vnni", "avx512vl"} <= cpu_flags())):
        pytest.skip(f"this CPU hasn't {', '.join(needs)}")

    done = subprocess.run(
        [sys.executable, "-c", ON_ANOTHER_CPU, has],
        check=False,
        capture_output=True,
        text=True,
        env={**os.environ, "NUMBA_CACHE_DIR": str(tmp_path)},
    )

    assert done.stdout.split() == [str(lanes)], done.stderr
