import faiss
import numpy as np
import pytest

from index_builder.indexing import list_assignment
from index_builder.indexing.index_lists import put_together, write_parts
from index_builder.indexing.list_assignment import add_to_lists, list_finder
from index_builder.numerics.stored_vectors import StoredVectors
from spine.progress import SILENT

N, D = 6_000, 32


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
    random = np.random.default_rng(0)
    vectors = (
        0.4 * random.standard_normal((N, D))
        + random.standard_normal((40, D))[random.integers(40, size=N)]
        + 0.3
    )
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    path = tmp_path_factory.mktemp("vectors") / "0.npy"
    np.save(path, vectors.astype(np.float16))
    return StoredVectors([path])


def trained(stored, key):
    index = faiss.index_factory(D, key, faiss.METRIC_INNER_PRODUCT)
    index.train(stored[:])
    return index


@pytest.mark.parametrize("key", ["IVF16,Flat", "IVF16,SQ8", "RR32,IVF16,RaBitQ", "PCA16,IVF16,PQ8x4"])
def test_lists_found_by_other_means_give_the_same_index(stored, key):
    index = trained(stored, key)
    usual, other = faiss.clone_index(index), faiss.clone_index(index)
    numbers = np.ascontiguousarray(np.arange(N)[::-1] * 3)
    middles = faiss.clone_index(faiss.downcast_index(faiss.extract_index_ivf(index).quantizer))

    usual.add_with_ids(stored[:], numbers)
    add_to_lists(other, stored[:], numbers, lambda turned: middles.search(turned, 1)[1][:, 0])

    assert faiss.serialize_index(other).tobytes() == faiss.serialize_index(usual).tobytes()


@pytest.mark.parametrize("key", ["IVF64,SQ8", "RR32,IVF64,RaBitQ"])
def test_with_many_lists_whole_numbers_find_the_nearest_or_one_as_near(tmp_path, stored, key, monkeypatch):
    monkeypatch.setattr(list_assignment, "_MANY_LISTS", 64)
    index = trained(stored, key)
    parts = [tmp_path / name for name in "abc"]

    write_parts(index, stored, parts, 2_500, SILENT)
    put_together(index, N, parts, tmp_path / "index")

    whole = faiss.read_index(str(tmp_path / "index"))
    lists = faiss.extract_index_ivf(whole)
    own = np.full(N, -1)
    for number in range(64):
        ids = faiss.rev_swig_ptr(lists.invlists.get_ids(number), lists.invlists.list_size(number))
        own[ids] = number
    middles = faiss.downcast_index(lists.quantizer).reconstruct_n(0, 64)
    similarities = list_assignment.turned(index, stored[:]) @ middles.T
    behind = similarities.max(axis=1) - similarities[np.arange(N), own]
    assert own.min() >= 0
    assert (behind == 0).mean() > 0.97
    assert behind.max() < 0.01


def test_few_lists_a_graph_over_them_and_distances_are_left_to_faiss(stored, monkeypatch):
    assert list_finder(trained(stored, "IVF16,SQ8"), stored) is None
    monkeypatch.setattr(list_assignment, "_MANY_LISTS", 16)
    assert list_finder(trained(stored, "IVF16,SQ8"), stored) is not None
    assert list_finder(trained(stored, "IVF16_HNSW8,SQ8"), stored) is None
    by_distance = faiss.index_factory(D, "IVF16,SQ8", faiss.METRIC_L2)
    assert list_finder(by_distance, stored) is None
