import numpy as np
import pytest

from index_builder.indexing.candidate_ranking import in_order
from index_builder.lists.best_k import BestK


def known(scores, k):
    """The k best columns of each line, by score and then by number."""
    order = np.lexsort((np.broadcast_to(np.arange(scores.shape[1]), scores.shape), -scores), axis=1)[:, :k]
    return np.take_along_axis(scores, order, 1), order


@pytest.mark.parametrize("levels", [3, 50, 10**6])
@pytest.mark.parametrize("k", [1, 2, 40, 333])
def test_the_best_are_kept_whatever_the_order_they_come_in_and_of_equals_the_first(k, levels):
    random = np.random.default_rng([k, levels])
    scores = random.integers(levels, size=(7, 2_000)).astype(np.float32)
    best, at_once = BestK(7, k), BestK(9, k)

    for some in np.array_split(random.permutation(scores.size), 11):
        queries, rows = np.divmod(some, 2_000)
        best.add(queries, rows, scores[queries, rows])
        assert (best.least() <= np.sort(scores)[:, -k]).all()
    at_once.add_all(2, np.arange(2_000), scores)

    for found, rows in (in_order(*best.results()), [each[2:] for each in in_order(*at_once.results())]):
        expected, expected_rows = known(scores, k)
        np.testing.assert_array_equal(found, expected)
        np.testing.assert_array_equal(rows, expected_rows)
    assert (at_once.results()[1][:2] == -1).all()


@pytest.mark.parametrize("offered", [0, 1, 19, 20, 21, 51, 52, 53, 500])
def test_what_was_found_so_far_can_be_taken_away_and_gone_on_from(offered):
    scores = np.random.default_rng(offered).random((3, 600), dtype=np.float32)
    first, second = BestK(3, 20), BestK(3, 20)
    first.add_all(0, np.arange(offered), scores[:, :offered])
    assert ((first.results()[1] >= 0).sum(axis=1) == min(20, offered)).all()

    second.restore(*first.results())
    second.add_all(0, np.arange(offered, 600), scores[:, offered:])

    np.testing.assert_array_equal(in_order(*second.results())[1], known(scores, 20)[1])
