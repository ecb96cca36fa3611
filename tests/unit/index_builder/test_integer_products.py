import numpy as np
import pytest

from index_builder.numerics import integer_products
from index_builder.numerics.integer_products import Grid, Space, most_similar, product_threads, products
from tests.unit.index_builder.scattered import unit


@pytest.fixture(params=["eight bits", "floats"])
def kernel(request, monkeypatch):
    """Both ways to multiply; on a CPU without 8-bit kernels the first is slow, not wrong."""
    monkeypatch.setattr(integer_products, "has_fast_integers", lambda: request.param == "eight bits")


@pytest.mark.parametrize(
    ("n", "m", "d"), [(1, 1, 1), (3, 5, 7), (32, 64, 768), (33, 129, 100), (7, 40, 1040), (5, 9, 4_000)]
)
def test_products_are_exact_whatever_the_shape_and_the_kernel(kernel, n, m, d):
    random = np.random.default_rng(0)
    levels = min(127, int(np.sqrt(2**24 / d)))
    codes, others = (random.integers(-levels, levels + 1, (rows, d)).astype(np.int8) for rows in (n, m))
    codes[0], others[0] = levels, levels  # the largest product there can be

    np.testing.assert_array_equal(products(codes, others), codes.astype(np.int64) @ others.astype(np.int64).T)


@pytest.mark.parametrize("d", [16, 768, 1280, 4_000])
def test_codes_are_the_nearest_level_and_their_products_stay_countable_in_float32(d):
    vectors = unit(np.random.default_rng(0).standard_normal((500, d)) + 0.3)
    grid = Grid.of(vectors)

    codes = grid.codes(vectors)

    assert grid.levels**2 * d < 2**24 and np.abs(codes.astype(int)).max() <= grid.levels
    assert np.abs(codes * grid.step + grid.middle - vectors).max() <= grid.step / 2 + 1e-6


@pytest.mark.parametrize("spherical", [True, False])
def test_products_with_their_constants_find_a_nearest_centroid_but_for_rounding(kernel, spherical):
    random = np.random.default_rng(0)
    vectors = random.standard_normal((2_000, 256)) + 0.5
    vectors[:, 3] += 12  # as in CLIP: a dimension far from zero
    vectors = unit(vectors)
    centroids = vectors[:200] * random.uniform(0.9, 1, (200, 1)).astype(np.float32)
    centroids = unit(centroids) if spherical else centroids
    space = Space.of(vectors)

    compared = products(space.kept, space.grid.codes(centroids))
    compared += space.grid.constants(centroids, spherical=spherical)

    nearness = vectors @ centroids.T - (0 if spherical else (centroids**2).sum(axis=1) / 2)
    found = nearness[np.arange(2_000), compared.argmax(axis=1)]
    assert (nearness.max(axis=1) - found).max() < 0.002
    offsets = space.grid.offsets(vectors)
    np.testing.assert_allclose(space.grid.nearness(compared.max(axis=1), offsets), found, atol=0.004)


def test_vectors_that_are_all_one_have_a_grid():
    vectors = np.tile(unit(np.ones(8)), (10, 1))

    space = Space.of(vectors)

    assert not space.kept.any() and space.grid.step > 0


def test_product_threads_multiply_alone_and_leave_torchs_number_as_it_was():
    import torch

    before = torch.get_num_threads()

    with pytest.raises(ZeroDivisionError), integer_products.product_threads() as pool:
        assert set(pool.map(lambda _: torch.get_num_threads(), range(8))) == {1}
        raise ZeroDivisionError

    assert torch.get_num_threads() == before


@pytest.mark.parametrize("tile", [7, 64, 2**14])
def test_the_most_similar_is_the_first_of_the_best_however_many_are_compared_at_once(
    kernel, monkeypatch, tile
):
    monkeypatch.setattr(integer_products, "_OTHERS", tile)
    random = np.random.default_rng(0)
    codes, others = (
        random.integers(-3, 4, (n, 8), dtype=np.int8) for n in (300, 100)
    )  # so small that many tie
    constants = random.integers(-5, 6, 100, dtype=np.int32)

    with product_threads() as pool:
        found = most_similar(codes, others, constants, pool)

    exact = codes.astype(np.int64) @ others.T.astype(np.int64) + constants
    np.testing.assert_array_equal(found, exact.argmax(axis=1))
