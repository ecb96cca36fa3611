"""Decisions over a real SQLite file: nothing lost, nothing doubled, everything undone that was undone."""

import contextlib
import multiprocessing
import os
import signal
import sqlite3
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curation.decisions import Decisions, _what_to_do
from curation.events import Event, ids_digest
from curation.verdicts import fold
from spine.errors import DataError
from spine.settings import FiltersConfig


def event(seq: int, action: str = "keep", ids=(1,), **values) -> Event:
    given_ = {"client": "tab-1", "curator": "ada", "target": "image"} | values
    return Event(seq=seq, action=action, ids=tuple(ids), **given_)


@pytest.fixture
def decisions(tmp_path: Path) -> Decisions:
    return Decisions.open(tmp_path / "decisions.sqlite")


def test_a_missing_file_is_no_decisions_and_reading_does_not_make_it(decisions):
    assert decisions.history() == []
    assert decisions.fold().images == {}
    assert decisions.last_event() == 0
    assert not decisions.path.exists()


def test_the_later_verdict_counts_and_ids_keep_all_64_bits(decisions):
    smallest, largest = -(2**63), 2**63 - 1
    decisions.record([event(1, "keep", [smallest, largest, 3], centroid_id=7)])
    decisions.record([event(2, "reject", [largest], reason="blurred")])

    images = decisions.fold().images

    assert {key: verdict.action for key, verdict in images.items()} == {
        smallest: "keep",
        3: "keep",
        largest: "reject",
    }
    assert (images[largest].reason, images[3].centroid_id, images[3].curator) == ("blurred", 7, "ada")


def test_sending_a_batch_again_changes_nothing_and_gives_the_same_numbers(decisions):
    batch = [event(1, "keep", [1, 2]), event(2, "reject", [2])]

    first = decisions.record(batch)
    second = decisions.record(batch)

    assert first == second
    assert first.recorded == {1: 1, 2: 2}
    assert len(decisions.history()) == 2


def test_an_undo_takes_back_some_ids_and_its_own_undo_brings_them_back(decisions):
    decisions.record([event(1, "keep", [1, 2, 3])])
    decisions.record([event(2, "reject", [2])])

    decisions.undo(1, client="tab-1", seq=3, curator="ada", ids=[1, 2])
    assert {key: value.action for key, value in decisions.fold().images.items()} == {2: "reject", 3: "keep"}

    decisions.undo(3, client="tab-1", seq=4, curator="ada", ids=[1])
    assert {key: value.action for key, value in decisions.fold().images.items()} == {
        1: "keep",
        2: "reject",
        3: "keep",
    }

    decisions.undo(2, client="tab-1", seq=5, curator="ada")
    assert 2 not in decisions.fold().images  # its keep is undone, and now its reject


def test_undoing_what_is_not_there_is_refused_and_records_nothing(decisions):
    decisions.record([event(1, "keep", [1])])

    with pytest.raises(DataError, match="no event 9"):
        decisions.undo(9, client="tab-1", seq=2, curator="ada")
    with pytest.raises(DataError, match="did nothing to image 5"):
        decisions.undo(1, client="tab-1", seq=2, curator="ada", ids=[5])
    assert len(decisions.history()) == 1


def test_another_curators_unseen_decision_is_a_conflict_and_in_bulk_only_that_id_is_left_out(decisions):
    decisions.record([event(1, "keep", [1, 2])])

    single = decisions.record([event(1, "reject", [1], client="tab-2", curator="bob")])
    bulk = decisions.record([event(2, "reject", [2, 3, 4], client="tab-2", curator="bob")])

    assert single.recorded == {}
    assert [(each.id, each.curator, each.action, each.event) for each in single.conflicts] == [
        (1, "ada", "keep", 1)
    ]
    assert bulk.recorded == {2: 2}
    assert [each.id for each in bulk.conflicts] == [2]
    images = decisions.fold().images
    assert {key: verdict.action for key, verdict in images.items()} == {
        1: "keep",
        2: "keep",
        3: "reject",
        4: "reject",
    }

    seen = decisions.record(
        [event(3, "reject", [1], client="tab-2", curator="bob", last_seen=single.last_event)]
    )
    assert (seen.conflicts, decisions.fold().images[1].action) == ((), "reject")


def test_ones_own_events_and_notes_are_no_conflicts(decisions):
    decisions.record([event(1, "keep", [1])])
    decisions.record([event(2, "note", [9], tag="unsure", text="hand?")])

    other_tab = decisions.record([event(1, "reject", [1], client="tab-2")])
    other_person = decisions.record([event(2, "keep", [9], client="tab-3", curator="bob")])

    assert other_tab.conflicts == other_person.conflicts == ()
    assert decisions.fold().notes == {9: ("unsure", "hand?")}


def test_centroids_and_captions_have_verdicts_of_their_own(decisions):
    decisions.record(
        [
            event(1, "keep", [4], target="centroid"),
            event(2, "reject", [5], target="centroid", reason="off topic"),
            event(3, "keep", ["ab" * 16], target="caption", text="a red star"),
        ]
    )

    verdicts = decisions.fold()

    assert verdicts.centroids_left_out() == {5}
    assert verdicts.captions["ab" * 16].text == "a red star"
    assert verdicts.images == {}


def test_digests_follow_what_their_readers_read_and_nothing_else(decisions):
    decisions.record([event(1, "keep", [1])])
    before = decisions.fold()
    decisions.record([event(2, "keep", ["c" * 32], target="caption", text="x"), event(3, "note", [1])])
    decisions.record([event(4, "keep", [3], target="centroid")])
    captioned = decisions.fold()
    decisions.record([event(5, "reject", [1])])
    changed = decisions.fold()
    decisions.undo(5, client="tab-1", seq=6, curator="ada")
    back = decisions.fold()

    assert before.selection_digest() == captioned.selection_digest() == back.selection_digest()
    assert changed.selection_digest() != before.selection_digest()
    assert before.caption_digest() != captioned.caption_digest() == changed.caption_digest()


@pytest.mark.parametrize(
    "bad",
    [
        event(1, "delete"),
        event(1, target="pool"),
        event(1, ids=[]),
        event(1, ids=[1, 1]),
        event(1, ids=["1"]),
        event(1, ids=[2**63]),
        event(1, ids=[True]),
        event(1, ids=[1], target="caption"),
        event(1, "undo"),
        event(1, "keep", undoes=3),
        event(1, curator=""),
    ],
)
def test_a_malformed_event_is_refused_with_all_of_its_batch(decisions, bad):
    with pytest.raises(DataError):
        decisions.record([event(7, ids=[70]), bad])
    assert decisions.history() == []


def test_a_file_that_is_no_database_and_one_of_a_newer_version_are_refused(tmp_path):
    garbage = tmp_path / "garbage.sqlite"
    garbage.write_bytes(b"not a database at all" * 100)
    newer = tmp_path / "newer.sqlite"
    with sqlite3.connect(newer) as database:
        database.execute("PRAGMA user_version = 99")

    for path in (garbage, newer):
        with pytest.raises(DataError, match=path.name):
            Decisions.open(path)
        with pytest.raises(DataError, match=path.name):
            Decisions(path).record([event(1)])


def test_ids_digest_depends_on_order_and_separates_ids():
    assert ids_digest([1, 23]) != ids_digest([12, 3])
    assert ids_digest([1, 2]) != ids_digest([2, 1])
    assert ids_digest([1, 2]) == ids_digest(["1", "2"])


_ACTIONS = st.lists(
    st.tuples(
        st.sampled_from(["keep", "reject", "undo"]),
        st.sets(st.integers(0, 4), min_size=1),
        st.integers(1, 30),
    ),
    max_size=25,
)


@settings(max_examples=200, deadline=None)
@given(_ACTIONS)
def test_folding_equals_asking_each_id_by_itself(actions):
    events = [
        Event(
            client="t",
            seq=number,
            curator="ada",
            action=action,
            target="image",
            ids=tuple(ids),
            event=number,
            undoes=1 + of % (number - 1) if action == "undo" else None,
        )
        for number, (action, ids, of) in enumerate(actions, 1)
        if action != "undo" or number > 1
    ]
    by_number = {each.event: each for each in events}

    def stands(number: int, image: int) -> bool:
        later = [e for e in events if e.action == "undo" and e.undoes == number and image in e.ids]
        return not any(stands(each.event, image) for each in later)

    expected = {}
    for image in range(5):
        of_image = [e for e in by_number.values() if image in e.ids and e.action != "undo"]
        valid = [e for e in of_image if stands(e.event, image)]
        if valid:
            expected[image] = valid[-1].event

    assert {key: verdict.event for key, verdict in fold(events).images.items()} == expected


def _write_many(path: Path, number: int, count: int) -> None:
    decisions = Decisions.open(path)
    for seq in range(count):
        decisions.record(
            [event(seq, "keep", [number * 1000 + seq], client=f"tab-{number}", curator=f"c{number}")]
        )


def test_many_curators_at_once_lose_nothing(tmp_path):
    path = tmp_path / "decisions.sqlite"
    context = multiprocessing.get_context("spawn")
    writers = [context.Process(target=_write_many, args=(path, number, 25)) for number in range(6)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(120)

    assert [writer.exitcode for writer in writers] == [0] * 6
    kept = Decisions.open(path).fold().images
    assert set(kept) == {number * 1000 + seq for number in range(6) for seq in range(25)}
    assert [each.event for each in Decisions.open(path).history()] == list(range(1, 151))


def _write_and_acknowledge(path: Path, acknowledged: Path) -> None:
    decisions = Decisions.open(path)
    with acknowledged.open("w") as log:
        for seq in range(100_000):
            decisions.record([event(seq, "keep", [seq])])
            log.write(f"{seq}\n")
            log.flush()


def test_kill_9_of_a_writer_loses_no_acknowledged_decision(tmp_path):
    path, acknowledged = tmp_path / "decisions.sqlite", tmp_path / "acknowledged"
    context = multiprocessing.get_context("spawn")
    for _ in range(3):
        path.unlink(missing_ok=True)
        acknowledged.unlink(missing_ok=True)
        writer = context.Process(target=_write_and_acknowledge, args=(path, acknowledged))
        writer.start()
        while not acknowledged.exists() or acknowledged.stat().st_size < 20:
            assert writer.is_alive()
            time.sleep(0.01)
        os.kill(writer.pid, signal.SIGKILL)
        writer.join(30)

        promised = {int(line) for line in acknowledged.read_text().splitlines()}
        kept = set(Decisions.open(path).fold().images)
        assert promised <= kept
        assert len(kept) <= len(promised) + 1  # the one that was written and not yet acknowledged
        assert Decisions.open(path).record([event(10**6, "keep", [1])]).recorded
        for side in tmp_path.glob("decisions.sqlite-*"):
            side.unlink()


def on_centroid(seq: int, action: str, ids, **values) -> Event:
    return event(seq, action, ids, target="centroid", **values)


def test_a_centroids_own_settings_count_until_undone_or_given_back_with_curator_and_time(decisions):
    decisions.record(
        [
            on_centroid(1, "set", [3, 4], tag="quota_per_centroid", text="20"),
            on_centroid(2, "set", [3], tag="pwatermark_max", text="0.25"),
            on_centroid(3, "set", [3], tag="aesthetic_min", text="null"),
            on_centroid(4, "refill", [3], text="500"),
            on_centroid(8, "set", [3], tag="violence_max", text="-0.5"),
        ]
    )
    changed = decisions.record([on_centroid(5, "set", [3], tag="quota_per_centroid", text="5")])

    verdicts = decisions.fold()
    own = verdicts.settings[3]
    assert {name: setting.value for name, setting in own.items()} == {
        "quota_per_centroid": 5,
        "pwatermark_max": 0.25,
        "aesthetic_min": None,
        "violence_max": -0.5,
    }
    assert own["quota_per_centroid"].curator == "ada"
    assert own["quota_per_centroid"].time > "2020"
    assert (verdicts.refills[3].value, verdicts.refills[3].curator) == (500, "ada")
    assert verdicts.quotas(6, 60).tolist() == [60, 60, 60, 5, 20, 60]
    filters = verdicts.own_filters(FiltersConfig(min_side_px=99, pwatermark_max=0.8))
    own_filters = filters[3]
    assert (own_filters.min_side_px, own_filters.pwatermark_max, own_filters.violence_max) == (99, 0.25, -0.5)
    assert own_filters.aesthetic_min.value is None

    decisions.undo(changed.recorded[5], client="tab-1", seq=6, curator="ada")
    assert decisions.fold().quotas(5, 60)[3] == 20
    decisions.record([on_centroid(7, "set", [3], tag="quota_per_centroid", text=None)])
    assert decisions.fold().quotas(5, 60)[3] == 60


@pytest.mark.parametrize(
    "values",
    [
        {"tag": "quota", "text": "5"},
        {"tag": "quota_per_centroid", "text": "5.5"},
        {"tag": "quota_per_centroid", "text": "null"},
        {"tag": "quota_per_centroid", "text": "-1"},
        {"tag": "quota_per_centroid", "text": "true"},
        {"tag": "pwatermark_max", "text": "1.5"},
        {"tag": "pwatermark_max", "text": "NaN"},
        {"tag": "violence_max", "text": "-2.5"},
        {"tag": "min_side_px", "text": "many"},
    ],
)
def test_a_setting_that_is_none_or_has_a_value_it_cannot_have_is_refused(decisions, values):
    with pytest.raises(DataError, match="needed|none of"):
        decisions.record([on_centroid(1, "set", [3], **values)])
    with pytest.raises(DataError, match="for centroids"):
        decisions.record([event(1, "refill", [3], text="5")])
    assert decisions.history() == []


def test_two_curators_conflict_on_the_same_setting_only(decisions):
    decisions.record([on_centroid(1, "set", [3], tag="quota_per_centroid", text="20")])
    bob = {"client": "tab-2", "curator": "bob", "last_seen": 0}

    other = decisions.record([on_centroid(1, "set", [3], tag="min_side_px", text="9", **bob)])
    left_out = decisions.record([on_centroid(2, "reject", [3], **bob)])
    same = decisions.record([on_centroid(3, "set", [3], tag="quota_per_centroid", text="9", **bob)])

    assert (other.conflicts, left_out.conflicts) == ((), ())
    assert [(conflict.id, conflict.curator, conflict.event) for conflict in same.conflicts] == [(3, "ada", 1)]


def test_what_was_decided_on_centroids_that_are_gone_counts_on_the_new_ones_no_more(decisions):
    decisions.record(
        [
            on_centroid(1, "reject", [3], centroids="old"),
            on_centroid(2, "set", [3], tag="quota_per_centroid", text="9", centroids="old"),
            on_centroid(3, "reject", [4], centroids="new"),
            event(4, "keep", [3], centroids="old"),
        ]
    )

    assert decisions.fold("new").centroids_left_out() == {4}
    assert decisions.fold("new").settings == {}
    assert decisions.fold("new").images[3].action == "keep"
    assert decisions.fold("old").centroids_left_out() == {3}
    assert decisions.fold().centroids_left_out() == {3, 4}


def test_decisions_of_the_first_version_are_read_and_added_to(decisions):
    decisions.record([event(1, "keep", [1])])
    with sqlite3.connect(decisions.path) as database:
        database.execute("ALTER TABLE events DROP COLUMN centroids")
        database.execute("PRAGMA user_version = 1")

    assert decisions.fold().images[1].action == "keep"
    decisions.record([on_centroid(2, "reject", [5], centroids="x")])
    assert [each.centroids for each in decisions.history()] == [None, "x"]


def test_a_full_disk_is_told_as_such(tmp_path):
    with contextlib.closing(sqlite3.connect(tmp_path / "full.sqlite")) as database:
        database.execute("PRAGMA max_page_count = 2")
        with pytest.raises(sqlite3.OperationalError) as full:
            for number in range(3):
                database.execute(f"CREATE TABLE t{number} (x)")

    assert "free some space" in _what_to_do(full.value)
    assert "free some space" not in _what_to_do(sqlite3.DatabaseError("file is not a database"))
