"""Odd pictures through the whole stage, over both engines: only the one concerned fails, with its reason."""

import io
import json
import threading
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from captioner.captions import caption
from spine.config import load_config, write_config
from spine.errors import ServiceError
from spine.table_files import read_parts
from spine.tables import CAPTIONS
from tests.unit.captioner.runs import noise, picture_id
from tests.unit.captioner.test_captions import Counting
from tests.unit.captioner.test_http import completion, good, misbehaving  # noqa: F401
from tests.unit.spine.test_images import png_header

EXPECTED = {
    "plain.png": None,
    "cut_off.jpg": "truncated",
    "page.jpg": "not_an_image",
    "empty.png": "empty_file",
    "one_pixel.png": None,
    "long.png": None,
    "bomb.png": "too_many_pixels",
    "cmyk.jpg": None,
    "moving.gif": None,
    "sixteen_bits.png": None,
    "clear.png": None,
}


def encoded(image, kind, **options):
    kept = io.BytesIO()
    image.save(kept, kind, **options)
    return kept.getvalue()


@pytest.fixture
def dirty(tmp_path):
    contents = {
        "plain.png": encoded(noise(1), "PNG"),
        "cut_off.jpg": encoded(noise(2, 200, 200), "JPEG")[:900],
        "page.jpg": b"<html>404 Not Found</html>",
        "empty.png": b"",
        "one_pixel.png": encoded(noise(3, 1, 1), "PNG"),
        "long.png": encoded(noise(4, 20_000, 1), "PNG"),
        "bomb.png": png_header(20_000, 20_000),
        "cmyk.jpg": encoded(noise(5).convert("CMYK"), "JPEG"),
        "moving.gif": encoded(noise(6), "GIF", save_all=True, append_images=[noise(7)]),
        "sixteen_bits.png": encoded(Image.fromarray(np.full((9, 9), 40_000, np.uint16)), "PNG"),
        "clear.png": encoded(noise(8).convert("RGBA"), "PNG"),
    }
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
    return [tmp_path / name for name in contents]


@pytest.mark.parametrize("engine", ["embedded", "http"])
def test_odd_pictures_are_captioned_or_fail_alone_with_their_reason(make_run, dirty, misbehaving, engine):  # noqa: F811
    address, state = misbehaving(good)
    settings = {"engine": "http", "endpoints": (address,), "model": "tiny-llava", "in_flight": 2}
    run = make_run(dirty, **(settings if engine == "http" else {}))

    manifest = caption(run)

    rows = {row["id"]: row for row in read_parts(run.captions, CAPTIONS).to_pylist()}
    found = {file.name: rows[picture_id(file)]["reason"] for file in dirty}
    assert found == EXPECTED
    assert manifest.counts["captioned"] == 7 and manifest.counts["failed"] == 4
    assert state["n"] == (8 if engine == "http" else 0), "one of each, and of a blank picture"


def test_over_http_a_stopped_run_keeps_whole_batches_and_goes_on(make_run, tmp_path, misbehaving):  # noqa: F811
    files = [tmp_path / f"{number}.png" for number in range(12)]
    for number, file in enumerate(files):
        noise(number).save(file)
    address, state = misbehaving(good)
    run = make_run(files, engine="http", endpoints=(address,), model="tiny-llava", in_flight=2)
    with pytest.raises(KeyboardInterrupt):
        caption(run, progress=Counting(stop_after=2))
    there = read_parts(run.captions, CAPTIONS).num_rows
    asked = state["n"]

    manifest = caption(run)

    rows = read_parts(run.captions, CAPTIONS).to_pylist()
    assert there in (4, 8), "batches of twice what may be in flight"
    assert manifest.counts["captioned"] == len(rows) == len({row["id"] for row in rows}) == 12
    assert state["n"] - asked <= 12 - there


def test_a_server_that_dies_leaves_what_it_has_answered_and_another_one_does_the_rest(
    make_run,
    tmp_path,
    misbehaving,  # noqa: F811
):
    files = [tmp_path / f"{number}.png" for number in range(16)]
    for number, file in enumerate(files):
        noise(number).save(file)
    ended, answered = threading.Event(), []

    def until_it_dies(body, number):
        if number >= 12:  # two batches of four and a part of the third, after the blank picture
            ended.set()
        if ended.is_set():
            return None
        answered.append(sent(body))
        return 200, {}, json.dumps(completion(f"a star, by number {number}")).encode()

    first, state = misbehaving(until_it_dies)

    def end():
        ended.wait(30)
        state["server"].shutdown()
        state["server"].server_close()

    threading.Thread(target=end, daemon=True).start()
    settings = {"engine": "http", "model": "tiny-llava", "in_flight": 2}
    run = make_run(files, endpoints=(first,), **settings)
    with pytest.raises(ServiceError, match="can't be reached"):
        caption(run)
    there = read_parts(run.captions, CAPTIONS).num_rows
    kept = (run.captions / ".replies.jsonl").read_text().splitlines()
    (run.captions / ".replies.jsonl").write_text("\n".join([*kept, kept[0][:40]]))  # as a kill may leave it
    second, other = misbehaving(good)
    write_config(run.config, replace(load_config(run.config), caption=_at(run, second)))

    manifest = caption(run)

    rows = read_parts(run.captions, CAPTIONS).to_pylist()
    assert there in (4, 8) and len(answered) in (11, 12)
    asked = {sent(body) for body in other["bodies"]}
    assert len(asked) == other["n"] == 16 - there - len(kept) and len(kept) >= len(answered) - 2 - there
    assert sum(row["raw_caption"] != "a star" for row in rows) == there + len(kept)
    assert manifest.counts["captioned"] == len(rows) == len({row["id"] for row in rows}) == 16
    assert not (run.captions / ".replies.jsonl").exists()


def sent(body):
    """The picture's data URL of a request."""
    return body["messages"][0]["content"][0]["image_url"]["url"]


def _at(run, address):
    return replace(load_config(run.config).caption, endpoints=(address,))
