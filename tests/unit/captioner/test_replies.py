import threading

import pytest

from captioner.captions import caption
from captioner.engine import Reply
from captioner.replies import KeptReplies
from captioner.worklist import Unit
from tests.unit.captioner.test_captions import Counting, rows
from tests.unit.captioner.test_http import good, misbehaving  # noqa: F401

SAID = {
    name: Reply(text, "stop", 3, attempts=2, prompt_tokens=9)
    for name, text in {"a": "a star", "b": 'two\nlines, "quoted" \ud800', "c": "雪"}.items()
}


def unit(name, *ids):
    return Unit(name, ids, None)


def test_replies_are_there_after_a_kill_at_any_byte(tmp_path):
    path = tmp_path / "replies.jsonl"
    kept = KeptReplies(path)
    for name, reply in SAID.items():
        kept.keep(unit(name, 1), reply)
    kept.close()
    content = path.read_bytes()

    for length in range(len(content) + 1):
        path.write_bytes(content[:length])
        left = KeptReplies(path)
        left.keep(unit("new", 5), SAID["a"])
        left.close()
        after = KeptReplies(path)
        after.close()
        assert after.find("new") == SAID["a"]
        whole = [name for name in SAID if left.find(name) is not None]
        assert whole == list(SAID)[: len(whole)] and all(left.find(name) == SAID[name] for name in whole)
        assert len(whole) >= content[:length].count(b"\n")


def test_what_is_published_is_dropped_and_what_says_nothing_is_not_kept(tmp_path):
    path = tmp_path / "replies.jsonl"
    kept = KeptReplies(path)
    for name, reply in (SAID | {"empty": Reply(" \n", "stop", 1)}).items():
        kept.keep(unit(name, 1, 2), reply)

    kept.settle(["a", "never kept"])
    kept.keep(unit("d", 4), SAID["c"])
    kept.close()

    again = KeptReplies(path)
    again.close()
    assert [name for name in ("a", "b", "c", "d", "empty") if again.find(name)] == ["b", "c", "d"]
    assert [each.caption_id for each in kept.fresh()] == ["a", "b", "c", "empty", "d"]
    assert kept.fresh() == []


def test_a_batch_that_was_described_and_not_published_is_not_asked_again(make_run, pictures, monkeypatch):
    unbroken = make_run(pictures, name="unbroken")
    caption(unbroken)
    run = make_run(pictures, name="killed")
    monkeypatch.setattr(
        "captioner.captions._Work._publish", lambda *_: None
    )  # as if killed before the first part
    with pytest.raises(KeyboardInterrupt):
        caption(run, progress=Counting(stop_after=2))
    monkeypatch.undo()
    assert rows(run) == []
    asked, describe = [], "captioner.embedded.EmbeddedEngine.describe"
    from captioner.embedded import EmbeddedEngine

    real = EmbeddedEngine.describe
    monkeypatch.setattr(
        describe, lambda self, images, *a, **k: asked.append(len(images)) or real(self, images, *a, **k)
    )

    progress = Counting()
    caption(run, progress=progress)

    assert asked == [0, 0, 2, 1], "batches of two, the first two of them known"
    assert (progress.total, progress.done, progress.units) == (7, 4, 3), "known ones don't count in the rate"
    assert rows(run) == rows(unbroken)
    caption(run, force=True)
    assert asked[4:] == [2, 2, 2, 1]


def test_progress_is_told_while_a_batch_is_under_way_and_adds_up(
    make_run,
    pictures,
    misbehaving,  # noqa: F811
    monkeypatch,
):
    monkeypatch.setattr("captioner.captions.TELL_EVERY_S", 0.01)
    told = threading.Event()

    def script(_, number):
        if number == 7:  # after the blank one and six of seven pictures, all of the first two batches
            told.wait(30)
        return good()

    address, _ = misbehaving(script)
    run = make_run(pictures, engine="http", endpoints=(address,), model="tiny-llava", in_flight=4)

    class Listening(Counting):
        def advance(self, units, failures=None):
            super().advance(units, failures)
            if self.units == 6:
                told.set()

    progress = Listening()
    caption(run, progress=progress)

    assert told.is_set() and progress.units == 7
