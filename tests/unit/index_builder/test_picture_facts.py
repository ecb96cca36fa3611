import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from index_builder.metadata import picture_facts as module
from index_builder.metadata.picture_facts import JUDGED_BY, picture_facts


def unit(vectors):
    return (vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)).astype(np.float32)


def found(rows):
    """Rows (centroid_id, id, similarity[, width, height, aesthetic, sha256]); the row number is the id here."""
    rows = sorted(rows, key=lambda row: (row[0], -row[2]))
    columns = {name: [] for name in JUDGED_BY.names}
    for centroid, picture, similarity, *rest in rows:
        width, height, aesthetic, sha256 = (*rest, None, None, None, None)[:4]
        values = (
            centroid,
            columns["centroid_id"].count(centroid),
            similarity,
            picture,
            picture,
            width,
            height,
            aesthetic,
            sha256,
        )
        for name, value in zip(JUDGED_BY.names, values, strict=True):
            columns[name].append(value)
    return pa.table(columns, schema=JUDGED_BY)


def nothing(rows):
    return None


def test_the_best_centroid_is_the_most_similar_and_of_equals_the_lower():
    table = found([(0, 10, 0.5), (1, 10, 0.7), (2, 10, 0.7), (0, 11, 0.9), (2, 12, 0.1)])

    facts = picture_facts(table, 0.94, nothing)

    best = dict(zip(table.column("id").to_pylist(), facts.best_centroid.tolist(), strict=True))
    assert best == {10: 1, 11: 0, 12: 2}
    assert facts.pictures == 3
    assert facts.duplicate_of.null_count == 5


def test_a_picture_found_twice_by_one_centroid_counts_once_at_its_better_rank():
    table = found([(0, 10, 0.9), (0, 11, 0.8), (0, 10, 0.7), (1, 10, 0.6)])

    assert picture_facts(table, 2, nothing).first.tolist() == [True, True, False, True]


@pytest.mark.parametrize(
    ("values", "stands"),
    [
        (((100, 100, 9.0), (200, 100, 1.0)), 2),  # the larger
        (((None, None, 9.0), (20, 10, 1.0)), 2),  # unknown size is smallest
        (((200, 100, 5.0), (100, 200, 6.0)), 2),  # of equal area the more beautiful
        (((200, 100, 5.0), (100, 200, None)), 1),  # unknown beauty is least
        (((200, 100, 5.0), (200, 100, 5.0)), 1),  # then the nearer: 1 has 0.9
    ],
)
def test_of_near_duplicates_the_better_one_stands_for_the_other(values, stands):
    vectors = unit(np.array([[0, 0, 1], [1, 0, 0], [1, 0.1, 0]], dtype=np.float32))
    table = found([(0, 1, 0.9, *values[0]), (1, 2, 0.8, *values[1]), (1, 0, 0.1)])

    facts = picture_facts(table, 0.94, lambda rows: vectors[rows])

    expected = {0: None, 1: None, 2: None} | {3 - stands: stands}
    assert dict(zip(table.column("id").to_pylist(), facts.duplicate_of.to_pylist(), strict=True)) == expected


@pytest.mark.parametrize("near_duplicate", [0.94, 1.0])
def test_pictures_of_the_same_bytes_are_duplicates_whatever_their_vectors(near_duplicate):
    # 1, 2 and 3 are one file; 4 nearly repeats the 2 that stands for it; 5 and 6 have no known bytes.
    vectors = unit(
        np.array([[1, 0, 0], [0, 1, 0], [0, 0, 1], [0, 1, 1], [0, 0.05, 1], [1, 1, 0], [1, 0, 1.0]])
    )
    rows = [
        (1, 100, 9.0, "a"),
        (2, 200, 1.0, "a"),
        (3, 100, 5.0, "a"),
        (4, 50, 5.0, "b"),
        (5, 9, 9.0),
        (6, 8, 9.0),
    ]
    table = found([(0, picture, 0.9 - picture / 10, side, side, *rest) for picture, side, *rest in rows])

    facts = picture_facts(table, near_duplicate, lambda asked: vectors[asked])

    of = dict(zip(table.column("id").to_pylist(), facts.duplicate_of.to_pylist(), strict=True))
    assert of == {1: 2, 2: None, 3: 2, 4: 2 if near_duplicate < 1 else None, 5: None, 6: None}


def test_a_threshold_of_one_asks_for_no_vectors():
    def forbidden(rows):
        raise AssertionError

    assert picture_facts(found([(0, 1, 0.5)]), 1.0, forbidden).duplicate_of.to_pylist() == [None]


def test_nothing_found_has_no_facts():
    facts = picture_facts(JUDGED_BY.empty_table(), 0.94, nothing)

    assert facts.pictures == 0 and len(facts.best_centroid) == len(facts.duplicate_of) == 0


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10_000), at_once=st.sampled_from([1, 10_000]))
def test_the_facts_hold_for_any_neighbours(seed, at_once):
    random = np.random.default_rng(seed)
    vectors = unit(
        np.repeat(random.standard_normal((10, 5)), 3, axis=0) + 0.05 * random.standard_normal((30, 5))
    )
    pairs = {
        (int(c), int(p))
        for c, p in zip(random.integers(6, size=60), random.integers(30, size=60), strict=True)
    }
    table = found([(c, p, float(random.integers(5)) / 5, int(random.integers(1, 4)), 2) for c, p in pairs])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "COMPARED_AT_ONCE", at_once)
        facts = picture_facts(table, 0.94, lambda rows: vectors[rows])

    rows = [
        row | {"best": best, "of": of}
        for row, best, of in zip(
            table.to_pylist(), facts.best_centroid.tolist(), facts.duplicate_of.to_pylist(), strict=True
        )
    ]
    wanted = {}
    for row in rows:
        key = (-row["similarity"], row["centroid_id"])
        wanted[row["id"]] = min(wanted.get(row["id"], key), key)
    of = {row["id"]: row["of"] for row in rows}
    for row in rows:
        assert row["best"] == wanted[row["id"]][1]
        assert row["of"] == of[row["id"]]
        if row["of"] is not None:
            assert of[row["of"]] is None
            assert vectors[row["id"]] @ vectors[row["of"]] >= 0.94
    if at_once == 10_000:
        kept = [picture for picture, stands in of.items() if stands is None]
        similarities = vectors[kept] @ vectors[kept].T - np.eye(len(kept))
        assert similarities.max() < 0.94
