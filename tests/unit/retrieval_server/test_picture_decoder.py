import io
import multiprocessing
import os
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image

from index_builder.encoding.preprocessing import Preprocessing
from retrieval_server.picture_decoder import PictureDecoder
from retrieval_server.refusals import Refusal

CLIP = Preprocessing(
    height=32,
    width=32,
    mean=(0, 0, 0),
    std=(1, 1, 1),
    interpolation="bicubic",
    resize_mode="shortest",
    fill_color=0,
)


@pytest.fixture(scope="module")
def decoder() -> Iterator[PictureDecoder]:
    decoder = PictureDecoder()
    yield decoder
    decoder.close()
    assert not [child for child in multiprocessing.active_children() if child.name == "pictures"]


def picture(seed: int, form: str = "PNG") -> tuple[bytes, Image.Image]:
    pixels = np.random.default_rng(seed).integers(0, 256, (40 + seed, 70, 3), dtype=np.uint8)
    image, file = Image.fromarray(pixels), io.BytesIO()
    image.save(file, form)
    return file.getvalue(), image


def test_many_at_once_each_get_their_own_crop(decoder):
    pictures = [picture(seed) for seed in range(12)]
    with ThreadPoolExecutor(6) as threads:
        crops = list(threads.map(lambda each: decoder.crop(each[0], CLIP), pictures))
    for crop, (_, image) in zip(crops, pictures, strict=True):
        assert (crop == CLIP.crop(image)).all()


def test_a_picture_comes_as_jpeg(decoder):
    opened = Image.open(io.BytesIO(decoder.jpeg(picture(1)[0])))
    assert (opened.format, opened.mode, opened.size) == ("JPEG", "RGB", (70, 41))


@pytest.mark.parametrize(
    ("content", "reason"),
    [(b"", "empty_file"), (b"a text", "not_an_image"), (picture(2)[0][:200], "truncated")],
)
def test_what_is_no_picture_is_refused_with_its_reason(decoder, content, reason):
    with pytest.raises(Refusal, match=reason) as refused:
        decoder.crop(content, CLIP)
    assert (refused.value.status, refused.value.code) == (400, "bad_image")


def test_a_process_that_dies_costs_no_other_picture(decoder):
    content, image = picture(3)
    decoder.crop(content, CLIP)
    for child in multiprocessing.active_children():
        if child.name == "pictures":
            os.kill(child.pid, signal.SIGSEGV)
            child.join(10)
    assert (decoder.crop(content, CLIP) == CLIP.crop(image)).all()


def test_a_picture_that_takes_too_long_is_refused():
    large = io.BytesIO()
    Image.new("RGB", (6000, 6000)).save(large, "PNG", compress_level=1)
    decoder = PictureDecoder(time_limit_s=0.001)
    with pytest.raises(Refusal, match="decode_timeout"):
        decoder.crop(large.getvalue(), CLIP)
    decoder.close()
