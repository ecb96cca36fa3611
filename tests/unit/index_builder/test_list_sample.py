import faiss
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from index_builder.indexing.candidate_ranking import in_order
from index_builder.lists import list_pass
from index_builder.lists.list_pass import open_list_pass
from index_builder.lists.list_sample import Part, neighbours_in_sample, rows_of
from tests.unit.index_builder.scattered import near, scattered, unit

N, D, NLIST, K = 6_400, 32, 16, 150


@given(number=st.integers(0, 10), n=st.integers(0, 1_000))
def test_sample_and_rest_are_all_rows_each_once(number, n):
    rows = np.arange(n)

    parts = [rows[rows_of(part, number, n)] for part in (Part.SAMPLE, Part.REST)]

    assert sorted(np.concatenate(parts)) == rows.tolist() == rows[rows_of(Part.ALL, number, n)].tolist()
    assert len(parts[0]) == -(-n // 8)


def test_few_neighbours_short_lists_or_little_to_choose_from_are_not_worth_a_sample():
    assert neighbours_in_sample(1_000, 20_000, 500) > 1_000 / 8
    assert not neighbours_in_sample(10, 20_000, 500)
    assert not neighbours_in_sample(1_000, 3_000, 500)
    assert not neighbours_in_sample(1_000, 20_000, 50)


@pytest.fixture
def asked(monkeypatch):
    """How many queries each search was for, and whether a sample said something about all of them."""
    search, asked = list_pass.ListPass._search, []

    def noted(self, queries, *args, **options):
        found = search(self, queries, *args, **options)
        asked.append((len(queries), bool(np.isfinite(found[2]).all())))
        return found

    monkeypatch.setattr(list_pass.ListPass, "_search", noted)
    return asked


@pytest.mark.parametrize("metric", ["inner_product", "l2"])
@pytest.mark.parametrize("kind", ["IVF16,Flat", "IVF16,SQ8", "IVF16,PQ8np", "RR32,IVF16,RaBitQ"])
def test_with_a_sample_the_neighbours_are_those_of_faiss(kind, metric, asked, tmp_path):
    vectors = scattered(N, D)
    vectors[7::9] = vectors[6::9][: len(vectors[7::9])]  # equals, so that places are shared
    queries = near(vectors, 60, noise=0.3)
    known = {"inner_product": faiss.METRIC_INNER_PRODUCT, "l2": faiss.METRIC_L2}[metric]
    index = faiss.index_factory(D, kind, known)
    index.train(vectors)
    index.add(vectors)

    similarities, rows, _ = open_list_pass(index, tmp_path / "none").search(queries, K, NLIST)

    assert asked[0] == (60, True)
    faiss.extract_index_ivf(index).nprobe = NLIST
    distances, _ = index.search(queries, K)
    expected = distances if metric == "inner_product" else 1 - distances / 2
    ours = in_order(similarities, rows)
    np.testing.assert_allclose(ours[0], np.sort(expected, axis=1)[:, ::-1], atol=2e-5)
    assert all(len(set(each)) == K for each in ours[1].tolist())


def test_where_the_sample_is_nearer_than_all_else_rows_below_its_bar_are_found_as_well(asked, tmp_path):
    random = np.random.default_rng(0)
    vectors, middle = scattered(N, D), unit(np.ones((1, D), dtype=np.float32))
    number = np.arange(N) % NLIST  # of its list
    turn, size = np.arange(N) // NLIST, N // NLIST
    first = (number % 2 == 0) & (turn < size // 8) | (number % 2 == 1) & (turn >= size - size // 8)
    noise = random.standard_normal((N, D)).astype(np.float32) / np.sqrt(D)
    vectors = unit(np.where(first, np.float32(0.1), np.float32(1.5))[:, None] * noise + middle)
    quantizer = faiss.IndexFlatIP(D)
    quantizer.add(scattered(NLIST, D))
    index = faiss.IndexIVFFlat(quantizer, D, NLIST, faiss.METRIC_INNER_PRODUCT)
    ids = np.arange(N)
    index.add_core(N, faiss.swig_ptr(vectors), faiss.swig_ptr(ids), faiss.swig_ptr(number))
    queries = unit(middle + 0.05 * random.standard_normal((40, D)).astype(np.float32))

    similarities, rows, _ = open_list_pass(index, tmp_path / "none").search(queries, 1_000, NLIST)

    assert asked == [(40, True), (40, False)], "all were asked again, without a sample"
    expected = -np.sort(-(queries @ vectors.T), axis=1)[:, :1_000]
    ours = in_order(similarities, rows)
    np.testing.assert_allclose(ours[0], expected, atol=1e-5)
    assert all(len(set(each)) == 1_000 for each in ours[1].tolist())
