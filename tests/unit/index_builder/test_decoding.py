"""Real processes that decode, crash, hang and are killed."""

import hashlib
import io
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, replace

import numpy as np
import pytest
from PIL import Image

from index_builder.encoding.decoding import Decoded, Refusal, decode
from index_builder.encoding.preprocessing import Preprocessing
from spine.errors import ConfigError

PLAIN = Preprocessing(8, 8, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5), "bicubic", "shortest", 0)


@dataclass(frozen=True, slots=True)
class Hostile(Preprocessing):
    """Does, for pictures of some widths, what a decoder with a hole might."""

    def crop(self, image):
        if image.width == 13:
            os.kill(os.getpid(), signal.SIGSEGV)
        if image.width == 17:
            time.sleep(600)
        if image.width == 19:
            np.zeros(50_000_000_000, dtype=np.uint8)
        return Preprocessing.crop(self, image)


HOSTILE = Hostile(8, 8, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5), "bicubic", "shortest", 0)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Pictures 0.png to 59.png, of the grey of their number."""
    folder = tmp_path_factory.mktemp("pictures")
    for number in range(60):
        Image.new("RGB", (20, 20), (number,) * 3).save(folder / f"{number}.png")
    for width in (13, 17, 19):
        Image.new("RGB", (width, 20)).save(folder / f"wide{width}.png")
    return folder


def test_pictures_come_in_order_with_their_own_pixels_and_hash(folder):
    places = [str(folder / f"{number}.png") for number in range(60)]
    items = [(number, None if number % 7 == 0 else place) for number, place in enumerate(places)]

    found = list(decode(items, PLAIN, workers=3))

    assert [number for number, _ in found] == list(range(60))
    for number, picture in found:
        if number % 7 == 0:
            assert picture is None
        else:
            assert (picture.crop == number).all()
            assert (picture.width, picture.height, picture.format) == (20, 20, "PNG")
            assert picture.sha256 == hashlib.sha256((folder / f"{number}.png").read_bytes()).hexdigest()


def test_what_is_listed_is_not_opened_from_the_moment_on(folder):
    places = [str(folder / f"{number}.png") for number in range(40)]
    contents = [(folder / f"{number}.png").read_bytes() for number in range(40)]
    large = [f"{number:064x}" for number in range(20_000)]  # more than a pipe holds
    lists = [frozenset({hashlib.md5(contents[1]).hexdigest()})]
    lists.append(frozenset([hashlib.sha256(contents[30]).hexdigest(), *large]))
    found = {}

    def items():
        for number, place in enumerate(places):
            if number == 20:
                del lists[0]
            yield number, contents[number] if number % 3 == 2 else place

    for number, picture in decode(items(), PLAIN, workers=2, listed=lambda: lists[0]):
        found[number] = picture

    refused = [number for number, picture in found.items() if isinstance(picture, Refusal)]
    assert refused == [1, 30] and {found[number].reason for number in refused} == {"hash_block"}


def test_lists_that_cannot_be_read_end_the_decoding(folder):
    def listed():
        if taken:
            raise ConfigError("a list can't be read")
        return frozenset()

    taken = []
    with pytest.raises(ConfigError, match="can't be read"):
        for number, _ in decode(((n, str(folder / "5.png")) for n in range(5000)), PLAIN, listed=listed):
            taken.append(number)
    assert len(taken) < 5000


def test_bytes_are_decoded_as_files_are_however_many_a_pipe_holds(folder):
    noise = np.random.default_rng(0).integers(0, 256, (600, 700, 3), dtype=np.uint8)
    kept = io.BytesIO()
    Image.fromarray(noise).save(kept, "PNG")
    large = kept.getvalue()
    wide = replace(PLAIN, height=300, width=300)  # results that a pipe doesn't hold either
    place = str(folder / "5.png")
    items = [(number, large if number % 3 else place) for number in range(24)]

    found = list(decode(items, wide, workers=3))

    assert [number for number, _ in found] == list(range(24))
    assert {found[number][1].sha256 for number in (1, 2, 23)} == {hashlib.sha256(large).hexdigest()}
    assert found[0][1].sha256 == hashlib.sha256((folder / "5.png").read_bytes()).hexdigest()
    assert np.array_equal(found[1][1].crop, wide.crop(Image.fromarray(noise)))


def test_bytes_that_are_no_picture_crash_or_hang_cost_only_themselves(folder):
    hostile = [(folder / f"wide{width}.png").read_bytes() for width in (13, 17, 19)]
    good = (folder / "7.png").read_bytes()
    items = list(enumerate([good, *hostile, b"", b"no picture", good]))

    found = [picture for _, picture in decode(items, HOSTILE, workers=2, timeout_s=1.0)]

    assert [getattr(picture, "reason", "good") for picture in found] == [
        "good",
        "decode_crashed",
        "decode_timeout",
        "out_of_memory",
        "empty_file",
        "not_an_image",
        "good",
    ]


def test_no_pictures_start_no_process():
    assert list(decode([], PLAIN)) == []
    assert list(decode([("a", None)], PLAIN)) == [("a", None)]


def test_a_refusal_names_its_reason(folder):
    (folder / "text.jpg").write_text("no picture")

    found = dict(
        decode([("text", str(folder / "text.jpg")), ("none", str(folder / "none.png"))], PLAIN, workers=1)
    )

    assert found["text"].reason == "not_an_image"
    assert found["none"].reason == "missing"


def test_a_picture_that_crashes_hangs_or_fills_its_decoder_costs_only_itself(folder):
    names = [*range(10), "wide13", *range(10, 20), "wide17", *range(20, 30), "wide19", *range(30, 40)]

    found = dict(
        decode([(name, str(folder / f"{name}.png")) for name in names], HOSTILE, workers=2, timeout_s=2)
    )

    assert list(found) == names
    assert found["wide13"].reason == "decode_crashed"
    assert found["wide17"].reason == "decode_timeout"
    assert found["wide19"].reason == "out_of_memory"
    assert all((found[number].crop == number).all() for number in range(40))


def test_a_decoder_that_is_killed_from_outside_costs_nothing(folder):
    items = [(number, str(folder / f"{number % 60}.png")) for number in range(900)]
    found, killed = [], 0
    for number, picture in decode(items, PLAIN, workers=2):
        found.append((number, picture))
        if number in (100, 400):
            # One at a time: the next may hold the first one's picture already, and two deaths are held against it.
            process = next(each for each in multiprocessing.active_children() if each.name == "decoder")
            os.kill(process.pid, signal.SIGKILL)
            killed += 1

    assert killed == 2
    assert [number for number, _ in found] == list(range(900))
    assert all((picture.crop == number % 60).all() for number, picture in found)


def test_stopping_early_leaves_no_process(folder):
    items = ((number, str(folder / f"{number % 60}.png")) for number in range(1_000_000))

    for number, _ in decode(items, PLAIN, workers=2):
        if number == 5:
            break

    assert not [process for process in multiprocessing.active_children() if process.name == "decoder"]


def test_an_error_of_the_source_reaches_whoever_takes_the_pictures(folder):
    def items():
        yield 0, str(folder / "0.png")
        raise OSError("the disk is gone")

    with pytest.raises(OSError, match="the disk is gone"):
        list(decode(items(), PLAIN, workers=1))


def test_a_decoding_process_loads_no_engine(tmp_path):
    code = (
        "import sys, index_builder.encoding.decoding\n"
        "print(sorted({'torch', 'open_clip', 'faiss', 'pyarrow', 'transformers'} & set(sys.modules)))"
    )

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout.strip() == "[]"


def test_results_are_plain_values(folder):
    first = next(picture for _, picture in decode([(0, str(folder / "1.png"))], PLAIN, workers=1))

    assert isinstance(first, Decoded)
    assert replace(first, width=3).width == 3
    assert Refusal("missing", "x").reason == "missing"
