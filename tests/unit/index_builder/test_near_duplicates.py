"""Groups compared with the rule written out in two plain loops."""

import numpy as np
import pytest

from index_builder.numerics import near_duplicates
from index_builder.numerics.near_duplicates import near_duplicate_groups


def unit(rows):
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def by_hand(vectors, threshold, order):
    groups, kept = np.arange(len(vectors)), []
    for row in order:
        for better in kept:
            if vectors[row] @ vectors[better] >= threshold:
                groups[row] = better
                break
        else:
            kept.append(row)
    return groups


@pytest.mark.parametrize(("block", "chunk"), [(1024, 8192), (16, 5)])
def test_groups_are_those_of_the_rule_written_out(monkeypatch, block, chunk):
    monkeypatch.setattr(near_duplicates, "_BLOCK", block)
    monkeypatch.setattr(near_duplicates, "_CHUNK", chunk)
    generator = np.random.default_rng(3)
    middles = generator.standard_normal((40, 16))
    vectors = unit(middles[generator.integers(40, size=400)] + 0.25 * generator.standard_normal((400, 16)))
    order = generator.permutation(400)

    for threshold in (0.8, 0.9, 0.97):
        groups = near_duplicate_groups(vectors, threshold, order)
        assert np.array_equal(groups, by_hand(vectors, threshold, order))
        assert 40 < len(set(groups)) < 400


def test_the_best_stands_for_its_group_and_there_are_no_chains():
    angles = np.deg2rad([0, 10, 20, 30])  # neighbours are similar, the ends are not
    vectors = unit(np.stack([np.cos(angles), np.sin(angles)], axis=1))
    limit = float(np.cos(np.deg2rad(12)))

    assert near_duplicate_groups(vectors, limit, np.array([0, 1, 2, 3])).tolist() == [0, 0, 2, 2]
    assert near_duplicate_groups(vectors, limit, np.array([1, 0, 2, 3])).tolist() == [1, 1, 1, 3]


def test_a_threshold_of_one_switches_it_off_and_no_rows_are_no_groups():
    twins = np.ones((3, 1), dtype=np.float32)

    assert near_duplicate_groups(twins, 0.999).tolist() == [0, 0, 0]
    assert near_duplicate_groups(twins, 1.0).tolist() == [0, 1, 2]
    assert near_duplicate_groups(np.empty((0, 4), dtype=np.float32), 0.9).tolist() == []


def test_an_order_that_is_no_permutation_is_refused():
    with pytest.raises(ValueError, match="permutation"):
        near_duplicate_groups(np.ones((3, 1), dtype=np.float32), 0.9, np.array([0, 0, 1]))
