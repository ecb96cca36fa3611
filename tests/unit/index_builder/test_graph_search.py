from concurrent.futures import ThreadPoolExecutor

import faiss
import numpy as np
import pytest

from index_builder.indexing import graph_search
from index_builder.indexing.graph_search import GraphSearch
from tests.unit.index_builder.scattered import near, scattered

MOST = 10**8

METRICS = {"inner product": faiss.METRIC_INNER_PRODUCT, "l2": faiss.METRIC_L2}


@pytest.fixture(params=METRICS.values(), ids=METRICS)
def metric(request):
    return request.param


def graph_of(vectors, metric, *, links=16, ef=40):
    index = faiss.IndexHNSWFlat(vectors.shape[1], links, metric)
    index.hnsw.efConstruction = 40
    index.hnsw.efSearch = ef
    index.add(vectors)
    return index


def assert_equal(found, expected):
    """The same similarities, and the same rows wherever these tell one from the next."""
    similarities, rows = found
    assert similarities.dtype == np.float32
    assert rows.dtype == np.int64
    np.testing.assert_allclose(similarities, expected[0], rtol=1e-5, atol=1e-5)
    for row, right, similarity in zip(rows, expected[1], expected[0], strict=True):
        different = np.flatnonzero(row != right)
        for i in different:  # its similarity is that of a neighbour in the list, or it's the last
            close = np.isclose(similarity, similarity[i], rtol=1e-5, atol=1e-5)
            assert close.sum() > 1 or i == len(row) - 1
        assert len(different) < max(2, len(row) / 10)
        assert len(set(row[row >= 0])) == np.count_nonzero(row >= 0)


@pytest.mark.parametrize(
    ("n", "d", "links", "ef", "k"),
    [
        (3_000, 64, 16, 40, 10),
        (3_000, 64, 16, 400, 40),
        (3_000, 64, 4, 16, 40),  # k > efSearch: there FAISS counts
        (2_000, 33, 8, 16, 300),
        (500, 7, 32, 1_000, 20),
        (60, 16, 4, 16, 100),  # k > n
        (1, 16, 8, 16, 3),
        (2, 1, 8, 16, 1),
    ],
)
def test_it_finds_what_faiss_finds(metric, n, d, links, ef, k):
    vectors = scattered(n, d)
    index = graph_of(vectors, metric, links=links, ef=ef)
    queries = near(vectors, 50)

    assert_equal(GraphSearch.of(index, MOST).search(queries, k), index.search(queries, k))


def test_it_goes_down_from_the_highest_level(metric):
    vectors = scattered(3_000, 16)
    index = graph_of(vectors, metric, links=3)  # of few links: many levels
    assert index.hnsw.max_level >= 4
    queries = near(vectors, 100)

    assert_equal(GraphSearch.of(index, MOST).search(queries, 10), index.search(queries, 10))


def test_vectors_far_from_the_unit_sphere_are_found_too(metric):
    random = np.random.default_rng(1)
    vectors = (1_000 + 50 * random.standard_normal((2_000, 40))).astype(np.float32)
    vectors[:, 3] = 7  # the same everywhere
    vectors[:, 5] *= 100
    index = graph_of(vectors, metric)
    queries = vectors[:60] + random.standard_normal((60, 40)).astype(np.float32)

    similarities, rows = GraphSearch.of(index, MOST).search(queries, 10)

    expected = index.search(queries, 10)
    np.testing.assert_allclose(similarities, expected[0], rtol=1e-5)
    assert (rows == expected[1]).mean() > 0.99


def test_coarse_codes_change_nothing(metric, monkeypatch):
    """What a code says is a bound only: with a wide one each vector is read, with all of them equal too."""
    vectors = scattered(2_000, 32)
    index = graph_of(vectors, metric)
    queries = near(vectors, 50)
    rounded = graph_search._round_all

    def coarse(vectors, middle, step, inverse, codes):
        rounded(vectors, middle, step, inverse, codes)
        codes[:] = codes // 64 * 64
        return np.linalg.norm(vectors - middle - codes * step, axis=1).max()

    monkeypatch.setattr(graph_search, "_round_all", coarse)

    assert_equal(GraphSearch.of(index, MOST).search(queries, 10), index.search(queries, 10))


def test_the_same_vector_many_times_is_found_as_often(metric):
    vectors = scattered(100, 24).repeat(8, axis=0)
    index = graph_of(vectors, metric, links=8, ef=64)
    queries = near(vectors, 30)

    similarities, rows = GraphSearch.of(index, MOST).search(queries, 8)

    expected, _ = index.search(queries, 8)
    # Which of equal ones are visited is chance: in most cases the similarities are the same.
    assert np.isclose(similarities, expected, atol=1e-5).all(axis=1).mean() > 0.8
    own = vectors[rows] @ queries[:, :, None]
    if metric == faiss.METRIC_INNER_PRODUCT:
        np.testing.assert_allclose(similarities, own[:, :, 0], atol=1e-5)
    assert all(len(set(row)) == 8 for row in rows)


def test_what_a_search_saw_is_forgotten_when_its_number_comes_again(metric, one_thread):
    vectors = scattered(3_000, 16)
    index = graph_of(vectors, metric, ef=16)
    queries = near(vectors[[0]].repeat(2, axis=0), 600)
    queries[1:255] = -queries[0]  # far from the first; the 256th has its number

    assert_equal(GraphSearch.of(index, MOST).search(queries, 5), index.search(queries, 5))


def test_threads_share_one_search(metric):
    vectors = scattered(3_000, 32)
    search = GraphSearch.of(graph_of(vectors, metric), MOST)
    queries = near(vectors, 200)
    similarities, rows = search.search(queries, 10)

    def one(q):
        faiss.omp_set_num_threads(1)
        return search.search(queries[q : q + 1], 10)

    with ThreadPoolExecutor(4) as pool:
        for q, found in enumerate(pool.map(one, range(len(queries)))):
            assert np.array_equal(found[0][0], similarities[q])
            assert np.array_equal(found[1][0], rows[q])


def test_no_queries_find_nothing(metric):
    similarities, rows = GraphSearch.of(graph_of(scattered(50, 8), metric), MOST).search(np.empty((0, 8)), 4)

    assert similarities.shape == rows.shape == (0, 4)


@pytest.mark.parametrize(
    "kind", ["Flat", "IVF4,Flat", "HNSW8_PQ4x4", "HNSW8_SQ8", "IDMap2,HNSW8", "PCA4,HNSW8"]
)
def test_other_indices_are_not_for_it(kind):
    vectors = scattered(800, 8)
    index = faiss.index_factory(8, kind)
    index.train(vectors)
    index.add_with_ids(vectors, np.arange(800)) if kind.startswith("IDMap") else index.add(vectors)

    assert GraphSearch.of(index, MOST) is None


def test_what_it_does_not_follow_is_not_for_it():
    vectors = scattered(200, 8)
    assert GraphSearch.of(faiss.IndexHNSWFlat(8, 4), MOST) is None  # empty
    assert GraphSearch.of(graph_of(vectors, faiss.METRIC_L1), MOST) is None
    for setting in ("search_bounded_queue", "check_relative_distance"):
        index = graph_of(vectors, faiss.METRIC_L2)
        assert GraphSearch.of(index, MOST) is not None
        setattr(index.hnsw, setting, False)
        assert GraphSearch.of(index, MOST) is None
    vectors[7, 3] = np.nan
    assert GraphSearch.of(graph_of(vectors, faiss.METRIC_L2), MOST) is None


def test_codes_that_would_take_too_much_are_not_made():
    index = graph_of(scattered(200, 8), faiss.METRIC_L2)

    assert GraphSearch.of(index, 200 * 8) is not None
    assert GraphSearch.of(index, 200 * 8 - 1) is None
