import pytest

from captioner.captions import caption
from captioner.takes import retake
from spine.errors import DataError
from spine.ids import caption_id
from spine.manifest import MANIFEST, find_manifest, read_manifest, verify
from spine.publish import sha256_of
from spine.table_files import read_parts
from spine.tables import CAPTIONS
from tests.unit.captioner.runs import picture_id


def takes(run):
    return read_parts(run.caption_takes, CAPTIONS).to_pylist()


def rows(run):
    return read_parts(run.captions, CAPTIONS).to_pylist()


def test_asked_again_a_picture_has_another_caption_and_keeps_the_first(make_run, pictures):
    run = make_run(pictures)
    before = caption(run)
    first = rows(run)
    number = picture_id(pictures[2])

    manifest = retake(run, [number])

    [row] = takes(run)
    assert rows(run) == first
    assert (row["id"], row["take"], row["prompt_id"], row["status"]) == (number, 1, "laion-pop", "captioned")
    assert row["caption_id"] == caption_id(sha256_of(pictures[2]), before.facts["captioner"], 1)
    assert row["raw_caption"] != next(each["raw_caption"] for each in first if each["id"] == number)
    assert manifest.counts == {"asked": 1, "captioned": 1}
    assert manifest.facts["captions"] == [row["caption_id"]]


def test_a_third_caption_differs_from_the_second_and_the_same_is_drawn_in_any_company(make_run, pictures):
    run, other = make_run(pictures), make_run(pictures, name="other")
    caption(run)
    caption(other)
    number = picture_id(pictures[0])
    retake(run, [number])
    retake(run, [number])

    retake(other, [picture_id(file) for file in pictures])

    assert [row["take"] for row in takes(run)] == [1, 2]
    assert takes(run)[0]["raw_caption"] != takes(run)[1]["raw_caption"]
    assert next(row for row in takes(other) if row["id"] == number) == takes(run)[0]


def test_another_prompt_is_first_asked_for_its_likeliest_words(make_run, pictures):
    run, short = make_run(pictures), make_run(pictures, name="short", prompt="short")
    caption(run)
    caption(short)
    number = picture_id(pictures[4])

    retake(run, [number], prompt="short")
    retake(run, [number], prompt="short")

    assert [row["take"] for row in takes(run)] == [0, 1]
    assert takes(run)[0] == next(row for row in rows(short) if row["id"] == number)
    assert {row["prompt_id"] for row in rows(run)} == {"laion-pop"}


def test_a_finished_stage_stays_finished_and_its_manifest_names_the_takes(make_run, pictures):
    run = make_run(pictures)
    before = caption(run)

    retake(run, [picture_id(pictures[1])])

    after = read_manifest(run.captions)
    assert (after.counts, after.facts, after.inputs) == (before.counts, before.facts, before.inputs)
    assert after.digest != before.digest
    assert "takes/part-00000.parquet" in {record.path for record in after.files}
    assert verify(run.captions) == [] and caption(run) == after


def test_takes_survive_force_and_a_change_of_prompt(make_run, pictures):
    run = make_run(pictures)
    caption(run)
    retake(run, [picture_id(pictures[1])])
    kept = takes(run)

    caption(run, force=True)
    make_run(pictures, prompt="short")
    caption(run)

    assert takes(run) == kept


def test_of_an_unfinished_stage_the_takes_make_no_finished_one(make_run, pictures):
    run = make_run(pictures)
    caption(run, limit=3)

    retake(run, [picture_id(pictures[6])])

    assert len(takes(run)) == 1 and find_manifest(run.captions) is None
    assert caption(run).counts["captioned"] == 7


def test_a_kill_while_a_take_is_published_leaves_a_stage_that_finishes_itself(
    make_run, pictures, monkeypatch
):
    from spine.stage import Stage

    run = make_run(pictures)
    before = caption(run)

    def killed(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Stage, "finish", killed)
        with pytest.raises(KeyboardInterrupt):
            retake(run, [picture_id(pictures[1])])
    assert not (run.captions / MANIFEST).exists()

    assert caption(run).counts == before.counts
    assert len(takes(run)) == 1 and verify(run.captions) == []


def test_a_picture_that_fails_again_is_counted_and_gets_no_row(make_run, pictures):
    run = make_run(pictures)
    caption(run)
    pictures[3].write_bytes(b"gone")

    manifest = retake(run, [picture_id(pictures[3]), picture_id(pictures[2])])

    assert manifest.counts == {"asked": 2, "captioned": 1, "failed_changed": 1}
    assert [row["id"] for row in takes(run)] == [picture_id(pictures[2])]


def test_without_captions_there_is_none_to_ask_for_again(make_run, pictures):
    run = make_run(pictures)

    with pytest.raises(DataError, match="no captions yet"):
        retake(run, [picture_id(pictures[3])])
    with pytest.raises(DataError, match="not selected"):
        retake(run, [5])
