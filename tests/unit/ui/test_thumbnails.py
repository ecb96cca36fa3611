import io
from pathlib import Path

import pytest
from PIL import Image

from spine.errors import DataError
from tests.unit.ui.planted import picture_bytes
from ui.thumbnails import Thumbnails


@pytest.fixture
def place(tmp_path) -> str:
    path = tmp_path / "one.png"
    path.write_bytes(picture_bytes(3))
    return str(path)


@pytest.fixture
def thumbnails(tmp_path):
    made = Thumbnails(tmp_path / "cache", decoders=1)
    yield made
    made.close()


def test_a_thumbnail_shows_its_picture_and_a_blurred_one_does_not(thumbnails, place):
    clear = _pixels(thumbnails.get("a" * 64, place, blurred=False))
    blurred = _pixels(thumbnails.get("a" * 64, place, blurred=True))

    assert _distance(clear.getpixel((14, 14)), (255, 255, 255)) < 30  # the planted white square
    assert _distance(blurred.getpixel((14, 14)), (255, 255, 255)) > 60
    assert clear.size == blurred.size == (96, 80)


def test_a_thumbnail_is_made_once_and_then_comes_from_the_cache(thumbnails, place, tmp_path):
    first = thumbnails.get("a" * 64, place, blurred=False)
    Path(place).unlink()

    assert thumbnails.get("a" * 64, place, blurred=False) == first
    again = Thumbnails(tmp_path / "cache", decoders=1)
    assert again.get("a" * 64, place, blurred=False) == first
    again.close()


@pytest.mark.parametrize(
    "damage",
    [
        lambda held: b"",
        lambda held: held[:3],
        lambda held: held[: len(held) // 2],
        lambda held: bytes(len(held)),
        lambda held: held[:-4],  # as it was kept before there was a checksum
        lambda held: held[:40] + bytes([held[40] ^ 1]) + held[41:],
    ],
)
def test_a_kept_thumbnail_that_a_crash_left_damaged_is_made_again(place, tmp_path, damage):
    cache = tmp_path / "cache"
    first = Thumbnails(cache, decoders=1)
    wanted = first.get("a" * 64, place, blurred=False)
    first.close()
    (kept,) = cache.rglob("*.webp")
    whole = kept.read_bytes()
    kept.write_bytes(damage(whole))

    again = Thumbnails(cache, decoders=1)

    assert again.get("a" * 64, place, blurred=False) == wanted
    assert kept.read_bytes() == whole and [*cache.rglob("*")] == [kept.parent, kept]
    again.close()


def test_what_is_no_picture_is_refused_and_the_next_one_is_made(thumbnails, place, tmp_path):
    (tmp_path / "text.png").write_bytes(b"no picture at all")

    with pytest.raises(DataError):
        thumbnails.get("b" * 64, str(tmp_path / "text.png"), blurred=False)
    with pytest.raises(DataError):
        thumbnails.get("c" * 64, str(tmp_path / "missing.png"), blurred=False)

    assert thumbnails.get("a" * 64, place, blurred=False)


def test_a_picture_that_takes_too_long_is_given_up(tmp_path):
    big = tmp_path / "big.png"
    Image.new("RGB", (4000, 4000), (1, 2, 3)).save(big)
    thumbnails = Thumbnails(tmp_path / "cache", decoders=1, time_limit_s=0.001)

    with pytest.raises(DataError, match=r"big\.png: took longer than 0\.001 s to open"):
        thumbnails.get("d" * 64, str(big), blurred=False)

    thumbnails.close()


def _pixels(content: bytes) -> Image.Image:
    image = Image.open(io.BytesIO(content), formats=["WEBP"])
    return image.convert("RGB")


def _distance(first: tuple[int, ...], second: tuple[int, ...]) -> int:
    return max(abs(one - other) for one, other in zip(first, second, strict=True))
