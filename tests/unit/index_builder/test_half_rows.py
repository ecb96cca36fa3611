import numpy as np
import pytest

from index_builder.numerics.half_rows import products_with_halves
from index_builder.numerics.unit_vectors import scaled_rows_of


@pytest.mark.parametrize("d", [1, 7, 64, 769])
def test_rows_come_in_the_order_asked_for_at_length_one(d):
    random = np.random.default_rng(d)
    stored = (3 * random.standard_normal((50, d))).astype(np.float16)
    stored[5] = 0
    stored[6] = 3e-6  # numbers that float16 has only in part
    rows = random.integers(0, 50, size=200)
    rows[:3] = 5, 6, 6

    scaled = scaled_rows_of(stored, rows)

    exact = stored[rows].astype(np.float64)
    norms = np.linalg.norm(exact, axis=1, keepdims=True)
    np.testing.assert_allclose(scaled, exact / np.where(norms, norms, 1), atol=2e-7)
    assert scaled.dtype == np.float32 and not scaled[0].any()
    np.testing.assert_array_equal(scaled[1], scaled[2])
    assert scaled_rows_of(stored, rows[:0]).shape == (0, d)


def test_no_row_has_the_least_product():
    random = np.random.default_rng(0)
    stored, query = random.standard_normal((9, 33)).astype(np.float16), random.standard_normal(33, np.float32)
    products = np.zeros(4, dtype=np.float32)

    products_with_halves(query, np.array([2, -1, 8, 2]), stored.view(np.uint16), products)

    assert products[1] == -np.inf and products[0] == products[3]
    np.testing.assert_allclose(products[[0, 2]], stored[[2, 8]].astype(np.float32) @ query, rtol=1e-5)
