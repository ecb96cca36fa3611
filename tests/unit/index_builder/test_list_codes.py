import faiss
import numpy as np
import pytest

from index_builder.lists.list_codes import ProductGrid, list_decoder
from tests.unit.index_builder.scattered import scattered

D = 32


@pytest.fixture(scope="module")
def vectors():
    return scattered(2_000, D)


def index_and_codes(kind, vectors):
    """An index, the codes of one list, and what its quantiser makes of them: vectors, or differences to the middle."""
    index = faiss.index_factory(D, kind, faiss.METRIC_INNER_PRODUCT)
    index.train(vectors)
    index.add(vectors)
    size = index.invlists.list_size(3)
    codes = faiss.rev_swig_ptr(index.invlists.get_codes(3), size * index.code_size).reshape(size, -1)
    quantizer = index.pq if isinstance(index, faiss.IndexIVFPQ) else index.sq
    return index, codes, quantizer.decode(codes)


@pytest.mark.parametrize("kind", ["IVF8,PQ8np", "IVF8,PQ32np", "IVF8,PQ8x4np", "IVF8,SQ8", "IVF8,SQ4"])
def test_codes_are_decoded_to_the_bits_that_faiss_gives(vectors, kind):
    index, codes, known = index_and_codes(kind, vectors)
    decoder = list_decoder(index)

    np.testing.assert_array_equal(decoder.decode(codes), known)
    assert decoder.decode(codes[:0]).shape == (0, D)


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
@pytest.mark.parametrize("kind", ["IVF8,PQ8np", "IVF8,PQ32np", "IVF8,SQ8"])
def test_whole_numbers_stand_for_codes_within_the_error_they_state(vectors, kind, scale):
    index, codes, known = index_and_codes(kind, vectors * np.float32(scale))
    grid = list_decoder(index).grid

    numbers = codes.astype(int) - 128
    if isinstance(grid, ProductGrid):
        numbers = (
            grid.entries[codes + np.arange(0, len(grid.entries), 256)].reshape(len(codes), D).astype(int)
        )

    rest = (known.astype(np.float64) - grid.base) / grid.weights - numbers

    assert np.linalg.norm(rest, axis=1).max() <= grid.error + 1e-4
    assert grid.error <= 0.5 * D**0.5, "no whole number is off by more than a half"
    assert np.ptp(numbers) > 100, "most of the 8 bits are in use"


def test_codes_of_fewer_bits_say_nothing_in_whole_numbers(vectors):
    for kind in ("IVF8,PQ8x4np", "IVF8,SQ4"):
        index, _, _ = index_and_codes(kind, vectors)

        assert list_decoder(index).grid is None
