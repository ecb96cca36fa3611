"""The order of results, against a plain sort of each query's."""

import numpy as np
import pytest

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

    similarities, rows = ranked_exactly(queries, candidates, vectors, k)

    for query, numbers in enumerate(candidates):
        there = numbers[numbers >= 0]
        expected = sorted(there, key=lambda row: (-exact[row, query], row))[:k]
        assert rows[query].tolist() == expected + [-1] * (k - len(expected))
        assert similarities[query, : len(expected)] == pytest.approx(exact[expected, query], abs=1e-5 * d)
        assert (similarities[query, len(expected) :] == -np.inf).all()
