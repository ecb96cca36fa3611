import numpy as np
import pytest

from index_builder.numerics.pair_products import pairwise_products


@pytest.mark.parametrize("pairs", [0, 1, 5000])
def test_products_of_single_pairs_are_those_of_all_pairs(pairs):
    random = np.random.default_rng(pairs)
    first = random.standard_normal((300, 70), dtype=np.float32).astype(np.float16)
    second = random.standard_normal((200, 70), dtype=np.float32)
    rows, others = random.integers(300, size=pairs), random.integers(200, size=pairs).astype(np.int32)
    expected = (first.astype(np.float32) @ second.T)[rows, others]
    assert pairwise_products(first, rows, second, others) == pytest.approx(expected, abs=1e-4)


def test_equal_vectors_get_equal_products_wherever_they_lie():
    random = np.random.default_rng(0)
    first, second = random.standard_normal((2, 700, 769), dtype=np.float32)
    second[:] = second[0]
    rows, others = np.divmod(np.arange(7000), 700)
    products = pairwise_products(first.astype(np.float16), rows, second, others).reshape(10, 700)
    assert (products == products[:, :1]).all()
