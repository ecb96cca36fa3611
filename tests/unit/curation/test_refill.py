"""Depths: the first one by plain loops, the next ones by their promises: deeper, bounded, ending."""

from dataclasses import replace

import numpy as np
import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from curation.refill import OVERFETCH, asked_depths, foreseen_depths, next_depths
from curation.verdicts import Setting, Verdicts
from spine.settings import Config, FiltersConfig, SelectConfig
from spine.tables import NEIGHBOURS

CONFIG = Config(
    filters=FiltersConfig(min_side_px=10, pwatermark_max=None), select=SelectConfig(quota_per_centroid=2)
)


def neighbours(rows: list[dict]) -> pa.Table:
    return pa.Table.from_pylist([dict.fromkeys(NEIGHBOURS.names) | row for row in rows], NEIGHBOURS)


@st.composite
def pools(draw: st.DrawFn) -> list[dict]:
    rows = []
    for centroid in range(draw(st.integers(0, 4))):
        for rank in range(draw(st.integers(0, 12))):
            number = draw(st.integers(0, 1000))
            side = draw(st.sampled_from([None, 5, 20]))
            rows.append(
                {
                    "centroid_id": centroid,
                    "rank": rank,
                    "id": number,
                    "best_centroid": draw(st.sampled_from([centroid, centroid, 99])),
                    "duplicate_of": draw(st.sampled_from([None, None, number, number + 1])),
                    "width": side,
                    "height": side,
                }
            )
    return rows


@settings(max_examples=200, deadline=None)
@given(pools(), st.integers(1, 4), st.booleans(), st.sampled_from(["keep", "drop"]))
def test_the_first_depth_reaches_the_overfetch_of_hopeful_rows_and_no_further(rows, quota, one, unknown):
    config = replace(
        CONFIG,
        filters=replace(CONFIG.filters, unknown=unknown),  # not known before fetching says nothing
        select=SelectConfig(quota_per_centroid=quota, one_centroid_per_image=one),
    )
    expected = []
    for centroid in range(max((row["centroid_id"] for row in rows), default=-1) + 1):
        own = [row for row in rows if row["centroid_id"] == centroid]
        hopeful, depth = 0, len(own)
        for row in own:
            small = row["width"] is not None and row["width"] < 10
            elsewhere = one and row["best_centroid"] != centroid
            alike = row["duplicate_of"] is not None and row["duplicate_of"] != row["id"]
            hopeful += not (small or elsewhere or alike)
            if hopeful >= np.ceil(OVERFETCH * quota):
                depth = row["rank"] + 1
                break
        expected.append(min(max(depth, quota), len(own)))

    assert foreseen_depths(neighbours(rows), config, Verdicts()) == expected


counts = st.lists(st.tuples(st.integers(0, 60), st.integers(0, 500)), min_size=1, max_size=8)


@settings(max_examples=300, deadline=None)
@given(counts, st.integers(1, 40), st.sets(st.integers(0, 9), max_size=3), st.integers(0, 10))
def test_rounds_go_deeper_only_where_it_helps_never_beyond_what_there_is_and_end(
    pairs, quota, left_out, one_in
):
    there = np.array([max(a, b) for a, b in pairs], dtype=np.int64)
    depths: list[int] | None = [min(a, b) for a, b in pairs]
    for _ in range(200):
        # Of each ten neighbours so many are good enough: none, some or all.
        selected = np.minimum(np.array(depths) * one_in // 10, quota)
        before, depths = (
            depths,
            next_depths(
                selected=selected,
                depths=depths,
                there=there,
                quota=np.full(len(there), quota),
                left_out=left_out,
            ),
        )
        if depths is None:
            break
        assert depths != before
        for each, (old, new) in enumerate(zip(before, depths, strict=True)):
            assert old <= new <= there[each]
            if new > old:
                assert selected[each] < quota and each not in left_out
                assert new >= min(2 * old, there[each])
    else:
        raise AssertionError("rounds went on and on")
    for each, depth in enumerate(before):
        if each not in left_out:
            assert depth == there[each] or selected[each] >= quota


def test_depths_of_an_earlier_smaller_set_of_centroids_are_taken_as_none_for_the_rest():
    quota = np.array([2, 2])
    assert next_depths(selected=np.array([2, 0]), depths=[4], there=np.array([9, 9]), quota=quota) == [4, 2]


def test_a_centroid_of_its_own_quota_and_filters_begins_at_a_depth_of_its_own():
    rows = [
        {"centroid_id": centroid, "rank": rank, "id": 100 * centroid + rank, "width": side, "height": side}
        for centroid in range(3)
        for rank, side in enumerate([5, 20] * 10)
    ]
    rows = [row | {"best_centroid": row["centroid_id"]} for row in rows]
    own = {
        1: {"quota_per_centroid": Setting(value=4, curator="ada", event=1)},
        2: {"min_side_px": Setting(value=0, curator="ada", event=2)},
    }

    depths = foreseen_depths(neighbours(rows), CONFIG, Verdicts(settings=own))

    # 1.5 times the quota of rows that pass: every second one is too small, but for the last centroid.
    assert depths == [6, 12, 3]


def test_a_refill_asks_for_as_many_neighbours_and_never_fewer_or_more_than_there_are():
    def asked(depth: int) -> Setting:
        return Setting(value=depth, curator="ada", event=1)

    verdicts = Verdicts(refills={0: asked(7), 1: asked(2), 2: asked(99), 8: asked(5)})

    assert asked_depths([4, 4, 4], np.array([9, 9, 9, 9]), verdicts) == [7, 4, 9, 0]
