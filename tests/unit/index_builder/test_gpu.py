"""What can be tried of the GPU's side without one: that it stands aside, and adding by another quantiser."""

import faiss
import numpy as np
import pytest

from index_builder.numerics.gpu import GpuIndex, add_with_lists, gpu_count, nearest, quantizer_on_gpu

N, D = 3_000, 32

pytestmark = pytest.mark.skipif(faiss.get_num_gpus() > 0, reason="says what happens without a GPU")


@pytest.fixture(scope="module")
def vectors():
    vectors = np.random.default_rng(0).standard_normal((N, D)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def test_without_a_gpu_searches_are_the_cpus(vectors):
    similarities, rows = nearest(vectors[:20], vectors, 5, faiss.METRIC_INNER_PRODUCT)

    exact = vectors[:20] @ vectors.T
    np.testing.assert_array_equal(rows, np.argsort(-exact, axis=1)[:, :5])
    np.testing.assert_allclose(similarities, -np.sort(-exact, axis=1)[:, :5], atol=1e-6)
    index = faiss.index_factory(D, "IVF16,Flat", faiss.METRIC_INNER_PRODUCT)
    assert gpu_count() == 0
    assert GpuIndex.of(index, 1) is None and quantizer_on_gpu(index) is None


@pytest.mark.parametrize("key", ["IVF16,Flat", "IVF16,SQ8", "RR32,IVF16,RaBitQ", "PCA16,IVF16,PQ8x4"])
def test_lists_found_by_another_quantiser_give_the_same_index(vectors, key):
    trained = faiss.index_factory(D, key, faiss.METRIC_INNER_PRODUCT)
    trained.train(vectors)
    usual, other = faiss.clone_index(trained), faiss.clone_index(trained)
    numbers = np.arange(N)[::-1] * 3
    middles = faiss.clone_index(faiss.downcast_index(faiss.extract_index_ivf(trained).quantizer))

    usual.add_with_ids(vectors, numbers)
    add_with_lists(other, vectors, np.ascontiguousarray(numbers), middles)

    assert faiss.serialize_index(other).tobytes() == faiss.serialize_index(usual).tobytes()
