import pytest

from captioner.captions import caption
from captioner.estimate import estimate, estimate_lines
from spine.errors import DataError
from spine.jobs import Journal
from tests.unit.captioner.runs import picture_id
from tests.unit.captioner.test_captions import Counting, with_settings


def left(run):
    return {path: path.read_bytes() for path in run.folder.rglob("*") if path.is_file()}


def test_before_the_first_start_all_would_be_asked_and_nothing_is_known_of_the_rate(make_run, pictures):
    pictures[3].write_bytes(pictures[0].read_bytes())
    run = make_run(pictures)
    before = left(run)

    found = estimate(run)

    assert (found.selected, found.contents, found.to_ask) == (7, 6, 6)
    assert (found.captioned, found.failed, found.rate, found.seconds) == (0, 0, None, None)
    assert (found.model, found.prompt_id) == ("tiny-llava", "laion-pop")
    assert estimate(run, limit=2).to_ask == 2
    assert estimate(run, ids=[picture_id(pictures[1])]).to_ask == 1
    assert left(run) == before


def test_it_says_what_the_same_call_then_does(make_run, pictures):
    pictures[1].write_bytes(pictures[1].read_bytes()[:300])
    run = make_run(pictures)
    journal = Journal(run, ["caption", str(run.folder)])
    caption(run, limit=5, progress=journal)
    journal.close("done")

    for arguments in ({}, {"failed_only": True}, {"force": True}):
        found, progress = estimate(run, **arguments), Counting()
        assert found.to_ask == {"": 2, "failed_only": 1, "force": 7}[next(iter(arguments), "")]
        if arguments != {"force": True}:
            assert found.rate is not None and found.seconds == pytest.approx(found.to_ask / found.rate)
            assert "pictures a second" in estimate_lines(found)[-1]
        assert found.captioned + found.failed in (5, 7)
        caption(run, progress=progress, **arguments)
        assert progress.units == found.to_ask


def test_another_captioner_has_its_own_counts_and_no_rate_yet(make_run, pictures):
    run = make_run(pictures)
    journal = Journal(run, ["caption", str(run.folder)])
    caption(run, progress=journal)
    journal.close("done")
    with_settings(run, prompt="short")

    found = estimate(run)
    assert (found.captioned, found.to_ask, found.rate) == (0, 7, None)
    assert "isn't known" in estimate_lines(found)[-1]

    caption(run)
    with_settings(run, prompt="laion-pop")
    found = estimate(run)
    assert (found.captioned, found.to_ask) == (7, 0) and found.rate is not None


def test_what_would_stop_the_run_is_said(make_run, pictures):
    with pytest.raises(DataError, match="nothing to caption"):
        estimate(make_run(pictures, not_selected=7))
