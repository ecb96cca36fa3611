"""PDQ against hashes from its reference (pdqhash 0.2.8), and against what happens to pictures on the web."""

import io
from pathlib import Path

import numpy as np
import pytest
import skimage
from PIL import Image, ImageEnhance

from curation.pdq import LARGEST_PX, pdq
from spine.images import open_picture

PHOTOGRAPHS = Path(skimage.__file__).parent / "data"
REFERENCE = {
    "astronaut.png": "2d6b1af3a956c529e79ca3d2526fa834d4196c81cedd04de0a26b855fc99b724",
    "camera.png": "dc9c9d3b746978f888f40ce6e5c3f70f7266623e8d989cb99f21f2010841e1c7",
    "chelsea.png": "5feb5321f01da156898e2bf629a5d3438412cdbd23f48942464526315db33ffd",
    "coffee.png": "8c629e779a663698b9a33866c026726c21a679f61eb6e1f8c79ba7e23c8299e0",
    "coins.png": "8ee552196df86aa552b514e6e505e0319aeb1aaea4a5d935dd4a675a1a56a555",
    "page.png": "965b26d62ed3636b192ccdddcc91d88c3925812979849815e37b1cce4732a6fb",
}


def differing(one: str, other: str) -> int:
    return (int(one, 16) ^ int(other, 16)).bit_count()


def photograph(name: str) -> Image.Image:
    return Image.open(PHOTOGRAPHS / name).convert("RGB")


@pytest.mark.parametrize("name", sorted(REFERENCE))
def test_the_hash_is_that_of_the_reference_within_rounding(name):
    at_most = 2 if max(photograph(name).size) <= 512 else 18  # larger ones are brought down first
    assert differing(pdq(photograph(name))[0], REFERENCE[name]) <= at_most


@pytest.mark.parametrize("turn", list(Image.Transpose))
def test_a_turned_or_mirrored_copy_is_found_by_one_of_its_eight_hashes(turn):
    original = photograph("astronaut.png")
    assert min(differing(pdq(original)[0], each) for each in pdq(original.transpose(turn))) == 0


def test_what_happens_to_pictures_on_the_web_stays_within_31_bits_and_another_picture_does_not():
    original = photograph("astronaut.png")
    small = io.BytesIO()
    original.resize((200, 200)).save(small, "JPEG", quality=40)
    for copy in (Image.open(small), ImageEnhance.Brightness(original).enhance(0.8), original.convert("L")):
        assert differing(pdq(original)[0], pdq(copy)[0]) <= 31
    for other in sorted(REFERENCE):
        if other != "astronaut.png":
            assert min(differing(pdq(original)[0], each) for each in pdq(photograph(other))) > 60


@pytest.mark.parametrize("name", sorted(REFERENCE))
def test_a_jpeg_opened_at_a_part_of_its_size_has_nearly_the_hash_of_the_whole(name):
    kept = io.BytesIO()
    photograph(name).resize((2000, 1500)).save(kept, "JPEG", quality=90)
    whole, part = (open_picture(kept.getvalue(), least_px=least) for least in (0, LARGEST_PX))

    assert part.image.size == (1000, 750)
    assert differing(pdq(part.image)[0], pdq(whole.image)[0]) <= 8  # of 31 that a list allows


def test_a_flat_picture_has_no_hash():
    assert pdq(Image.new("RGB", (300, 200), "teal")) == ()
    gradient = np.tile(np.arange(256, dtype=np.uint8), (256, 1))
    assert pdq(Image.fromarray(gradient)) == ()
    assert pdq(Image.new("RGB", (1, 1))) == ()
