import random
import sqlite3
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from curation.decisions import Decisions
from curation.events import Event, ids_digest
from curation.found import FOUND, found_text
from spine.errors import DataError
from spine.run import Run
from ui.decision_log import DecisionLog


@pytest.fixture
def run(tmp_path) -> Run:
    return Run(tmp_path)


def send(
    log: DecisionLog, events: list[tuple[int, str, list[int]]], *, client: str = "tab1", curator: str = "ada"
):
    rows = [
        {
            "seq": seq,
            "action": action,
            "ids": [str(each) for each in ids],
            "centroid_id": "3",
            "last_seen": 1_000_000,
        }
        for seq, action, ids in events
    ]
    return log.record({"client": client, "curator": curator, "events": rows}, "digest")


def verdicts(run: Run) -> dict[int, str]:
    return {key: verdict.action for key, verdict in Decisions.open(run.decisions).fold().images.items()}


def test_what_a_page_sends_is_stored_in_its_order(run):
    answer = send(DecisionLog(run), [(1, "keep", [5]), (2, "reject", [6, 7]), (3, "keep", [6])])

    stored = Decisions.open(run.decisions).history()
    assert [(event.seq, event.action, sorted(event.ids)) for event in stored] == [
        (1, "keep", [5]),
        (2, "reject", [6, 7]),
        (3, "keep", [6]),
    ]
    assert {event.centroid_id for event in stored} == {3} and {event.neighbours for event in stored} == {
        "digest"
    }
    assert answer["acknowledged"] == 3
    assert answer["verdicts"]["6"] == {"decision": "keep", "curator": "ada"}
    assert answer["counts"] == {"3": (2, 1)}


def test_what_was_said_is_told_while_another_decision_waits_for_the_disk(run):
    log = DecisionLog(run)
    send(log, [(1, "keep", [5])])
    other = sqlite3.connect(run.decisions, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")  # as another process that records

    with ThreadPoolExecutor(1) as thread:
        waiting = thread.submit(send, log, [(2, "reject", [5])])
        while not log._recording.locked():
            time.sleep(0.001)
        said = log.said([5]).verdicts[5].action
        assert not waiting.done() and said == "keep"
        other.close()
        waiting.result()

    assert log.said([5]).verdicts[5].action == "reject"
    log.close()


def test_the_journal_of_decisions_is_kept_until_the_log_is_closed_and_nothing_is_lost(run):
    log = DecisionLog(run)
    journal = run.decisions.with_name(f"{run.decisions.name}-wal")
    send(log, [(1, "keep", [5])])
    began = journal.stat().st_ino
    send(log, [(2, "keep", [6])])
    assert journal.stat().st_ino == began  # made anew for each decision, it costs more than recording

    log.close()

    assert not journal.exists()
    assert [event.seq for event in Decisions.open(run.decisions).history()] == [1, 2]
    assert send(log, [(3, "keep", [7])])["acknowledged"] == 3
    log.close()


def test_undo_takes_back_the_last_deed_then_the_one_before_also_after_a_restart(run):
    send(DecisionLog(run), [(1, "keep", [5]), (2, "reject", [6, 7])])

    send(DecisionLog(run), [(1, "undo", [])], client="tab2")
    assert verdicts(run) == {5: "keep"}
    send(DecisionLog(run), [(2, "undo", [])], client="tab2")
    assert verdicts(run) == {}
    send(DecisionLog(run), [(3, "undo", [])], client="tab2")  # nothing is left to undo
    assert verdicts(run) == {}


def test_undo_in_the_same_batch_takes_back_what_was_sent_just_before(run):
    send(DecisionLog(run), [(1, "keep", [5]), (2, "reject", [5]), (3, "undo", [])])

    assert verdicts(run) == {5: "keep"}


def test_undo_leaves_other_curators_alone(run):
    log = DecisionLog(run)
    send(log, [(1, "keep", [5])], curator="ada")
    send(log, [(1, "keep", [6])], client="tab2", curator="bob")

    send(log, [(2, "undo", [])], curator="ada")

    assert verdicts(run) == {6: "keep"}


def test_clear_takes_verdicts_back_and_undo_brings_them_all_back(run):
    log = DecisionLog(run)
    send(log, [(1, "keep", [5]), (2, "reject", [6, 7]), (3, "keep", [8])])

    send(log, [(4, "clear", [5, 6, 9])])
    assert verdicts(run) == {7: "reject", 8: "keep"}
    send(log, [(5, "undo", [])])
    assert verdicts(run) == {5: "keep", 6: "reject", 7: "reject", 8: "keep"}


def test_a_batch_sent_twice_changes_nothing(run):
    log = DecisionLog(run)
    batch = [(1, "undo", []), (2, "keep", [5]), (3, "keep", [6]), (4, "clear", [5]), (5, "keep", [5])]
    send(log, batch)
    before = Decisions.open(run.decisions).history()

    send(log, batch)
    send(DecisionLog(run), batch[1:3])

    assert Decisions.open(run.decisions).history() == before
    assert verdicts(run) == {5: "keep", 6: "keep"}


def test_random_keys_end_as_a_plain_model_says(run):
    """A dictionary with stacks of its earlier and its undone states, driven by the same keys."""
    generator = random.Random(3)
    log, state, stack, undone = DecisionLog(run), {}, [], []
    for seq in range(1, 200):
        action = generator.choice(["keep", "reject", "clear", "undo", "redo", "keep"])
        ids = generator.sample(range(8), generator.randint(1, 3))
        if action == "undo":
            undone += [state] if stack else []
            state = stack.pop() if stack else state
        elif action == "redo":
            stack += [state] if undone else []
            state = undone.pop() if undone else state
        elif action == "clear":
            if any(each in state for each in ids):
                stack.append(dict(state))
                undone = []
                state = {key: value for key, value in state.items() if key not in ids}
        else:
            stack.append(dict(state))
            undone = []
            state = {**state, **dict.fromkeys(ids, action)}
        send(log, [(seq, action, [] if action in ("undo", "redo") else ids)])
        assert verdicts(run) == state, (seq, action, ids)


def test_what_another_curator_decided_meanwhile_is_left_alone_and_reported(run):
    log = DecisionLog(run)
    send(log, [(1, "reject", [5])], client="tab2", curator="bob")
    unaware = {"seq": 1, "action": "keep", "ids": ["5", "6"], "centroid_id": "3", "last_seen": 0}

    answer = log.record({"client": "tab1", "curator": "ada", "events": [unaware]}, None)

    assert answer["conflicts"] == [{"id": "5", "curator": "bob", "action": "reject"}]
    assert verdicts(run) == {5: "reject", 6: "keep"}
    send(log, [(2, "keep", [5])])  # now that it has been seen
    assert verdicts(run)[5] == "keep"


def sent(log: DecisionLog, *entries: dict, curator: str = "ada", client: str = "tab1"):
    rows = [{"seq": seq, "last_seen": 1_000_000} | entry for seq, entry in enumerate(entries, 1)]
    return log.record({"client": client, "curator": curator, "events": rows}, None)


def test_captions_and_centroids_are_decided_on_beside_pictures(run):
    log = DecisionLog(run)
    caption, many = {"target": "caption", "ids": ["0a"]}, ["0b", "0c"]

    answer = sent(
        log,
        caption | {"action": "keep", "text": "mine"},
        {"action": "keep", "target": "caption", "ids": many, "filter": "flag=none"},
        {"action": "reject", "target": "centroid", "ids": ["7"], "reason": "too odd"},
        {"action": "note", "ids": ["7"], "tag": "unsure", "text": "what is it?"},
        {"action": "reject", "ids": ["7"]},
    )

    folded = Decisions.open(run.decisions).fold()
    assert {name: verdict.text for name, verdict in folded.captions.items()} == {
        "0a": "mine",
        "0b": None,
        "0c": None,
    }
    assert folded.centroids_left_out() == {7} and folded.notes == {7: ("unsure", "what is it?")}
    assert answer["captions"]["0a"] == {"decision": "keep", "curator": "ada", "text": "mine"}
    assert answer["centroids"] == {
        "7": {"decision": "reject", "curator": "ada", "reason": "too odd", "own": {}}
    }
    assert answer["verdicts"] == {"7": {"decision": "reject", "curator": "ada"}}
    bulk = Decisions.open(run.decisions).history(subject="0b")[0]
    assert (bulk.filter, bulk.ids_digest) == ("flag=none", ids_digest(many))


def test_undo_on_captions_and_undo_elsewhere_take_back_their_own_last_deed(run):
    log = DecisionLog(run)
    sent(
        log,
        {"action": "keep", "target": "caption", "ids": ["0a"], "text": "first"},
        {"action": "keep", "target": "caption", "ids": ["0a"], "text": "second"},
        {"action": "keep", "ids": ["5"]},
    )

    answer = sent(log, {"action": "undo", "target": "caption", "ids": []}, client="tab2")
    assert answer["captions"]["0a"]["text"] == "first" and verdicts(run) == {5: "keep"}
    sent(log, {"action": "undo", "ids": []}, client="tab3")
    assert verdicts(run) == {} and log.captions()["0a"].text == "first"
    sent(log, {"action": "clear", "target": "caption", "ids": ["0a"]}, client="tab4")
    assert log.captions() == {}


@pytest.mark.parametrize(
    "content",
    [
        None,
        [],
        {"client": "a", "curator": "b", "events": []},
        {"client": "", "curator": "b", "events": [{"seq": 1, "action": "keep", "ids": ["1"]}]},
        {"client": "a", "curator": "b", "events": [{"action": "keep", "ids": ["1"]}]},
        {"client": "a", "curator": "b", "events": [{"seq": 1, "action": "delete", "ids": ["1"]}]},
        {"client": "a", "curator": "b", "events": [{"seq": 1, "action": "keep", "ids": [1]}]},
        {"client": "a", "curator": "b", "events": [{"seq": 1, "action": "keep", "ids": ["x"]}]},
        {"client": "a", "curator": "b", "events": [{"seq": 1, "action": "keep", "ids": [str(2**63)]}]},
        {
            "client": "a",
            "curator": "b",
            "events": [{"seq": 1, "action": "keep", "ids": ["1"], "target": "run"}],
        },
        {
            "client": "a",
            "curator": "b",
            "events": [{"seq": 1, "action": "keep", "ids": ["../x"], "target": "caption"}],
        },
        {
            "client": "a",
            "curator": "b",
            "events": [{"seq": 1, "action": "note", "ids": ["1"], "text": "x" * 20_001}],
        },
    ],
)
def test_what_is_no_decision_is_refused_and_not_stored(run, content):
    log = DecisionLog(run)

    with pytest.raises(DataError):
        log.record(content, None)

    assert Decisions.open(run.decisions).history() == []


def test_what_counts_is_what_all_events_fold_to_whoever_wrote_them(run):
    """Standing is kept up event by event; curation.verdicts.fold reads them all anew."""
    generator = random.Random(11)
    decisions, log = Decisions.open(run.decisions), DecisionLog(run)
    for seq in range(1, 300):
        history = decisions.history()
        ids = tuple(generator.sample(range(12), generator.randint(1, 4)))
        event = Event(
            client="other", seq=seq, curator=generator.choice(["ada", "bob"]), last_seen=10**9,
            action=generator.choice(["keep", "reject", "note"]), target="image", ids=ids,
            centroid_id=generator.randint(0, 2), tag="unsure",
        )  # fmt: skip
        if history and generator.random() < 0.4:
            undone = generator.choice(history)
            event = replace(event, action="undo", undoes=undone.event, ids=undone.ids[:2], tag=None)
        decisions.record([event])
        folded = decisions.fold()
        assert log.said(range(12)).verdicts == folded.images
        assert log.said(range(12)).notes == folded.notes
    counts: dict[int, list[int]] = {}
    for verdict in folded.images.values():
        counts.setdefault(verdict.centroid_id, [0, 0])[verdict.action == "reject"] += 1
    assert log.counts() == {place: tuple(pair) for place, pair in counts.items()}


def test_pictures_on_which_curators_differ_are_told_with_what_each_said(run):
    log = DecisionLog(run)
    send(log, [(1, "keep", [5, 6])], curator="ada")
    send(log, [(1, "reject", [5]), (2, "keep", [6])], client="tab2", curator="bob")

    assert log.judgements([5, 6, 7]) == {5: {"ada": "keep", "bob": "reject"}}
    assert log.disputed() == {3: 1}
    send(log, [(3, "keep", [5])], client="tab2", curator="bob")
    assert log.disputed() == {} and log.judgements([5]) == {}


def test_what_changed_since_an_event_is_told_and_so_is_that_it_was_too_much(run):
    log = DecisionLog(run)
    send(log, [(1, "keep", [5]), (2, "reject", [6])])

    told = log.since(1)

    assert told["verdicts"] == {"6": {"decision": "reject", "curator": "ada"}} and not told["all"]
    assert log.since(2)["verdicts"] == {} and not log.since(2)["all"]
    fresh = DecisionLog(run)
    assert fresh.since(1)["verdicts"] == told["verdicts"]


def test_what_a_centroid_has_of_its_own_is_told_undone_and_left_with_its_centroids(run):
    digest = ["first"]
    log = DecisionLog(run, lambda: digest[0])
    one = {"target": "centroid", "ids": ["7"]}

    answer = sent(
        log,
        one | {"action": "set", "tag": "quota_per_centroid", "text": "12"},
        one | {"action": "set", "tag": "aesthetic_min", "text": "4.5"},
        one | {"action": "refill", "text": "300"},
        one | {"action": "set", "tag": "aesthetic_min"},
    )

    assert answer["centroids"]["7"]["own"] == {"quota_per_centroid": 12, "refill": 300}
    sent(log, {"action": "undo", "ids": []}, client="tab2")
    assert log.own_settings() == {7: {"quota_per_centroid": 12, "aesthetic_min": 4.5, "refill": 300}}
    digest[0] = "second"
    assert log.own_settings() == {}


def test_pictures_that_are_no_candidates_any_more_are_told_and_not_stored(run):
    log = DecisionLog(run)
    event = {"seq": 1, "action": "keep", "ids": ["5", "6"], "centroid_id": "3"}
    content = {"client": "tab1", "curator": "ada", "events": [event], "neighbours": "old"}

    answer = log.record(content, "new", lambda centroid, ids: {5} if centroid == 3 else set())

    assert answer["gone"] == ["6"] and verdicts(run) == {5: "keep"}
    again = content | {"events": [event | {"seq": 2, "ids": ["6"]}], "neighbours": "new"}
    assert log.record(again, "new", lambda centroid, ids: set())["gone"] == []


def test_a_kept_hit_carries_what_the_pool_says_and_never_what_a_page_says(run):
    log = DecisionLog(run)
    pool = {7: {"url": "http://example.org/a.png", "similarity": 0.25}, 9: {"url": "x" * 9_000}}
    asked = []

    def found(like, ids):
        asked.append((like, list(ids)))
        return pool

    def sent(seq, ids, **more):
        event = {"seq": seq, "action": "keep", "ids": ids, "centroid_id": 3, "last_seen": 99} | more
        return log.record({"client": "a", "curator": "ada", "events": [event]}, None, found=found)

    forged = found_text("text:a", {8: {"image_path": "/etc/passwd"}})
    sent(1, ["8"], tag=FOUND, text=forged)
    answer = sent(2, ["7", "8", "9"], like="text:stars")

    assert asked == [("text:stars", [7, 8, 9])]
    assert answer["unplaced"] == ["8", "9"] and answer["found"] == {"3": 1}
    assert {number: each.values for number, each in log.found(3).items()} == {7: pool[7]}
    verdicts = Decisions.open(run.decisions).fold()
    assert [number for number, _ in verdicts.found()] == [7] and set(verdicts.images) == {7, 8, 9}
    log.record({"client": "a", "curator": "ada", "events": [{"seq": 3, "action": "undo", "ids": []}]}, None)
    assert log.found(3) == {} and log.found_counts() == {}
    log.close()
