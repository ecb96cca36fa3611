"""The order of results, against a plain sort of each query's."""

import numpy as np
import pytest

from index_builder.indexing.candidate_ranking import in_order


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
