from itertools import pairwise

import numpy as np
import pyarrow as pa

from spine.filters import RULES
from spine.tables import SELECTION
from ui.figures import BINS, distribution, yields


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
    assert (found["known"], found["unknown"]) == (900, 100)
    assert [found[name] for name in ("p5", "p50", "p95")] == [known[44], known[449], known[854]]


def test_whole_numbers_have_a_bin_each_or_a_few_to_a_bin():
    few = distribution(np.array([3.0, 4, 4, 7]), whole=True)
    many = distribution(np.arange(100.0), whole=True)

    assert (few["low"], few["counts"]) == (3, [1, 2, 0, 0, 1])
    assert many["counts"] == [5] * 20


def test_one_value_or_none():
    assert sum(distribution(np.array([2.0, 2.0]))["counts"]) == 2
    assert distribution(np.array([np.nan])) is None and distribution(np.array([])) is None


def selection(rows):
    full = [
        {"rank": 0, "id": 1, "similarity": 0.5, "detail": "", "centroid_id": number} for number, _ in rows
    ]
    for row, (_, rule) in zip(full, rows, strict=True):
        row |= {"rule": rule, "verdict": "selected" if rule in ("selected", "person") else "rejected"}
    return pa.Table.from_pylist(full, SELECTION)


def test_a_centroid_that_is_short_says_why():
    rows = [(0, "selected")] * 3 + [
        (1, "selected"),
        (1, "min_side_px"),
        (1, "min_side_px"),
        (1, "near_duplicate"),
    ]
    rows += [(2, "centroid_left_out")] * 4 + [(3, "person"), (3, "unfetched")]

    found = yields(
        selection(rows),
        there=np.array([9, 4, 4, 9, 0]),
        tried=np.array([3, 4, 4, 2, 0]),
        quotas=np.array([3, 3, 3, 4, 2]),
        left_out=frozenset({2}),
        labels={1: "rings", 3: None},
    )

    assert {name: found[name] for name in ("centroids", "left_out", "filled", "short", "missing")} == {
        "centroids": 5,
        "left_out": 1,
        "filled": 1,
        "short": 3,
        "missing": 2 + 3 + 2,
    }
    told = {
        each["centroid"]: (each["label"], each["selected"], each["quota"], each["why"])
        for each in found["shortest"]
    }
    assert list(told) == ["3", "1", "4"]
    assert told["1"] == (
        "rings",
        1,
        3,
        f"all 4 neighbours tried, 2 {RULES['min_side_px']}, 1 {RULES['near_duplicate']}",
    )
    assert told["3"][3] == f"2 of 9 neighbours tried (“run” goes on with the next), 1 {RULES['unfetched']}"
    assert told["4"][0] == "centroid 4" and told["4"][3] == "it has no neighbours"
