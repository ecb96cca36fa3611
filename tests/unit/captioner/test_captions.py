import dataclasses
import shutil

import pytest
from PIL import Image

from captioner import captions as stage
from captioner import shelves
from captioner.captions import caption
from captioner.embedded import EmbeddedEngine, EmbeddedSetup
from captioner.engine import CaptionFailure, Reply
from captioner.rows import caption_row
from captioner.second_try import Answer
from captioner.worklist import captioner_id
from spine.config import load_config, write_config
from spine.errors import DataError, ModelError
from spine.ids import caption_id
from spine.manifest import MANIFEST, find_manifest, read_manifest, verify
from spine.prompts import PROMPTS, Prompt
from spine.publish import sha256_of
from spine.settings import CaptionConfig, Config
from spine.table_files import read_parts
from spine.tables import CAPTIONS
from tests.unit.captioner.runs import noise, picture_id, publish_images, publish_selection

LAION = PROMPTS["laion-pop"]


class Counting:
    """Counts what a stage tells, and can stop it after so many batches."""

    def __init__(self, stop_after=None):
        self.total, self.done, self.units, self.failures, self.ended = None, 0, 0, {}, False
        self.batches, self.stop_after = 0, stop_after

    def begin(self, stage, total, unit, done=0):
        self.total, self.done = total, done

    def advance(self, units, failures=None):
        self.units += units
        self.batches += 1
        for reason, n in (failures or {}).items():
            self.failures[reason] = self.failures.get(reason, 0) + n
        if self.batches == self.stop_after:
            raise KeyboardInterrupt

    def say(self, line):
        pass

    def end(self):
        self.ended = True


def rows(run):
    return read_parts(run.captions, CAPTIONS).to_pylist()


@pytest.fixture
def small_parts(monkeypatch):
    monkeypatch.setattr(stage, "BATCHES_A_PART", 1)


def test_each_picture_has_the_caption_the_engine_gives_of_it(make_run, pictures, tiny_llava):
    run = make_run(pictures)
    progress = Counting()

    manifest = caption(run, progress=progress)

    engine = EmbeddedEngine.load(load_config(run.config).caption)
    by_id = {row["id"]: row for row in rows(run)}
    assert len(by_id) == len(pictures)
    for file in pictures:
        [reply] = engine.describe([Image.open(file)], LAION, 8)
        row = by_id[picture_id(file)]
        assert row["raw_caption"] == reply.text
        assert row["caption"] == reply.text.strip()
        assert (row["tokens"], row["finish_reason"]) == (reply.tokens, reply.finish_reason)
        captioner = captioner_id(LAION, engine.setup.fingerprint, 8, False)
        assert row["caption_id"] == caption_id(sha256_of(file), captioner)
        assert row["captioner"] == captioner
        assert row["words"] == len(row["caption"].split())
        assert (row["engine"], row["model"], row["family"]) == ("embedded", "tiny-llava", "llava")
        assert (row["prompt_id"], row["prefix_found"], row["attempts"]) == ("laion-pop", False, 1)
    assert (
        manifest.counts["selected"] == manifest.counts["captioned"] == manifest.counts["prefix_missing"] == 7
    )
    assert manifest.counts["failed"] == 0
    assert manifest.facts["model"] == "tiny-llava" and manifest.facts["demo_models"] is False
    assert (progress.total, progress.units, progress.ended) == (7, 7, True)
    assert verify(run.captions) == []


def test_a_finished_stage_does_nothing(make_run, pictures):
    run = make_run(pictures)
    first = caption(run)
    progress = Counting()

    assert caption(run, progress=progress) == first
    assert progress.total is None


def test_a_stopped_run_goes_on_with_the_same_rows_as_an_unbroken_one(make_run, pictures, small_parts):
    unbroken = make_run(pictures, name="unbroken")
    caption(unbroken)
    run = make_run(pictures, name="stopped")
    with pytest.raises(KeyboardInterrupt):
        caption(run, progress=Counting(stop_after=3))
    assert len(rows(run)) == 4 and not (run.captions / MANIFEST).exists()
    progress = Counting()

    caption(run, progress=progress)

    assert rows(run) == rows(unbroken)
    assert (progress.total, progress.done, progress.units) == (7, 6, 1), (
        "with the third batch, which was described"
    )
    assert read_manifest(run.captions).files == read_manifest(unbroken.captions).files


def test_an_interrupted_run_keeps_its_finished_batches(make_run, pictures):
    unbroken = make_run(pictures, name="unbroken")
    caption(unbroken)
    run = make_run(pictures, name="stopped")
    with pytest.raises(KeyboardInterrupt):
        caption(run, progress=Counting(stop_after=3))

    assert rows(run) == rows(unbroken)[:4]
    caption(run)
    assert rows(run) == rows(unbroken)


def test_one_bad_picture_fails_alone_and_the_counts_add_up(make_run, pictures, tmp_path):
    pictures[1].write_bytes(pictures[1].read_bytes()[:300])
    run = make_run(pictures)
    noise(99).save(pictures[4])
    publish_selection(run, [*pictures, tmp_path / "never.png"])
    progress = Counting()

    manifest = caption(run, progress=progress)

    by_id = {row["id"]: row for row in rows(run)}
    failed = {row["id"]: row["reason"] for row in by_id.values() if row["status"] == "failed"}
    assert failed == {
        picture_id(pictures[1]): "truncated",
        picture_id(pictures[4]): "changed",
        picture_id(tmp_path / "never.png"): "not_fetched",
    }
    assert all(by_id[number]["caption"] is None and by_id[number]["message"] for number in failed)
    assert manifest.counts["selected"] == 8 == manifest.counts["captioned"] + manifest.counts["failed"]
    assert progress.failures == {"truncated": 1, "changed": 1, "not_fetched": 1}
    assert manifest.counts["failed"] == sum(manifest.counts[f"failed_{reason}"] for reason in failed.values())


def test_pictures_of_one_content_are_asked_once_and_all_have_the_caption(make_run, pictures):
    pictures[3].write_bytes(pictures[0].read_bytes())
    run = make_run(pictures[:4], batch_size=8)

    manifest = caption(run)

    by_id = {row["id"]: row for row in rows(run)}
    first, copy = by_id[picture_id(pictures[0])], by_id[picture_id(pictures[3])]
    assert {**first, "id": None} == {**copy, "id": None}
    assert len({row["caption_id"] for row in by_id.values()}) == 3
    assert manifest.counts["captioned"] == len(by_id) == 4


def test_a_grown_selection_keeps_what_is_captioned_and_adds_the_rest(make_run, pictures):
    run = make_run(pictures[:4])
    caption(run)
    before = rows(run)
    more = [*pictures[:6], shutil.copy(pictures[0], pictures[0].with_name("copy.png"))]
    publish_images(run, more)
    publish_selection(run, more)
    progress = Counting()

    manifest = caption(run, progress=progress)

    after = rows(run)
    assert after[:4] == before
    assert {row["id"] for row in after} == {picture_id(file) for file in more}
    assert manifest.counts["captioned"] == 7
    assert progress.units == 2, "the copy of a captioned picture is not asked again"


def test_a_picture_that_left_the_selection_is_not_counted_and_needs_no_new_caption_when_it_returns(
    make_run, pictures
):
    run = make_run(pictures)
    caption(run)
    publish_selection(run, pictures, not_selected=3)
    assert caption(run).counts["selected"] == 4
    publish_selection(run, pictures)
    progress = Counting()

    manifest = caption(run, progress=progress)

    assert manifest.counts["captioned"] == 7 and progress.units == 0


def test_a_picture_with_new_content_gets_a_new_caption_in_place_of_the_old(make_run, pictures):
    run = make_run(pictures)
    caption(run)
    noise(50).save(pictures[2])
    publish_images(run, pictures)

    caption(run)

    found = [row for row in rows(run) if row["id"] == picture_id(pictures[2])]
    captioner = read_manifest(run.captions).facts["captioner"]
    assert [row["caption_id"] for row in found] == [caption_id(sha256_of(pictures[2]), captioner)]
    assert len(rows(run)) == 7


def test_a_part_of_the_selection_is_published_without_saying_that_all_is_done(make_run, pictures):
    run = make_run(pictures)
    wanted = {picture_id(pictures[5]), picture_id(pictures[1])}

    part = caption(run, ids=wanted)

    assert {row["id"] for row in rows(run)} == wanted
    assert (part.counts["captioned"], part.counts["missing"]) == (2, 5)
    assert find_manifest(run.captions) is None

    progress = Counting()
    assert caption(run, limit=4, progress=progress).counts["missing"] == 1
    assert (progress.total, progress.done, progress.units) == (6, 2, 4), (
        "what this call will have done, and no more"
    )
    whole = caption(run, limit=4)

    assert whole == find_manifest(run.captions)
    assert whole.counts["captioned"] == 7 and "missing" not in whole.counts
    assert len(rows(run)) == len({row["id"] for row in rows(run)}) == 7


def test_an_id_that_is_not_selected_is_refused_before_any_work(make_run, pictures):
    run = make_run(pictures, not_selected=1)

    with pytest.raises(DataError, match="not selected"):
        caption(run, ids=[picture_id(pictures[6])])
    assert not run.captions.exists()


def with_settings(run, **changes):
    config = load_config(run.config).caption
    write_config(run.config, Config(caption=dataclasses.replace(config, **changes)))


def test_force_asks_again(make_run, pictures):
    run = make_run(pictures[:3])
    first = caption(run)
    progress = Counting()

    assert caption(run, force=True, progress=progress).digest == first.digest
    assert progress.units == 3


def test_captions_of_another_prompt_take_the_place_of_the_first_which_come_back_when_it_is_asked_again(
    make_run, pictures
):
    run = make_run(pictures[:3])
    first = caption(run)
    before = rows(run)

    with_settings(run, prompt="short")
    second = caption(run)
    assert {row["prompt_id"] for row in rows(run)} == {"short"} and len(rows(run)) == 3
    aside = read_parts(run.other_captions / first.facts["captioner"], CAPTIONS).to_pylist()
    assert aside == before
    assert not {row["caption_id"] for row in aside} & {row["caption_id"] for row in rows(run)}
    assert second.counts["captioned"] == 3 and verify(run.captions) == []

    progress = Counting()
    with_settings(run, prompt="laion-pop")
    third = caption(run, progress=progress)
    assert rows(run) == before and progress.units == 0
    assert third.counts == first.counts
    assert len(read_parts(run.other_captions / second.facts["captioner"], CAPTIONS)) == 3


def test_force_leaves_what_other_captioners_wrote(make_run, pictures):
    run = make_run(pictures[:3])
    first = caption(run)
    with_settings(run, prompt="short")
    caption(run)

    caption(run, force=True)

    assert len(read_parts(run.other_captions / first.facts["captioner"], CAPTIONS)) == 3
    assert len(rows(run)) == 3


def test_a_kill_between_two_moves_loses_and_doubles_nothing(make_run, pictures, small_parts, monkeypatch):
    run = make_run(pictures)
    first = caption(run)
    before = rows(run)
    with_settings(run, prompt="short")
    moved = []

    def killed(path, folder, move=shelves._move):
        if len(moved) == 2:
            raise KeyboardInterrupt
        moved.append(path)
        move(path, folder)

    with monkeypatch.context() as patch:
        patch.setattr(shelves, "_move", killed)
        with pytest.raises(KeyboardInterrupt):
            caption(run)
    assert len(moved) == 2 and find_manifest(run.captions) is None

    caption(run)

    aside = read_parts(run.other_captions / first.facts["captioner"], CAPTIONS).to_pylist()
    assert sorted(row["id"] for row in aside) == sorted(row["id"] for row in before)
    assert sorted(row["id"] for row in rows(run)) == sorted(row["id"] for row in before)


def test_failed_only_asks_again_for_what_failed_and_nothing_else(make_run, pictures):
    good = pictures[1].read_bytes()
    pictures[1].write_bytes(good[:300])
    run = make_run(pictures)
    kept = pictures[4].read_bytes()
    noise(99).save(pictures[4])
    assert caption(run).counts["failed"] == 2
    before = {row["id"]: row for row in rows(run)}
    pictures[4].write_bytes(kept)
    progress = Counting()

    manifest = caption(run, failed_only=True, progress=progress)

    after = {row["id"]: row for row in rows(run)}
    assert (manifest.counts["captioned"], manifest.counts["failed_truncated"], progress.units) == (6, 1, 2)
    assert len(rows(run)) == 7 and after[picture_id(pictures[4])]["status"] == "captioned"
    unchanged = {number for number in before if before[number]["status"] == "captioned"}
    assert len(unchanged) == 5 and all(after[number] == before[number] for number in unchanged)


def test_failed_only_does_nothing_where_nothing_failed(make_run, pictures):
    run = make_run(pictures)
    first = caption(run)
    progress = Counting()

    assert caption(run, failed_only=True, progress=progress) == first
    assert progress.total is None


def test_failed_only_stopped_and_started_again_still_knows_what_failed(make_run, pictures):
    run = make_run(pictures)
    kept = [file.read_bytes() for file in pictures]
    for file in pictures[:6]:
        noise(99).save(file)
    assert caption(run).counts["failed_changed"] == 6
    for file, content in zip(pictures, kept, strict=True):
        file.write_bytes(content)
    with pytest.raises(KeyboardInterrupt):
        caption(run, failed_only=True, progress=Counting(stop_after=2))
    assert find_manifest(run.captions) is None

    assert caption(run, failed_only=True).counts["captioned"] == 7
    assert len(rows(run)) == 7


def test_a_second_try_is_asked_for_what_was_cut_off_and_both_answers_are_kept(make_run, pictures):
    run = make_run(pictures, second_try=True, max_new_tokens=3)

    manifest = caption(run)

    assert manifest.counts["retried"] == manifest.counts["truncated"] == 7
    for row in rows(run):
        assert (row["retried_for"], row["attempts"], row["tokens"]) == ("truncated", 2, 3)
        assert row["other_raw_caption"].startswith(row["raw_caption"])


def test_the_report_is_a_page_that_loads_nothing_and_says_the_counts(make_run, pictures):
    run = make_run(pictures)
    caption(run)
    page = run.captions_report.read_text()
    caption(run, force=True)

    assert run.captions_report.read_text() == page
    assert "<svg" in page and "://" not in page and "<script" not in page
    assert "report.html" in {record.path for record in read_manifest(run.captions).files}


def test_another_batch_size_asks_nothing_again(make_run, pictures):
    run = make_run(pictures)
    caption(run)
    make_run(pictures, batch_size=5)
    progress = Counting()

    manifest = caption(run, progress=progress)

    assert progress.units == 0 and manifest.parameters["batch_size"] == 5


def test_what_stops_a_run_is_said_before_anything_is_touched(make_run, pictures, tmp_path):
    run = make_run(pictures, model=str(tmp_path / "nowhere"))
    with pytest.raises(ModelError, match="no such folder"):
        caption(run)
    unselected = make_run(pictures, name="unselected", not_selected=7)
    with pytest.raises(DataError, match="nothing to caption"):
        caption(unselected)
    unfinished = make_run(pictures, name="unfinished")
    (unfinished.selection / MANIFEST).unlink()
    with pytest.raises(DataError, match="not finished"):
        caption(unfinished)

    assert not any(each.captions.exists() for each in (run, unselected, unfinished))


@pytest.fixture(scope="module")
def setup(tiny_llava):
    return EmbeddedSetup.of(CaptionConfig(model=str(tiny_llava), device="cpu"))


def test_a_row_keeps_the_raw_text_beside_the_trimmed_one(setup):
    row = caption_row(
        "c", Answer(Reply(" ‘This image showcases’: a Red star.", "stop", 9)), LAION, setup, "w"
    )

    assert row["raw_caption"] == " ‘This image showcases’: a Red star."
    assert (row["caption"], row["prefix_found"], row["words"]) == ("a Red star.", True, 3)
    assert (row["status"], row["reason"]) == ("captioned", None)


@pytest.mark.parametrize("text", ["", "  \n", " This image showcases: "])
def test_an_answer_that_says_nothing_is_a_failure_that_keeps_its_text(setup, text):
    row = caption_row("c", Answer(Reply(text, "stop", 1)), LAION, setup, "w")

    assert (row["status"], row["reason"], row["raw_caption"], row["caption"]) == (
        "failed",
        "empty",
        text,
        None,
    )


def test_a_prompt_that_asks_for_no_prefix_has_none_to_miss(setup):
    free = Prompt(prompt_id="free", text="What is it?", prefix="")

    assert caption_row("c", Answer(Reply("a star", "stop", 2)), free, setup, "w")["prefix_found"] is None


def test_a_failure_has_its_reason_and_no_text(setup):
    row = caption_row("c", CaptionFailure("out_of_memory", "too large", attempts=1), LAION, setup, "w")

    assert (row["status"], row["reason"], row["message"], row["attempts"]) == (
        "failed",
        "out_of_memory",
        "too large",
        1,
    )
    assert row["caption"] is None and row["raw_caption"] is None


def test_another_image_mode_is_another_captioner(make_run, tmp_path):
    wide = tmp_path / "wide.png"
    noise(3, 80, 20).save(wide)
    run = make_run([wide])
    first = caption(run)
    with_settings(run, image_mode="pad")

    second = caption(run)

    assert first.facts["captioner"] != second.facts["captioner"]
    assert second.parameters["image_mode"] == "pad"
    [before] = read_parts(run.other_captions / first.facts["captioner"], CAPTIONS).to_pylist()
    assert before["raw_caption"] != rows(run)[0]["raw_caption"]


def test_a_prompt_of_the_runs_own_is_asked_and_its_words_stand_in_the_manifest(make_run, pictures):
    run = make_run(pictures[:2])
    run.prompts.write_text('[what-1]\ntext = "What is it?"\n')
    with_settings(run, prompt="what-1")
    first = caption(run)
    run.prompts.write_text('[what-1]\ntext = "What is this?"\n')

    second = caption(run)

    assert (first.facts["prompt_text"], second.facts["prompt_text"]) == ("What is it?", "What is this?")
    assert first.facts["captioner"] != second.facts["captioner"]
    assert {row["prompt_id"] for row in rows(run)} == {"what-1"}
    assert len(read_parts(run.other_captions / first.facts["captioner"], CAPTIONS)) == 2
