from functools import cache

import faiss
import numpy as np
import pytest

from index_builder.indexing.candidate_ranking import in_order
from index_builder.lists.list_pass import open_list_pass
from index_builder.metadata.row_mask import RowMask
from tests.unit.index_builder.scattered import near, scattered

N, NLIST = 1_500, 12
METRICS = {"inner_product": faiss.METRIC_INNER_PRODUCT, "l2": faiss.METRIC_L2}


@cache
def built(d, metric="inner_product", query_bits=4):
    """Vectors, and an index of them."""
    vectors = scattered(N, d)
    index = faiss.index_factory(d, f"IVF{NLIST},RaBitQ", METRICS[metric])
    index.cp.niter = 2
    index.train(vectors)
    index.add(vectors)
    index.qb = query_bits
    return vectors, index


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("query_bits", [1, 2, 3, 4])
@pytest.mark.parametrize("d", [5, 30, 200])
def test_similarities_are_those_that_faiss_gives_whatever_a_query_is_rounded_to(
    tmp_path, d, query_bits, metric
):
    vectors, index = built(d, metric, query_bits)
    queries = near(vectors, 300, noise=0.3)

    found, rows, _ = open_list_pass(index, tmp_path).search(queries, 25, 5)

    known, known_rows = index.search(queries, 25, params=faiss.SearchParametersIVF(nprobe=5))
    known = known if metric == "inner_product" else 1 - known / 2
    found, rows = in_order(found, rows)
    off = np.abs(found - known)
    assert np.quantile(off, 0.999) < 5e-6
    assert off.max() < 0.002, "a value halfway between two levels may be rounded to the other"
    nearer = found > known[:, -1:] + 0.002  # the last ones may be others as near
    assert all(np.isin(rows[q, nearer[q]], known_rows[q]).all() for q in range(300))
    assert np.ptp(found) > 0.1


def test_a_query_that_is_its_lists_centroid_has_nothing_to_round(tmp_path):
    vectors, index = built(40)
    queries = index.quantizer.reconstruct_n(0, NLIST)

    found, rows, _ = open_list_pass(index, tmp_path).search(queries, 10, 1)

    assert np.isfinite(found).all() and (rows >= 0).all()
    # FAISS's estimate is then what it knows without: (|q|² - |v - c|² + |v|²) / 2, and c is q.
    nearest = np.take_along_axis(queries @ vectors.T, rows, axis=1)
    np.testing.assert_allclose(found, nearest, atol=0.2)


def test_only_rows_of_the_mask_are_found(tmp_path):
    (vectors, index), passes = built(40), np.arange(N) % 7 == 0
    queries = near(vectors, 50, noise=0.3)
    mask = RowMask(N, [passes])

    _, rows, taken = open_list_pass(index, tmp_path).search(queries, 10, 1, mask, wanted=60)

    assert passes[rows].all()
    _, known, _ = open_list_pass(index, tmp_path).search(queries, N, NLIST)
    assert all((rows[q] >= 0).all() and np.isin(rows[q], known[q]).all() for q in range(50))
    lists = index.invlists
    ids = [faiss.rev_swig_ptr(lists.get_ids(i), lists.list_size(i)) for i in range(NLIST)]
    held = np.array([np.count_nonzero(passes[each]) for each in ids])
    enough = held[index.quantizer.search(queries, NLIST)[1]].cumsum(axis=1) >= 60
    np.testing.assert_array_equal(taken, enough.argmax(axis=1) + 1)


@pytest.mark.parametrize(("kind", "query_bits"), [("RaBitQ", 0), ("RaBitQ", 8), ("RaBitQ3", 4)])
def test_other_bits_a_dimension_and_queries_of_no_or_many_levels_are_left_to_faiss(
    tmp_path, kind, query_bits
):
    index = faiss.index_factory(32, f"IVF4,{kind}", faiss.METRIC_INNER_PRODUCT)
    index.qb = query_bits

    assert open_list_pass(index, tmp_path) is None
