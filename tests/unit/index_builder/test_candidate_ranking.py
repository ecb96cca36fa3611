"""The order of results, against a plain sort of each query's."""

import numpy as np
import pytest

from index_builder.indexing import ranking_kernel
from index_builder.indexing.candidate_ranking import in_order, ranked_exactly


def sorted_plainly(similarities, rows):
    """By Python's sort: falling similarity, then row."""
    pairs = [sorted(zip(-s, r, strict=True)) for s, r in zip(similarities, rows, strict=True)]
    return [[-s for s, _ in each] for each in pairs], [[r for _, r in each] for each in pairs]


@pytest.mark.parametrize("values", [2, 30, 10_000])
@pytest.mark.parametrize("falling", [True, False])
def test_results_come_by_similarity_and_equals_by_row(values, falling):
    random = np.random.default_rng(values)
    similarities = (random.integers(values, size=(7, 200)) / values).astype(np.float32)
    similarities[:, -20:] = -np.inf  # none
    if falling:
        similarities = -np.sort(-similarities, axis=1)
    similarities[1] = similarities[0, -1]  # equal across the end of one query and the start of the next
    rows = np.stack([random.permutation(200) for _ in range(7)])
    given = similarities.copy(), rows.copy()

    found = in_order(similarities, rows)

    for ours, plain in zip(found, sorted_plainly(similarities, rows), strict=True):
        assert ours.tolist() == plain
    assert np.array_equal(similarities, given[0]) and np.array_equal(rows, given[1])


def test_one_result_or_none_is_in_order():
    for shape in ((1, 1), (3, 1), (2, 0), (0, 5)):
        similarities, rows = np.zeros(shape, np.float32), np.zeros(shape, np.int64)
        assert [found.shape for found in in_order(similarities, rows)] == [shape, shape]


@pytest.mark.parametrize(("depth", "k", "d"), [(50, 50, 64), (400, 40, 33), (3, 1, 768)])
def test_candidates_are_ranked_on_the_vectors_themselves_and_equals_by_row(depth, k, d):
    random = np.random.default_rng(depth)
    vectors = random.standard_normal((600, d)).astype(np.float16)
    vectors[300:] = vectors[:300]
    vectors[7] = 3e-6  # numbers that float16 has only in part
    queries = random.standard_normal((5, d), dtype=np.float32)
    candidates = np.stack([random.permutation(600)[:depth] for _ in queries])
    candidates[:, depth - depth // 20 :] = -1
    exact = vectors.astype(np.float64) @ queries.T

    estimates = random.standard_normal(candidates.shape, dtype=np.float32)  # which say nothing
    similarities, rows = ranked_exactly(queries, candidates, estimates, vectors, k)

    for query, numbers in enumerate(candidates):
        there = numbers[numbers >= 0]
        expected = sorted(there, key=lambda row: (-exact[row, query], row))[:k]
        assert rows[query].tolist() == expected + [-1] * (k - len(expected))
        assert similarities[query, : len(expected)] == pytest.approx(exact[expected, query], abs=1e-5 * d)
        assert (similarities[query, len(expected) :] == -np.inf).all()


def pool_with_estimates(error, depth=600, d=64):
    """Unit vectors, queries, candidates of each, and estimates that are off by `error` times what numbers say."""
    random = np.random.default_rng(7)
    vectors = random.standard_normal((2_000, d))
    vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float16)
    queries = vectors[:50].astype(np.float32)
    candidates = np.stack([random.permutation(2_000)[:depth] for _ in queries])
    exact = np.take_along_axis(queries @ vectors.T.astype(np.float32), candidates, axis=1)
    off = random.standard_normal(candidates.shape) - 0.5  # as RaBitQ's best ones, too high as a rule
    return vectors, queries, candidates, exact, (exact - error * off).astype(np.float32)


@pytest.mark.parametrize("k", [1, 10, 400, 600])
@pytest.mark.parametrize("error", [0, 0.01, 0.1, 1])
def test_what_estimates_leave_out_is_not_among_the_nearest(k, error):
    vectors, queries, candidates, exact, estimates = pool_with_estimates(error)

    similarities, rows = ranked_exactly(queries, candidates, estimates, vectors, k)

    order = np.argsort(-exact, axis=1, kind="stable")[:, :k]
    np.testing.assert_allclose(similarities, np.take_along_axis(exact, order, axis=1), atol=1e-6)
    assert (rows == np.take_along_axis(candidates, order, axis=1)).mean() > 0.99, "but for equals"


def test_vectors_that_cannot_be_among_the_nearest_are_not_read():
    vectors, queries, candidates, exact, estimates = pool_with_estimates(0.01)
    k = 10
    kth = np.sort(exact, axis=1)[:, -k]
    far = exact < kth[:, None] - 0.1  # ten times as far as estimates are off
    best = np.argsort(np.argsort(-estimates, axis=1), axis=1) < k + ranking_kernel._BEST
    spread = (candidates.astype(np.uint64) * ranking_kernel._SPREAD) >> np.uint64(32)
    sampled = spread < 2**32 * ranking_kernel._SAMPLE / (candidates.shape[1] - k - ranking_kernel._BEST)
    left = (far & ~best & ~sampled)[0]
    assert np.count_nonzero(left) > 300
    poisoned, queries, candidates = vectors.copy(), queries[:1], candidates[:1]
    poisoned[candidates[0][left]] = 50 * vectors[0]  # would be the best, were they looked at

    known = ranked_exactly(queries, candidates, estimates[:1], vectors, k)

    found = ranked_exactly(queries, candidates, estimates[:1], poisoned, k)
    np.testing.assert_array_equal(found[1], known[1])
    np.testing.assert_array_equal(found[0], known[0])


def test_rows_that_are_none_are_left_out_whatever_is_said_of_them():
    vectors, queries, candidates, exact, estimates = pool_with_estimates(0.01)
    candidates[:, ::2], estimates[:, ::2] = -1, 50

    similarities, rows = ranked_exactly(queries, candidates, estimates, vectors, 310)

    assert (np.count_nonzero(rows >= 0, axis=1) == 300).all()
    assert (similarities[:, 300:] == -np.inf).all() and np.isfinite(similarities[:, :300]).all()
    np.testing.assert_allclose(similarities[:, 0], exact[:, 1::2].max(axis=1), atol=1e-6)


def test_what_is_left_out_does_not_depend_on_the_order_of_candidates():
    vectors, queries, candidates, _, estimates = pool_with_estimates(0.05)
    known = ranked_exactly(queries, candidates, estimates, vectors, 20)

    random = np.random.default_rng(5)
    for _ in range(10):
        order = random.permutation(candidates.shape[1])
        shuffled = np.ascontiguousarray(candidates[:, order]), np.ascontiguousarray(estimates[:, order])
        again = ranked_exactly(queries, *shuffled, vectors, 20)

        np.testing.assert_array_equal(again[1], known[1])
        np.testing.assert_array_equal(again[0], known[0])
