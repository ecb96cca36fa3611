import numpy as np
import pytest

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
