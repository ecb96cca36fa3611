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


@pytest.mark.parametrize("q", [5, 700])
def test_queries_shared_out_among_copies_find_what_the_index_finds(vectors, q):
    index = faiss.index_factory(D, "IVF16,SQ8", faiss.METRIC_INNER_PRODUCT)
    index.train(vectors)
    index.add(vectors)
    copies = GpuIndex([faiss.clone_index(index) for _ in range(2)])  # as FAISS puts on each GPU
    parameters = faiss.SearchParametersIVF(nprobe=7)

    similarities, rows = copies.search(vectors[:q], 5, 7, parameters)

    known = index.search(vectors[:q], 5, params=parameters)
    np.testing.assert_array_equal(similarities, known[0])
    np.testing.assert_array_equal(rows, known[1])
    assert copies.search(vectors[:q], 2_049, 7, parameters) is None
    assert copies.search(vectors[:q], 5, 2_049, parameters) is None
