import dataclasses

import pytest
from PIL import Image

from captioner.captions import caption
from captioner.comparison import blank_captions, like_blank, words_in_common
from captioner.embedded import EmbeddedEngine
from captioner.figures import Yardsticks
from captioner.pictures import MEAN_COLOUR
from spine.config import load_config, write_config
from spine.manifest import read_manifest
from spine.settings import Config
from spine.table_files import read_parts
from spine.tables import CAPTIONS
from tests.unit.captioner.runs import picture_id


@pytest.mark.parametrize(
    ("one", "other", "share"),
    [
        ("a red star", "A red star!", 1.0),
        ("a red star", "a blue star", 2 / 3),
        ("a red star", "", 0.0),
        ("", "", 0.0),
        ("star star star", "star", 1.0),
        ("it's here", "it’s here", 1 / 2),
    ],
)
def test_words_in_common_are_counted_once_each(one, other, share):
    assert words_in_common(one, other) == pytest.approx(share)


def test_captions_like_the_blank_ones_are_counted():
    said = ["a grey wall in the fog", "A grey wall in the fog.", "two dogs on a beach"]

    assert like_blank(said, "a grey wall in the fog") == 2


def test_each_captioner_is_asked_of_a_blank_picture_once(make_run, pictures, monkeypatch):
    seen = []
    describe = EmbeddedEngine.describe

    def watched(self, images, *rest, **named):
        seen.extend(image.getcolors(1) for image in images if isinstance(image, Image.Image))
        return describe(self, images, *rest, **named)

    monkeypatch.setattr(EmbeddedEngine, "describe", watched)
    run = make_run(pictures)
    first = caption(run)
    caption(run, force=True)
    write_config(
        run.config, Config(caption=dataclasses.replace(load_config(run.config).caption, prompt="short"))
    )
    second = caption(run)

    blank = [colours for colours in seen if colours == [(336 * 336, MEAN_COLOUR)]]
    assert len(blank) == 2
    said = blank_captions(run)
    assert set(said) == {first.facts["captioner"], second.facts["captioner"]}
    assert second.facts["figures"]["blank"]["caption"] == said[second.facts["captioner"]]


def test_captioners_side_by_side_are_compared_beside_a_shuffled_control(make_run, pictures):
    run = make_run(pictures)
    first = caption(run)
    said = {row["id"]: row["caption"] for row in read_parts(run.captions, CAPTIONS).to_pylist()}
    write_config(
        run.config, Config(caption=dataclasses.replace(load_config(run.config).caption, prompt="short"))
    )

    [found] = caption(run).facts["figures"]["captioners"]

    now = {row["id"]: row["caption"] for row in read_parts(run.captions, CAPTIONS).to_pylist()}
    wanted = [words_in_common(now[number], said[number]) for number in said]
    assert (found["captioner"], found["model"], found["prompt_id"]) == (
        first.facts["captioner"],
        "tiny-llava",
        "laion-pop",
    )
    assert found["pictures"] == 7
    assert found["words_in_common"] == pytest.approx(sum(wanted) / 7, abs=1e-4)
    assert "Agreement with other captioners" in run.captions_report.read_text()


def test_what_is_known_of_the_pictures_stands_in_manifest_and_report(make_run, pictures):
    run = make_run(pictures)
    judged = {}

    def truth(captions):
        judged.update(captions)
        return {"colour <right>": 0.25}

    manifest = caption(run, yardsticks=Yardsticks(None, truth))

    raw = {row["id"]: row["raw_caption"] for row in read_parts(run.captions, CAPTIONS).to_pylist()}
    assert judged == raw and set(judged) == {picture_id(file) for file in pictures}
    assert manifest.facts["figures"]["truth"] == {"colour <right>": 0.25}
    page = run.captions_report.read_text()
    assert "colour &lt;right&gt;<td class='n'>25.0 %" in page and "Not measured" in page
    assert (
        read_manifest(run.captions).parameters["agreement_sample"]
        == load_config(run.config).caption.agreement_sample
    )
