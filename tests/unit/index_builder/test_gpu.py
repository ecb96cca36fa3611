"""What can be tried of the GPU's side without one: that it stands aside."""

import faiss
import numpy as np
import pytest

from index_builder.numerics.gpu import GpuIndex, gpu_count, nearest, nearest_on_gpu

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
    assert GpuIndex.of(index, 1) is None and nearest_on_gpu(index) is None
