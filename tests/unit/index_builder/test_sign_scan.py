from functools import cache
from threading import Thread

import faiss
import numpy as np
import pytest

from index_builder.indexing import sign_scan
from index_builder.indexing.nearest_lists import nearest_lists
from index_builder.indexing.sign_scan import SignScan
from index_builder.numerics.sign_blocks import takes
from tests.unit.index_builder.scattered import near, scattered

N = 1_500
METRICS = {"inner_product": faiss.METRIC_INNER_PRODUCT, "l2": faiss.METRIC_L2}


@pytest.fixture(params=["in blocks", "row by row"], autouse=True)
def most(request):
    """What copies of codes in blocks may take, enough for all and nothing."""
    if request.param == "in blocks" and not takes(1):
        pytest.skip("this CPU has no instruction for blocks")
    return 10**9 if request.param == "in blocks" else 0


@cache
def built(d, metric="inner_product", kind="IVF12,RaBitQ", n=N):
    """Vectors, and an index of them."""
    vectors = scattered(n, d)
    index = faiss.index_factory(d, kind, METRICS[metric])
    lists = faiss.extract_index_ivf(index)
    lists.cp.niter = 2
    index.train(scattered(max(n, 500), d))
    index.add(vectors)
    faiss.downcast_index(lists).qb = 4
    return vectors, index


def by_faiss(index, queries, depth, nprobe):
    parameters = faiss.SearchParametersIVF(nprobe=nprobe)
    if isinstance(index, faiss.IndexPreTransform):
        parameters = faiss.SearchParametersPreTransform(index_params=parameters)
    return index.search(queries, depth, params=parameters)


def by_row(values, rows):
    """Results of each query in the order of their rows: a search gives them in any."""
    order = np.argsort(rows)
    return np.take_along_axis(values, order, axis=1), np.take_along_axis(rows, order, axis=1)


def assert_as_faiss(scan, index, queries, depth, nprobe):
    """The same rows at the same similarity; where a value is halfway between two levels, nearly the same."""
    known, known_rows = by_faiss(index, queries, depth, nprobe)
    found, rows = scan.search(queries, depth, nprobe)
    assert found.shape == rows.shape == known.shape
    assert (np.count_nonzero(rows >= 0, axis=1) == np.count_nonzero(known_rows >= 0, axis=1)).all()
    nearest = -1 if index.metric_type == faiss.METRIC_L2 else 1
    off = 0
    for q in range(len(queries)):
        there, known_there = rows[q] >= 0, known_rows[q] >= 0
        assert len(set(rows[q][there])) == np.count_nonzero(there)
        theirs = dict(zip(known_rows[q][known_there].tolist(), known[q][known_there].tolist(), strict=True))
        for row, value in zip(rows[q][there].tolist(), found[q][there].tolist(), strict=True):
            if row in theirs:
                assert abs(theirs[row] - value) < 0.004
                off += abs(theirs[row] - value) > 5e-6
            else:
                assert abs(known[q][known_there][-1] - value) < 0.004, "as near as their last"
        assert (nearest * found[q][~there] == -np.inf).all()
    assert off < max(2, 0.002 * rows.size)


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("d", [5, 30, 70, 200, 256, 260, 768])
def test_estimates_are_those_of_faiss(d, metric, most):
    vectors, index = built(d, metric)

    assert_as_faiss(SignScan.of(index, most), index, near(vectors, 100, noise=0.3), 25, 5)


@pytest.mark.parametrize(("depth", "nprobe"), [(1, 1), (1, 12), (40, 1), (400, 12), (2_000, 12), (30, 50)])
def test_few_or_more_than_there_are(depth, nprobe, most):
    vectors, index = built(48)

    assert_as_faiss(SignScan.of(index, most), index, near(vectors, 40, noise=0.3), depth, min(nprobe, 12))


@pytest.mark.parametrize("count", [1, 2, 40])
def test_one_list_for_all_queries(count, most):
    vectors, index = built(48, kind="IVF1,RaBitQ")

    assert_as_faiss(SignScan.of(index, most), index, near(vectors, count, noise=0.3), 30, 1)


def test_no_query_finds_nothing(most):
    _, index = built(48)

    found, rows = SignScan.of(index, most).search(np.empty((0, 48), dtype=np.float32), 30, 6)

    assert found.shape == rows.shape == (0, 30)


@pytest.mark.parametrize("kind", ["RR48,IVF12,RaBitQ", "OPQ8_48,IVF12,RaBitQ", "IVF12_HNSW8,RaBitQ"])
def test_transforms_before_the_lists_and_a_graph_that_finds_them(kind, most):
    vectors, index = built(48, kind=kind)

    assert_as_faiss(SignScan.of(index, most), index, near(vectors, 40, noise=0.3), 30, 6)


def test_codes_are_copied_where_they_may_be(most):
    _, index = built(48)
    scan = SignScan.of(index, most)

    lists, in_blocks = scan._in_blocks()

    assert in_blocks is (True if most else None)
    assert (lists[:, 1:] == scan._lists[:, 1:]).all(), "row numbers stay where they are"
    assert np.array_equal(lists[:, 0], scan._lists[:, 0]) is (not most)


@pytest.mark.parametrize("d", [5, 70, 768])
@pytest.mark.parametrize("metric", METRICS)
def test_a_copy_in_blocks_gives_what_the_codes_themselves_give(metric, d, most):
    vectors, index = built(d, metric)
    queries = near(vectors, 100, noise=0.3)
    found, rows = SignScan.of(index, most).search(queries, N, 12)

    other, other_rows = SignScan.of(index, 0).search(queries, N, 12)

    order, other_order = np.argsort(rows), np.argsort(other_rows)
    np.testing.assert_array_equal(
        np.take_along_axis(rows, order, axis=1), np.take_along_axis(other_rows, other_order, axis=1)
    )
    np.testing.assert_allclose(
        np.take_along_axis(found, order, axis=1),
        np.take_along_axis(other, other_order, axis=1),
        atol=2e-6 * np.abs(found).max(),
    )


def test_lists_that_stay_on_disk(tmp_path, most):
    vectors, index = built(200)
    faiss.write_index(index, str(tmp_path / "image.index"))
    mapped = faiss.read_index(str(tmp_path / "image.index"), faiss.IO_FLAG_MMAP | faiss.IO_FLAG_READ_ONLY)
    queries = near(vectors, 40, noise=0.3)

    found, rows = SignScan.of(mapped, most).search(queries, 30, 6)

    assert isinstance(faiss.downcast_InvertedLists(mapped.invlists), faiss.OnDiskInvertedLists)
    known, known_rows = SignScan.of(index, most).search(queries, 30, 6)
    np.testing.assert_array_equal(found, known)
    np.testing.assert_array_equal(rows, known_rows)


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize(
    "kind", ["IVF12,RaBitQ", "RR48,IVF12,RaBitQ", "OPQ8_40,IVF12,RaBitQ", "PCA20,IVF12,RaBitQ"]
)
@pytest.mark.parametrize("count", [1, 4, 7, 16])
def test_a_few_queries_find_what_they_find_among_many(kind, metric, count, one_thread, most):
    vectors, index = built(48, metric, kind)
    queries, scan = near(vectors, 40, noise=0.3), SignScan.of(index, most)
    many, _ = scan.search(queries, 30, 6)

    assert_as_faiss(scan, index, queries[:count], 30, 6)
    np.testing.assert_allclose(
        np.sort(scan.search(queries[:count], 30, 6)[0]), np.sort(many[:count]), atol=0.004
    )


def test_lists_without_rows(most):
    vectors, index = built(48, kind="IVF40,RaBitQ", n=15)

    assert_as_faiss(SignScan.of(index, most), index, near(vectors, 20, noise=0.3), 30, 40)


def test_no_queries(most):
    _, index = built(48)

    found, rows = SignScan.of(index, most).search(np.empty((0, 48), dtype=np.float32), 30, 6)

    assert found.shape == rows.shape == (0, 30)


def test_threads_find_what_one_does(most):
    vectors, index = built(200)
    scan, queries, found = SignScan.of(index, most), near(vectors, 60, noise=0.3), {}

    def search(i):
        faiss.omp_set_num_threads(1 + i % 3)
        found[i] = scan.search(queries, 30, 6)

    threads = [Thread(target=search, args=(i,)) for i in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(found) == 6
    known, known_rows = by_row(*found[0])
    for each in found.values():
        values, rows = by_row(*each)
        np.testing.assert_array_equal(rows, known_rows)
        np.testing.assert_array_equal(values, known)


def test_other_kinds_are_left_to_faiss(most):
    _, index = built(48)
    index = faiss.clone_index(index)
    index.qb = 8
    more = faiss.index_factory(48, "IVF4,RaBitQ3", faiss.METRIC_INNER_PRODUCT)

    for other in (index, more, faiss.index_factory(48, "IVF4,SQ8"), faiss.IndexFlatIP(48)):
        assert SignScan.of(other, most) is None


@pytest.mark.parametrize("metric", METRICS)
def test_lists_that_float16_cannot_tell_apart_are_told_apart(metric):
    random = np.random.default_rng(1)
    query = scattered(1, 40)
    centroids = query / np.linalg.norm(query) * 0.5 + 1e-5 * random.standard_normal((300, 40))
    centroids = centroids.astype(np.float32)
    exact = centroids.astype(np.float64) @ query[0]
    halves = (centroids**2).sum(axis=1) / 2 if metric == "l2" else np.zeros(300, np.float32)
    rounded, left = sign_scan._rounded(centroids)
    assert rounded.dtype == np.uint16 and left > 0
    assert np.ptp(exact) < 1e-3

    found = nearest_lists(query, centroids, (rounded, left, halves), 20)[0]

    values = exact - halves
    assert np.sort(values[found])[0] >= np.sort(values)[-20] - 1e-7
    assert len(set(found.tolist())) == 20


def test_centroids_beyond_float16_or_too_many_are_read_as_they_are(monkeypatch):
    centroids = scattered(9, 8)
    assert sign_scan._rounded(centroids * 1e6)[0].dtype == np.float32
    monkeypatch.setattr(sign_scan, "HALVES_BYTES", 0)
    assert sign_scan._rounded(centroids)[0] is centroids
