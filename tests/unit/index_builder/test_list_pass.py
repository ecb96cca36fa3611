import contextlib
import errno
import fcntl
import os
import threading

import faiss
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from index_builder.indexing.candidate_ranking import in_order
from index_builder.lists import inverted_lists, list_kernel, list_pairs, list_pass, list_scorers
from index_builder.lists.kept_arrays import KeptArrays
from index_builder.lists.list_pass import GROWN, open_list_pass
from index_builder.lists.ordered_threads import mapped_in_order
from index_builder.metadata.row_mask import RowMask
from tests.unit.index_builder.scattered import near, scattered, unit

N, D, NLIST = 3_000, 32, 24

KINDS = [
    "IVF24,Flat",
    "IVF24,SQ8",
    "IVF24,SQ4",
    "IVF24,SQfp16",
    "IVF24,PQ8np",
    "IVF24,PQ8x4np",
    "OPQ8,IVF24,PQ8np",
    "RR32,IVF24,SQ8",
    "PCAR16,IVF24,SQ8",
    "L2norm,IVF24,Flat",
    "IVF24_HNSW8,SQ8",
    "IVF24,RaBitQ",
    "RR32,IVF24,RaBitQ",
]
METRICS = {"inner_product": faiss.METRIC_INNER_PRODUCT, "l2": faiss.METRIC_L2}
MEMORY, MAPPED = 0, faiss.IO_FLAG_MMAP | faiss.IO_FLAG_READ_ONLY


def trained(kind, metric, vectors):
    """An empty index, of quick k-means: what it finds is compared with itself."""
    index = faiss.index_factory(D, kind, metric)
    ivf = faiss.downcast_index(faiss.extract_index_ivf(index))
    if isinstance(ivf, faiss.IndexIVFPQ):
        ivf.pq.cp.niter = 2
    if kind.startswith("OPQ"):
        faiss.downcast_VectorTransform(index.chain.at(0)).niter = 2
        faiss.downcast_VectorTransform(index.chain.at(0)).niter_pq_0 = 2
    index.train(vectors)
    return index


@pytest.fixture(scope="module")
def vectors():
    return scattered(N, D)


@pytest.fixture(scope="module")
def queries(vectors):
    return near(vectors, 150, noise=0.2)


@pytest.fixture(scope="module")
def built(tmp_path_factory, vectors):
    """Indices by kind, metric and way of reading, each built once."""
    folder, known = tmp_path_factory.mktemp("indices"), {}

    def get(kind, metric="inner_product", flags=MEMORY):
        path = folder / f"{kind}.{metric}"
        if path not in known:
            index = trained(kind, METRICS[metric], vectors)
            index.add(vectors)
            faiss.write_index(index, str(path))
        if (path, flags) not in known:
            known[path] = known[path, flags] = faiss.read_index(str(path), flags)
        return known[path, flags], path

    return get


def by_faiss(index, queries, k, nprobe, mask=None):
    parameters = faiss.SearchParametersIVF(nprobe=nprobe, sel=mask.selector() if mask else None)
    if isinstance(index, faiss.IndexPreTransform):
        parameters = faiss.SearchParametersPreTransform(index_params=parameters)
    found, rows = index.search(queries, k, params=parameters)
    found = 1 - found / 2 if index.metric_type == faiss.METRIC_L2 else found
    return in_order(np.where(rows >= 0, found, -np.inf), rows)


def in_a_pass(index, path, queries, k, nprobe):
    similarities, rows, lists = open_list_pass(index, path).search(queries, k, nprobe)
    np.testing.assert_array_equal(lists, np.full(len(queries), min(nprobe, NLIST)))
    return in_order(similarities, rows)


def assert_same(ours, theirs, tolerance=2e-6):
    """The same neighbours; two may change places or the last one be another where similarities agree."""
    (similarities, rows), (known, known_rows) = ours, theirs
    np.testing.assert_array_equal(rows >= 0, known_rows >= 0)
    there = rows >= 0
    np.testing.assert_allclose(similarities[there], known[there], atol=tolerance)
    assert np.isneginf(similarities[~there]).all()
    for found, values, other, limit in zip(rows, similarities, known_rows, known[:, -1], strict=True):
        assert len(np.unique(found[found >= 0])) == (found >= 0).sum()
        assert (values[~np.isin(found, other)] <= limit + tolerance).all()


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("kind", KINDS)
def test_a_pass_finds_what_faiss_finds(built, queries, kind, metric):
    for flags in (MEMORY, MAPPED):
        index, path = built(kind, metric, flags)
        for k, nprobe in ((1, 1), (10, 4), (300, 3), (40, NLIST)):
            ours = in_a_pass(index, path, queries, k, nprobe)

            assert_same(ours, by_faiss(index, queries, k, nprobe), 2e-6 if metric != "l2" else 1e-5)


@given(
    kind=st.sampled_from(KINDS),
    metric=st.sampled_from(sorted(METRICS)),
    flags=st.sampled_from([MEMORY, MAPPED]),
    k=st.integers(1, 500),
    nprobe=st.integers(1, NLIST),
    q=st.integers(1, 150),
)
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_pass_finds_what_faiss_finds_whatever_is_asked(built, queries, kind, metric, flags, k, nprobe, q):
    index, path = built(kind, metric, flags)

    ours = in_a_pass(index, path, queries[:q], k, nprobe)

    theirs = by_faiss(index, queries[:q], k, nprobe)
    assert_same(ours, theirs, 1e-5)


def test_all_lists_of_plain_vectors_give_the_exact_neighbours(built, vectors, queries):
    index, path = built("IVF24,Flat")

    similarities, rows = in_a_pass(index, path, queries, 20, NLIST)

    known = queries @ vectors.T
    exact = np.argsort(-known, axis=1, kind="stable")[:, :20]
    np.testing.assert_array_equal(rows, exact)
    np.testing.assert_allclose(similarities, np.take_along_axis(known, exact, 1), atol=1e-6)


def test_queries_that_share_no_list_and_queries_that_share_all(built):
    index, path = built("IVF24,SQ8")
    middles = unit(faiss.extract_index_ivf(index).quantizer.reconstruct_n(0, NLIST))

    for queries, nprobe in ((middles, 1), (np.repeat(middles[:1], 50, axis=0), 5)):
        ours = in_a_pass(index, path, queries, 15, nprobe)

        assert_same(ours, by_faiss(index, queries, 15, nprobe))


@pytest.mark.parametrize("flags", [MEMORY, MAPPED])
def test_empty_lists_and_too_few_vectors_end_in_row_minus_one(tmp_path, vectors, queries, flags):
    index = faiss.index_factory(D, "IVF24,SQ8", faiss.METRIC_INNER_PRODUCT)
    index.train(vectors)
    path = tmp_path / "index"
    for rows in (vectors[:0], vectors[:5]):
        index.add(rows)
        faiss.write_index(index, str(path))
        opened = faiss.read_index(str(path), flags)

        for nprobe in (2, NLIST):
            similarities, found = in_a_pass(opened, path, queries, 9, nprobe)

            assert_same((similarities, found), by_faiss(opened, queries, 9, nprobe))
        assert ((found >= 0).sum(axis=1) == len(rows)).all()


@pytest.mark.parametrize("count", [1, 3, 17, 150])
@pytest.mark.parametrize("kind", ["IVF24,Flat", "IVF24,SQ8", "IVF24,PQ8np"])
def test_of_equal_similarities_the_first_rows_stay_in_their_order(tmp_path, vectors, kind, count):
    repeated = np.tile(vectors[:200], (7, 1))  # row i is row i + 200, i + 400 ...
    index = trained(kind, faiss.METRIC_INNER_PRODUCT, vectors)
    index.add(repeated)

    similarities, rows = in_a_pass(index, tmp_path, vectors[:count], 4, NLIST)  # cuts through the equal ones

    np.testing.assert_array_equal(rows % 200, np.tile(rows[:, :1] % 200, 4))
    assert np.ptp(similarities, axis=1).max() < 2e-6
    # Some kernels of BLAS give copies of a row products that differ in their last bit.
    equal = similarities[:, 1:] == similarities[:, :-1]
    assert (rows[:, 1:] > rows[:, :-1])[equal].all()
    assert equal.any()


def test_pieces_of_lists_give_the_same_as_whole_lists(built, queries, monkeypatch):
    index, path = built("IVF24,SQ8")
    whole = in_a_pass(index, path, queries, 30, 6)
    monkeypatch.setattr(list_pass, "_SCORES", 500)
    monkeypatch.setattr(list_pass, "_ROWS_LEAST", 3)
    monkeypatch.setattr(list_pairs, "_ASSIGNED", 11)
    monkeypatch.setattr(list_pairs, "PAIRS", 120)

    assert_same(in_a_pass(index, path, queries, 30, 6), whole)


@pytest.mark.parametrize("held_bytes", [0, 20_000, 10**9])
@pytest.mark.parametrize("kind", ["IVF24,SQ8", "RR32,IVF24,RaBitQ"])
def test_lists_on_disk_are_each_read_once_however_many_are_held(
    built, queries, kind, held_bytes, monkeypatch
):
    monkeypatch.setattr(list_pass, "HELD_BYTES", held_bytes)
    index, path = built(kind, "inner_product", MAPPED)
    opened = open_list_pass(index, path)

    similarities, rows, _ = opened.search(queries, 20, NLIST)

    assert_same(in_order(similarities, rows), by_faiss(index, queries, 20, NLIST))
    assert opened.lists.bytes_read == opened.lists.bytes_of(np.arange(NLIST))


@pytest.mark.parametrize("kind", ["IVF24,Flat", "IVF24,SQ8", "IVF24,PQ8np"])
@pytest.mark.parametrize("read_bytes", [1, 20_000, 2**23])
@pytest.mark.skipif(not hasattr(os, "O_DIRECT"), reason="this system reads through its page cache alone")
def test_lists_read_past_the_page_cache_are_the_same(built, queries, kind, read_bytes, monkeypatch):
    monkeypatch.setattr(inverted_lists, "READ_BYTES", read_bytes)
    index, path = built(kind, "inner_product", MAPPED)
    known = open_list_pass(index, path).search(queries, 20, 7)
    direct = []
    real = os.open
    monkeypatch.setattr(os, "open", lambda *given: direct.append(given[1] & os.O_DIRECT) or real(*given))
    monkeypatch.setattr(inverted_lists, "memory_bytes", lambda: 0)

    found = open_list_pass(index, path).search(queries, 20, 7)

    assert direct and direct[0]
    for ours, theirs in zip(in_order(*found[:2]), in_order(*known[:2]), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    np.testing.assert_array_equal(found[2], known[2])


@pytest.mark.skipif(not hasattr(os, "O_DIRECT"), reason="this system reads through its page cache alone")
def test_a_file_that_refuses_to_be_read_past_the_page_cache_is_read_through_it(built, queries, monkeypatch):
    index, path = built("IVF24,SQ8", "inner_product", MAPPED)
    known = open_list_pass(index, path).search(queries, 20, 7)
    real, refused = os.preadv, []

    def preadv(descriptor, rooms, offset):
        if fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_DIRECT:
            refused.append(offset)
            raise OSError(errno.EINVAL, "Invalid argument")
        return real(descriptor, rooms, offset)

    monkeypatch.setattr(os, "preadv", preadv)
    monkeypatch.setattr(inverted_lists, "memory_bytes", lambda: 0)

    found = open_list_pass(index, path).search(queries, 20, 7)

    assert refused == [0]
    for ours, theirs in zip(in_order(*found[:2]), in_order(*known[:2]), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    np.testing.assert_array_equal(found[2], known[2])


class Stopped(Exception):
    """As if the process had ended there."""


@pytest.mark.parametrize("flags", [MEMORY, MAPPED])
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("kind", ["IVF24,SQ8", "RR32,IVF24,RaBitQ"])
def test_a_pass_that_was_stopped_goes_on_where_it_was_and_gives_the_same_bits(
    built, queries, kind, flags, masked, tmp_path, monkeypatch
):
    index, path = built(kind, "inner_product", flags)
    mask = RowMask(N, [np.arange(N) % 3 > 0]) if masked else None
    monkeypatch.setattr(list_pass, "SEGMENT_PRODUCTS", 150 * N * D / 5)
    monkeypatch.setattr(list_pairs, "_ASSIGNED", 50)
    monkeypatch.setattr(list_pairs, "PAIRS", 100 * NLIST)  # the queries take two turns
    whole = open_list_pass(index, path).search(queries, 20, NLIST, mask, keep=tmp_path / "whole")
    write, written, went = KeptArrays.write, [], []

    def until_stopped(self, **arrays):
        write(self, **arrays)
        written.append(arrays["reached"].tolist())
        if len(written) in (2, 5):
            raise Stopped

    monkeypatch.setattr(KeptArrays, "write", until_stopped)
    for expected in (pytest.raises(Stopped), pytest.raises(Stopped), contextlib.nullcontext()):
        with expected:
            opened = open_list_pass(index, path)
            read = opened.lists.read
            opened.lists.read = lambda numbers, read=read: went.extend(numbers) or read(numbers)
            found = opened.search(queries, 20, NLIST, mask, keep=tmp_path / "kept")

    for ours, known in zip(in_order(*found[:2]), in_order(*whole[:2]), strict=True):
        np.testing.assert_array_equal(ours, known)
    np.testing.assert_array_equal(found[2], whole[2])
    assert_same(in_order(*found[:2]), by_faiss(index, queries, 20, NLIST, mask))
    assert len(written) == len({tuple(each) for each in written}) > 5, "no segment was gone through twice"
    assert len(went) == 2 * NLIST, "each list is read once for either turn"


def test_what_another_search_kept_is_not_taken_for_this_ones(built, queries, tmp_path, monkeypatch):
    monkeypatch.setattr(list_pass, "SEGMENT_PRODUCTS", 1)
    index, path = built("IVF24,SQ8")
    kept = tmp_path / "kept"
    for k, asked in ((9, queries), (9, queries[::-1].copy()), (8, queries)):
        similarities, rows, _ = open_list_pass(index, path).search(asked, k, 5, keep=kept)

        assert_same(in_order(similarities, rows), by_faiss(index, asked, k, 5))
    kept.write_bytes(kept.read_bytes()[:-300])  # damaged: the search starts over
    again, rows, _ = open_list_pass(index, path).search(queries, 8, 5, keep=kept)
    assert_same(in_order(again, rows), by_faiss(index, queries, 8, 5))


@pytest.mark.parametrize("kind", ["IVF24,SQ8", "IVF24,PQ8np", "RR32,IVF24,RaBitQ"])
def test_several_threads_give_bit_for_bit_what_one_gives(built, queries, kind, monkeypatch):
    monkeypatch.setattr(list_pass, "_SCORES", 500)
    usual = faiss.omp_get_max_threads()
    results = []
    try:
        for threads in (1, 4, 4):
            faiss.omp_set_num_threads(threads)
            results.append(in_a_pass(*built(kind, "inner_product", MAPPED), queries, 30, 6))
    finally:
        faiss.omp_set_num_threads(usual)

    for similarities, rows in results[1:]:
        np.testing.assert_array_equal(rows, results[0][1])
        np.testing.assert_array_equal(similarities, results[0][0])


@pytest.mark.parametrize("flags", [MEMORY, MAPPED])
@pytest.mark.parametrize("kind", KINDS)
def test_screening_loses_nothing(built, queries, kind, flags, monkeypatch):
    monkeypatch.setattr(list_pass, "_SCORES", 3_000)
    index, path = built(kind, "inner_product", flags)
    for k, nprobe in ((1, 3), (7, 9), (40, NLIST), (400, NLIST)):
        ours = in_a_pass(index, path, queries, k, nprobe)

        assert_same(ours, by_faiss(index, queries, k, nprobe))


def test_screening_leaves_little_to_be_scored(built, queries, monkeypatch):
    monkeypatch.setattr(list_pass, "_SCORES", 3_000)
    offered, left = [], []

    def noted(lists, pairs, asked, codes, room, found):
        offered.append(sum(n * m for n, m in zip(lists[:, 2], np.diff(pairs[0]), strict=True)))
        count = list_kernel.score_lists(lists, pairs, asked, codes, room, found)
        left.append(count)
        return count

    monkeypatch.setattr(list_scorers, "score_lists", noted)
    in_a_pass(*built("IVF24,SQ8"), queries, 5, NLIST)

    assert sum(offered) == 150 * N
    assert sum(left) < 0.3 * sum(offered)


@pytest.mark.parametrize("values", [0.0, 1e-12, 1.0, 1e6])
def test_screening_bears_vectors_of_any_length(tmp_path, vectors, queries, values):
    index = trained("IVF24,Flat", faiss.METRIC_INNER_PRODUCT, vectors)
    index.add(vectors * np.float32(values))

    similarities, _ = in_a_pass(index, tmp_path, queries, 9, NLIST)

    exact = (queries @ vectors.T) * values
    np.testing.assert_allclose(similarities, -np.sort(-exact, axis=1)[:, :9], atol=2e-6 * values)


@given(
    kind=st.sampled_from(KINDS),
    metric=st.sampled_from(sorted(METRICS)),
    flags=st.sampled_from([MEMORY, MAPPED]),
    k=st.integers(1, 60),
    nprobe=st.integers(1, NLIST),
    passing=st.sampled_from([0.0, 0.003, 0.01, 0.1, 0.5, 1.0]),
)
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_with_a_predicate_each_query_goes_on_until_k_rows_pass(
    built, queries, kind, metric, flags, k, nprobe, passing
):
    index, path = built(kind, metric, flags)
    passes = np.random.default_rng([k, nprobe]).random(N) < passing
    mask = RowMask(N, [passes[:1001], passes[1001:1002], passes[1002:]])

    similarities, rows, lists = open_list_pass(index, path).search(queries, k, nprobe, mask)

    assert ((rows >= 0).sum(axis=1) == min(k, passes.sum())).all()
    assert (lists >= nprobe).all() and (lists <= NLIST).all()
    found = in_order(similarities, rows)
    graph = kind == "IVF24_HNSW8,SQ8"
    for depth in np.unique(lists):
        some = lists == depth
        if graph and (depth > nprobe or depth == NLIST):
            continue  # FAISS's graph may name other lists the nearest than ours, or not find all of them
        known = by_faiss(index, queries[some], k, int(depth), mask)
        assert_same((found[0][some], found[1][some]), known, 1e-5)


def test_no_query_goes_further_than_it_must(built, queries):
    index, path = built("IVF24,Flat")
    passes = np.random.default_rng(2).random(N) < 0.05
    mask = RowMask(N, [passes])
    assert mask.count == passes.sum()

    _, _, lists = open_list_pass(index, path).search(queries, 4, 2, mask)

    nearest = index.quantizer.search(queries, NLIST)[1]
    held = np.array([np.count_nonzero(mask.has(rows)) for rows in rows_of_lists(index)])
    enough = held[nearest].cumsum(axis=1) >= GROWN * 4
    np.testing.assert_array_equal(lists, np.maximum(2, enough.argmax(axis=1) + 1))


def rows_of_lists(index):
    lists = index.invlists
    return [faiss.rev_swig_ptr(lists.get_ids(i), lists.list_size(i)).copy() for i in range(NLIST)]


def test_lists_without_a_passing_row_are_not_read(built, queries):
    index, path = built("IVF24,SQ8", "inner_product", MAPPED)
    rows = rows_of_lists(index)
    passes = np.isin(np.arange(N), np.concatenate([rows[3], rows[7]]))
    opened = open_list_pass(index, path)

    found = opened.search(queries, 5, 4, RowMask(N, [passes]))[1]

    assert np.isin(found, np.flatnonzero(passes)).all()
    ids = 8 * N  # to count, the row numbers of all lists are read
    assert opened.lists.bytes_read <= ids + opened.lists.bytes_of(np.array([3, 7]))


@pytest.mark.parametrize(
    "kind", ["Flat", "HNSW16", "IVF24,RaBitQ2", "IVF24,RaBitQfs", "IVF24,PQ8x4fs", "IVF24,PQ8+8"]
)
def test_kinds_that_faiss_alone_can_score_are_left_to_it(tmp_path, kind):
    assert open_list_pass(faiss.index_factory(D, kind, faiss.METRIC_L2), tmp_path) is None


def test_what_fails_in_a_thread_is_raised_and_the_rest_not_begun():
    begun = []

    def fail(number):
        begun.append(number)
        if number == 3:
            raise OSError("the disk is gone")
        return number

    with pytest.raises(OSError, match="the disk is gone"):
        list(mapped_in_order(fail, iter(range(1_000)), 2))

    assert len(begun) < 20
    assert list(mapped_in_order(abs, iter([-3, 1, -2]), 2)) == [3, 1, 2]


def test_threads_are_prepared_before_they_work():
    prepared, where = set(), set()

    made = mapped_in_order(
        lambda number: where.add(threading.get_ident()) or number,
        iter(range(100)),
        3,
        lambda: prepared.add(threading.get_ident()),
    )

    assert list(made) == list(range(100))
    assert where <= prepared and threading.get_ident() not in where


def test_a_pass_leaves_the_number_of_threads_as_it_was(built, queries):
    usual = faiss.omp_get_max_threads()
    try:
        faiss.omp_set_num_threads(3)
        for k in (5, 200):
            in_a_pass(*built("IVF24,PQ8np"), queries, k, 6)

            assert faiss.omp_get_max_threads() == 3
    finally:
        faiss.omp_set_num_threads(usual)
