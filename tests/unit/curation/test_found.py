"""What a search found and a person keeps, by its own: what the event carries, and what counts of it."""

import numpy as np
import pytest

from curation.decisions import Decisions, Event
from curation.found import FOUND, found_rows, found_table, found_text, values_of
from curation.verdicts import fold
from spine.errors import DataError

ROW = {"url": "http://example.org/a.png", "width": 640, "height": 480, "similarity": 0.25, "caption": "a"}


def keep(seq, ids, centroid=2, rows=None, **more):
    told = {number: values_of(ROW) for number in ids} if rows is None else rows
    return Event(
        client="c",
        seq=seq,
        curator="ada",
        action="keep",
        target="image",
        ids=tuple(ids),
        centroid_id=centroid,
        tag=FOUND,
        text=found_text("text:stars", told),
        **more,
    )


def plain(seq, action, *ids, **more):
    given = {"client": "c", "seq": seq, "curator": "ada", "target": "image", "last_seen": 99}
    return Event(action=action, ids=ids, **given, **more)


def standing(tmp_path, *events):
    decisions = Decisions.open(tmp_path / "decisions.sqlite")
    for event in events:
        decisions.record([event])
    return [(number, each.centroid_id) for number, each in decisions.fold().found()]


def test_a_later_word_leaves_it_where_it_was_found_and_an_undo_takes_it_back(tmp_path):
    assert standing(tmp_path, keep(1, [7, 5])) == [(5, 2), (7, 2)]
    assert standing(tmp_path, plain(2, "keep", 7, centroid_id=0)) == [(5, 2), (7, 2)]
    assert standing(tmp_path, plain(3, "reject", 7)) == [(5, 2)]
    assert standing(tmp_path, plain(4, "keep", 7)) == [(5, 2), (7, 2)]
    assert standing(tmp_path, plain(5, "undo", 7, 5, undoes=1)) == []


def test_on_other_centroids_it_stays_a_keep_and_is_found_no_more():
    verdicts = fold([keep(1, [7], centroids="old", event=1)], centroids="new")

    assert verdicts.images[7].action == "keep" and verdicts.found() == []


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        '{"like": 3, "rows": {}}',
        '{"like": "text:a", "rows": {"7": {"width": -1}}}',
        '{"like": "text:a", "rows": {"7": {"secret": "x"}}}',
        '{"like": "text:a", "rows": {"seven": {}}}',
    ],
)
def test_what_is_no_row_of_the_pool_is_not_recorded(tmp_path, text):
    event = plain(1, "keep", 7, centroid_id=0, tag=FOUND, text=text)

    with pytest.raises(DataError, match="rows of the pool"):
        Decisions.open(tmp_path / "d.sqlite").record([event])


def test_of_a_row_only_known_and_fitting_values_are_kept():
    assert values_of(ROW | {"punsafe": float("nan"), "sha256": None, "rank": 4}) == ROW
    assert values_of(ROW | {"url": "x" * 5_000}) is None
    assert len(values_of(ROW | {"caption": "x" * 5_000})["caption"]) == 4_000


def test_rows_stand_after_their_centroids_own_and_neighbours_are_left_out():
    kept = [
        (number, found_rows(found_text("text:a", {number: values_of(ROW)}), centroid)[number])
        for number, centroid in [(9, 1), (8, 0), (7, 1), (6, 5), (3, 0)]
    ]

    table = found_table(kept, np.array([1, 2, 3]), [10, 20], centroids=3)

    places = table.select(["centroid_id", "rank", "id"]).to_pylist()
    assert [tuple(row.values()) for row in places] == [(0, 10, 8), (1, 20, 9), (1, 21, 7)]
    assert table["url"].to_pylist() == [ROW["url"]] * 3
