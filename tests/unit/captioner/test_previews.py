import base64
import re

import pytest
from PIL import Image

from captioner import previews as module
from captioner.captions import caption
from captioner.embedded import EmbeddedEngine
from captioner.previews import preview
from spine.config import load_config
from spine.errors import ConfigError, DataError
from spine.manifest import find_manifest, verify
from spine.prompts import PROMPTS
from spine.table_files import read_table
from spine.tables import CAPTIONS
from tests.unit.captioner.runs import picture_id


def parts(run, manifest):
    folder = run.folder / manifest.facts["folder"]
    return [read_table(folder / each["part"], CAPTIONS).to_pylist() for each in manifest.facts["captioners"]]


def test_each_prompt_describes_the_same_few_pictures_as_the_engine_does(make_run, pictures):
    run = make_run(pictures)

    manifest = preview(run, 3, prompts=["laion-pop", "short"])

    laion, short = parts(run, manifest)
    ids = manifest.facts["ids"]
    assert len(ids) == 3 and [row["id"] for row in laion] == [row["id"] for row in short] == ids
    engine = EmbeddedEngine.load(load_config(run.config).caption)
    files = {picture_id(file): file for file in pictures}
    for rows, prompt in ((laion, "laion-pop"), (short, "short")):
        for row in rows:
            [reply] = engine.describe([Image.open(files[row["id"]])], PROMPTS[prompt], 8)
            assert (row["raw_caption"], row["prompt_id"]) == (reply.text, prompt)
    assert manifest.counts == {"pictures": 3, "captioned": 6, "failed": 0}
    assert verify(run.folder / manifest.facts["folder"]) == []


def test_a_preview_has_the_ids_that_a_run_would_give_and_leaves_captions_alone(make_run, pictures):
    run = make_run(pictures)
    previewed = {row["id"]: row["caption_id"] for rows in parts(run, preview(run, 4)) for row in rows}
    assert not run.captions.exists()

    manifest = caption(run)
    after = preview(run, 2, prompts=["short"])

    from_run = {
        row["id"]: row["caption_id"]
        for row in read_table(run.captions / "part-00000.parquet", CAPTIONS).to_pylist()
    }
    assert all(from_run[number] == name for number, name in previewed.items())
    assert find_manifest(run.captions) == manifest == caption(run)
    assert after.facts["folder"].startswith("previews/")


def test_a_larger_preview_has_the_pictures_of_a_smaller_one(make_run, pictures):
    run = make_run(pictures)

    small, large = preview(run, 2).facts["ids"], preview(run, 5).facts["ids"]

    assert large[:2] == small and len(set(large)) == 5
    assert preview(run, 50, ids=[picture_id(pictures[6])]).facts["ids"] == [picture_id(pictures[6])]


def test_a_stopped_preview_goes_on_and_a_finished_one_asks_nothing(make_run, pictures, monkeypatch):
    run = make_run(pictures)
    whole = preview(run, 3, prompts=["laion-pop", "short"])
    expected = parts(run, whole)
    other = make_run(pictures, name="stopped")
    published = []

    def stopping(path, table, publish=module.publish_table):
        if published:
            raise KeyboardInterrupt
        published.append(path)
        publish(path, table)

    with monkeypatch.context() as patch:
        patch.setattr(module, "publish_table", stopping)
        with pytest.raises(KeyboardInterrupt):
            preview(other, 3, prompts=["laion-pop", "short"])
    asked = []
    monkeypatch.setattr(EmbeddedEngine, "describe", counting(asked))

    again = preview(other, 3, prompts=["laion-pop", "short"])

    assert set(asked) == {"short"} and parts(other, again) == expected
    asked.clear()
    assert preview(other, 3, prompts=["laion-pop", "short"]) == again and asked == []


def counting(asked):
    describe = EmbeddedEngine.describe

    def counted(self, images, prompt, *rest, **named):
        asked.append(prompt.prompt_id)
        return describe(self, images, prompt, *rest, **named)

    return counted


def test_two_models_stand_side_by_side(make_run, pictures, tiny_llava, tmp_path):
    other = tmp_path / "other-llava"
    other.mkdir()
    for file in tiny_llava.iterdir():
        (other / file.name).write_bytes(file.read_bytes())
    run = make_run(pictures)

    manifest = preview(run, 2, models=[str(tiny_llava), str(other)])

    assert [each["model"] for each in manifest.facts["captioners"]] == ["tiny-llava", "other-llava"]
    assert [len(rows) for rows in parts(run, manifest)] == [2, 2]


def test_the_page_loads_nothing_escapes_texts_and_says_why_a_picture_has_none(
    make_run, pictures, monkeypatch
):
    pictures[1].write_bytes(pictures[1].read_bytes()[:300])
    run = make_run(pictures)
    decode = EmbeddedEngine._reply

    def hostile(self, *tokens):
        reply = decode(self, *tokens)
        return type(reply)("<script>alert(1)</script> & " + reply.text, reply.finish_reason, reply.tokens)

    monkeypatch.setattr(EmbeddedEngine, "_reply", hostile)
    manifest = preview(run, 7, prompts=["laion-pop", "short"])

    page = (run.folder / manifest.facts["page"]).read_text()
    assert "<script" not in page and "&lt;" in page and "http:" not in page and "https:" not in page
    assert "default-src 'none'" in page and "truncated: " in page
    assert manifest.counts == {"pictures": 7, "captioned": 12, "failed": 2}
    images = re.findall(r"src='data:image/webp;base64,([^']+)'", page)
    assert len(images) == 6 and all(base64.b64decode(each)[8:12] == b"WEBP" for each in images)


def test_what_stops_a_preview_is_said_before_any_work(make_run, pictures):
    run = make_run(pictures)

    with pytest.raises(ConfigError, match="prompt 'nonsense' is unknown"):
        preview(run, 2, prompts=["nonsense"])
    with pytest.raises(DataError, match="not selected"):
        preview(run, 2, ids=[1])
    assert not run.caption_previews.exists()
