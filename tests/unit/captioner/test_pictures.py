import hashlib

import numpy as np
import pytest
from PIL import Image

from captioner.engine import CaptionFailure
from captioner.pictures import (
    LONGEST_RATIO,
    MEAN_COLOUR,
    SHORT_SIDE_PX,
    Wanted,
    bounded,
    load_picture,
    read_ahead,
    shaped,
)


def saved(path, image):
    image.save(path)
    return Wanted(str(path), hashlib.sha256(path.read_bytes()).hexdigest())


def numbered(number):
    """A picture whose pixels say its number."""
    return Image.new("RGB", (8, 8), (number, 255 - number, 7))


def test_batches_come_in_order_with_every_picture_in_its_place(tmp_path):
    wanted = [saved(tmp_path / f"{n}.png", numbered(n)) for n in range(30)]

    batches = list(read_ahead((wanted[start : start + 4] for start in range(0, 30, 4)), load_picture))

    assert [len(batch) for batch in batches] == [4] * 7 + [2]
    assert [picture.getpixel((0, 0))[0] for batch in batches for picture in batch] == list(range(30))


def test_threads_end_when_the_rest_is_not_taken(tmp_path):
    wanted = [saved(tmp_path / f"{n}.png", numbered(n)) for n in range(12)]
    batches = read_ahead([[one] for one in wanted], load_picture)

    next(batches)
    batches.close()

    with pytest.raises(StopIteration):
        next(batches)


def test_a_bad_picture_is_a_failure_with_its_reason_and_no_other_is_touched(tmp_path):
    good = saved(tmp_path / "good.png", numbered(1))
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(b"\xff\xd8\xff\xe0 and no more")
    empty = tmp_path / "empty.png"
    empty.write_bytes(b"")
    swapped = saved(tmp_path / "swapped.png", numbered(2))
    numbered(3).save(tmp_path / "swapped.png")
    gone = Wanted(str(tmp_path / "gone.png"), "0" * 64)
    damaged = Wanted(str(broken), hashlib.sha256(broken.read_bytes()).hexdigest())

    batch = [good, damaged, Wanted(str(empty), "0" * 64), swapped, gone, None, good]
    [loaded] = read_ahead([batch], load_picture)

    reasons = [one.reason if isinstance(one, CaptionFailure) else "good" for one in loaded]
    assert reasons[0] == reasons[-1] == "good"
    assert reasons[1] in ("truncated", "not_an_image")
    assert reasons[2:-1] == ["empty_file", "changed", "missing", "not_fetched"]


def test_a_usual_picture_is_not_touched():
    image = numbered(1).resize((SHORT_SIDE_PX * LONGEST_RATIO, SHORT_SIDE_PX))

    assert bounded(image) is image


def test_of_a_very_long_picture_the_middle_is_kept():
    row = np.zeros((2, 1001, 3), dtype=np.uint8)
    row[:, 500] = 255

    middle = np.asarray(bounded(Image.fromarray(row)))

    assert middle.shape == (2, 8, 3)
    assert middle.max() == 255


def test_a_large_picture_keeps_its_shape_and_colours_when_scaled_down():
    image = Image.new("RGB", (3000, 2000), (10, 200, 90))

    small = bounded(image)

    assert small.size == (2016, SHORT_SIDE_PX)
    assert small.getpixel((1000, 700)) == (10, 200, 90)


def test_an_upright_picture_comes_out_as_it_was_saved(tmp_path):
    wanted = saved(tmp_path / "a.png", numbered(9))

    assert np.array_equal(np.asarray(load_picture(wanted)), np.asarray(numbered(9)))


def halves(width, height):
    """Red on the left, blue on the right."""
    image = Image.new("RGB", (width, height), (255, 0, 0))
    image.paste((0, 0, 255), (width // 2, 0, width, height))
    return image


def test_padding_keeps_the_whole_picture_on_a_square_of_the_mean_colour():
    shown = shaped(halves(200, 100), "pad")

    assert shown.size == (200, 200)
    assert shown.getpixel((5, 5)) == shown.getpixel((5, 195)) == MEAN_COLOUR
    assert shown.getpixel((5, 100)) == (255, 0, 0) and shown.getpixel((195, 100)) == (0, 0, 255)
    assert shown.crop((0, 50, 200, 150)).tobytes() == halves(200, 100).tobytes()


def test_squashing_keeps_the_whole_picture_and_not_its_shape():
    shown = shaped(halves(200, 100), "squash")

    assert shown.size == (200, 200)
    assert shown.getpixel((5, 5)) == (255, 0, 0) and shown.getpixel((195, 195)) == (0, 0, 255)


@pytest.mark.parametrize("mode", ["pad", "squash"])
@pytest.mark.parametrize("size", [(20_000, 1), (1, 3000), (1, 1), (3000, 2000)])
def test_squares_are_bounded_whatever_the_picture(mode, size):
    shown = shaped(Image.new("RGB", size), mode)

    assert shown.width == shown.height == min(max(size), SHORT_SIDE_PX)


def test_cropping_leaves_the_shape_to_the_checkpoint():
    image = halves(200, 100)

    assert shaped(image, "crop") is image
