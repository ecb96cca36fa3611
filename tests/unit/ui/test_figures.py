from itertools import pairwise

import numpy as np

from curation.unfilled import Unfilled
from spine.filters import RULES
from ui.figures import BINS, STATES, balance, distribution, yields


def test_a_distribution_counts_every_known_value_once():
    values = np.random.default_rng(3).normal(5, 2, 1000)
    values[::10] = np.nan

    found = distribution(values)

    known = np.sort(values[~np.isnan(values)])
    edges = np.linspace(found["low"], found["high"], BINS + 1)
    assert found["counts"] == [
        int(((known >= low) & ((known < high) | (place == BINS - 1))).sum())
        for place, (low, high) in enumerate(pairwise(edges))
    ]
    assert (found["known"], found["unknown"], found["most"]) == (900, 100, known[-1])
    assert [found[name] for name in ("p5", "p50", "p95")] == [known[44], known[449], known[854]]


def test_whole_numbers_have_a_bin_each_or_a_few_to_a_bin():
    few = distribution(np.array([3.0, 4, 4, 7]), whole=True)
    many = distribution(np.arange(100.0), whole=True)

    assert (few["low"], few["counts"]) == (3, [1, 2, 0, 0, 1])
    assert many["counts"] == [5] * 20
    assert (few["high"], few["most"], many["high"], many["most"]) == (8, 7, 100, 99)


def test_one_value_or_none():
    assert sum(distribution(np.array([2.0, 2.0]))["counts"]) == 2
    assert distribution(np.array([np.nan])) is None and distribution(np.array([])) is None


def short(number, selected, quota, **lost):
    return Unfilled(
        centroid_id=number, label=None, quota=quota, selected=selected, neighbours=9, tried=9, lost=lost
    )


def test_every_centroid_is_empty_short_filled_above_its_quota_or_left_out():
    places = [(0.1, 0.2), (0.3, None), (0.5, float("nan")), (0.25, 0.5), (1.0, 0.0), (0.0, 0.0)]
    centroids = [
        {"centroid_id": number, "label": None if number else "first", "map_x": x, "map_y": y}
        for number, (x, y) in enumerate(places)
    ]
    for row in centroids:
        row["map_x"] = (
            row["map_x"] if row["map_y"] is not None and row["map_y"] == row["map_y"] else row["map_y"]
        )

    found = balance(centroids, np.array([0, 1, 3, 5, 7, 9]), np.array([3, 3, 3, 3, 3, 3]), frozenset({5}))

    assert found["counts"] == {"empty": 1, "short": 1, "filled": 1, "over": 2, "out": 1}
    assert [point[0] for point in found["points"]] == ["0", "3", "4", "5"]  # the others have no place
    assert found["points"][1] == ["3", 0.25, 0.5, 5, 3, STATES.index("over")]
    assert [(each["centroid"], each["selected"]) for each in found["over"]] == [("4", 7), ("3", 5)]


def test_centroids_are_filled_short_or_left_out_and_those_that_lack_most_come_first():
    found = yields(
        np.array([3, 1, 0, 1, 0]),
        np.array([3, 3, 3, 4, 2]),
        frozenset({2}),
        [short(1, 1, 3, min_side_px=2), short(3, 1, 4), short(4, 0, 2)],
    )

    assert {name: found[name] for name in ("centroids", "left_out", "filled", "short", "missing")} == {
        "centroids": 5,
        "left_out": 1,
        "filled": 1,
        "short": 3,
        "missing": 2 + 3 + 2,
    }
    assert [each["centroid"] for each in found["shortest"]] == ["3", "1", "4"]
    assert found["shortest"][1]["lost"] == [{"meaning": RULES["min_side_px"], "count": 2}]
    assert sum(found["selected"]["counts"]) == 4 and found["quota"] == {"least": 2, "most": 4}
