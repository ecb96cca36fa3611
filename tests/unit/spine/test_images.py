"""Pictures in every mode, state and size, made here, so that the right answer is known."""

import io
import json
import struct
import zlib

import numpy as np
import pytest
from PIL import Image, ImageCms, ImageOps

from spine.errors import ImageError
from spine.images import REFUSALS, open_header, open_picture, thumbnail


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    kept = io.BytesIO()
    image.save(kept, kind, **options)
    return kept.getvalue()


def corner_picture() -> Image.Image:
    """24 x 16, black, with a red upper left corner."""
    image = Image.new("RGB", (24, 16))
    image.paste((255, 0, 0), (0, 0, 8, 8))
    return image


def png_header(width: int, height: int) -> bytes:
    """A valid PNG header with hardly a byte of picture behind it."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(b"\x00"))
        + chunk(b"IEND", b"")
    )


def refusal(content: bytes) -> str:
    with pytest.raises(ImageError) as caught:
        open_picture(content)
    assert caught.value.reason in REFUSALS
    return caught.value.reason


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF"])
def test_every_listed_format_opens_as_rgb(kind):
    content = encoded(corner_picture(), kind)

    picture = open_picture(content)

    assert (picture.image.mode, picture.width, picture.height, picture.format) == ("RGB", 24, 16, kind)
    assert open_header(content) == (24, 16, kind)
    red, green, _ = picture.image.getpixel((3, 3))
    assert red > 200
    assert green < 50


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_all_eight_exif_orientations_come_out_upright_and_measured(kind, orientation):
    undo = {
        1: None,
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }[orientation]
    stored = corner_picture() if undo is None else corner_picture().transpose(undo)
    exif = Image.Exif()
    exif[0x0112] = orientation
    content = encoded(stored, kind, exif=exif, **({"quality": 95} if kind in ("JPEG", "WEBP") else {}))

    picture = open_picture(content)

    assert (picture.width, picture.height) == (24, 16)
    assert open_header(content) == (24, 16, kind)
    assert np.abs(np.asarray(picture.image, int) - np.asarray(corner_picture(), int)).mean() < 12
    assert (
        ImageOps.exif_transpose(picture.image).tobytes() == picture.image.tobytes()
    )  # not to be turned again


def test_an_exif_chunk_behind_the_pixels_of_a_png_still_turns_it():
    exif = Image.Exif()
    exif[0x0112] = 6
    content = encoded(corner_picture(), "PNG")
    body = exif.tobytes().removeprefix(b"Exif\x00\x00")
    late = struct.pack(">I", len(body)) + b"eXIf" + body + struct.pack(">I", zlib.crc32(b"eXIf" + body))
    content = content[:-12] + late + content[-12:]

    assert open_header(content) == (16, 24, "PNG")
    assert open_picture(content).image.size == (16, 24)


def test_sixteen_bit_grey_is_scaled_and_not_clipped():
    grey = np.array([[0, 257 * 10, 40000, 65535]], dtype=np.uint16)

    for kind in ("PNG", "TIFF"):
        image = open_picture(encoded(Image.fromarray(grey), kind)).image
        assert np.asarray(image)[0, :, 0].tolist() == [0, 10, 156, 255]


@pytest.mark.parametrize("top", [1.0, 255.0, 4000.0])
def test_floating_point_grey_keeps_its_proportions(top):
    grey = np.array([[0.0, top / 2, top]], dtype=np.float32)

    values = np.asarray(open_picture(encoded(Image.fromarray(grey), "TIFF")).image)[0, :, 0]

    assert abs(int(values[1]) - 128) <= 1
    assert [values[0], values[2]] == [0, 255]


def test_transparency_is_laid_over_white_whatever_hides_under_it():
    clear_red = Image.new("RGBA", (4, 4), (255, 0, 0, 0))
    palette = corner_picture().quantize(4)
    palette.info["transparency"] = palette.getpixel((20, 12))
    clear_grey = Image.new("LA", (4, 4), (0, 128))

    assert open_picture(encoded(clear_red, "PNG")).image.getpixel((1, 1)) == (255, 255, 255)
    assert (
        open_picture(encoded(clear_red, "WEBP", lossless=True, exact=True)).image.getpixel((1, 1))
        == (255,) * 3
    )
    shown = open_picture(encoded(palette, "PNG", transparency=palette.info["transparency"])).image
    assert shown.getpixel((20, 12)) == (255, 255, 255)
    assert shown.getpixel((2, 2)) == (255, 0, 0)
    grey = open_picture(encoded(clear_grey, "PNG")).image.getpixel((1, 1))
    assert grey in ((127,) * 3, (128,) * 3)


@pytest.mark.parametrize("mode", ["1", "L", "P", "CMYK"])
def test_other_modes_become_rgb(mode):
    content = encoded(corner_picture().convert(mode), "TIFF")

    assert open_picture(content).image.mode == "RGB"


def test_cmyk_jpeg_keeps_its_colours():
    content = encoded(corner_picture().convert("CMYK"), "JPEG", quality=95)

    red, green, blue = open_picture(content).image.getpixel((2, 2))

    assert red > 220
    assert max(green, blue) < 40


def test_the_first_frame_of_an_animation_is_taken():
    frames = [Image.new("RGB", (10, 10), colour) for colour in ("red", "blue")]

    for kind in ("GIF", "WEBP"):
        content = encoded(frames[0], kind, save_all=True, append_images=frames[1:])
        red, _, blue = open_picture(content).image.getpixel((5, 5))
        assert red > 200 > 50 > blue


def test_each_kind_of_bad_file_has_its_own_reason():
    jpeg = encoded(Image.effect_noise((200, 200), 80).convert("RGB"), "JPEG")
    png = encoded(Image.effect_noise((200, 200), 80), "PNG")

    assert refusal(b"") == "empty_file"
    assert refusal(b"just a letter, named .jpg") == "not_an_image"
    assert refusal(jpeg[: len(jpeg) // 2]) == "truncated"
    assert refusal(png[: len(png) // 2]) == "truncated"
    assert refusal(b"\x00\x00\x00\x18ftypheic" + b"\x00" * 40) == "unsupported_format"
    assert refusal(b"<svg xmlns='http://www.w3.org/2000/svg'/>") == "unsupported_format"
    assert refusal(jpeg[:20]) == refusal(png[:12]) == "truncated"
    assert refusal(b"II*\x00" + b"\xff" * 30) == "unsupported_format"
    assert refusal(png_header(20_000, 20_000)) == "too_many_pixels"
    assert refusal(png_header(40_000, 10)) == "too_many_pixels"
    assert refusal(png_header(8_000, 7_000)) == "too_many_pixels"
    assert refusal(b"\x00" * 50_000_001) == "too_many_bytes"


def test_a_bomb_is_refused_by_its_header_for_a_measure_too():
    with pytest.raises(ImageError, match="pixels") as caught:
        open_header(png_header(30_000, 30_000))
    assert caught.value.reason == "too_many_pixels"


def test_random_damage_gives_a_picture_or_a_named_refusal_and_nothing_else():
    generator = np.random.default_rng(7)
    originals = [
        encoded(Image.effect_noise((60, 40), 60).convert("RGB"), kind)
        for kind in ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")
    ]
    refused = 0
    for _ in range(600):
        damaged = bytearray(originals[generator.integers(len(originals))])
        for place in generator.integers(0, len(damaged), 4):
            damaged[place] = generator.integers(256)
        try:
            assert open_picture(bytes(damaged)).image.mode == "RGB"
        except ImageError as error:
            refused += 1
            assert error.reason in REFUSALS
    assert refused > 50


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_large_jpeg_is_decoded_at_a_part_of_its_size_where_that_is_enough(orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    smooth = Image.radial_gradient("L").resize((1300, 900)).convert("RGB")
    smooth.paste("red", (0, 0, 400, 300))
    content = encoded(smooth, "JPEG", quality=95, exif=exif)
    whole = open_picture(content)

    part = open_picture(content, least_px=400)

    assert (part.width, part.height, part.exif) == (whole.width, whole.height, whole.exif)
    assert sorted(part.image.size) == [450, 650]  # a half: a third is none of libjpeg's
    halved = np.asarray(whole.image.reduce(2), dtype=np.int16)
    assert np.abs(np.asarray(part.image, dtype=np.int16) - halved).mean() < 1.5
    assert open_picture(content, least_px=901).image.size == whole.image.size


@pytest.mark.parametrize("progressive", [False, True])
def test_a_jpeg_that_is_cut_off_is_refused_at_a_part_of_its_size_too(progressive):
    noise = np.random.default_rng(0).integers(0, 256, (800, 800, 3), dtype=np.uint8)
    content = encoded(Image.fromarray(noise), "JPEG", progressive=progressive)
    for kept in (0.5, 0.9, 0.99):
        with pytest.raises(ImageError) as refused:
            open_picture(content[: int(len(content) * kept)], least_px=100)
        assert refused.value.reason == "truncated"


def test_exif_is_kept_as_json_without_the_place():
    exif = Image.Exif()
    exif[0x010F] = "Maker\x00"
    exif[0x0112] = 6
    exif.get_ifd(0x8825)[1] = "N"
    picture = open_picture(encoded(corner_picture(), "JPEG", exif=exif))

    assert json.loads(picture.exif) == {"Make": "Maker", "Orientation": 6}
    assert open_picture(encoded(corner_picture(), "JPEG")).exif is None


def test_a_large_grey_picture_is_scaled_the_same_in_every_band():
    grey = np.arange(700 * 40, dtype=np.uint16).reshape(700, 40) * 2

    values = np.asarray(open_picture(encoded(Image.fromarray(grey), "PNG")).image)[..., 0]

    assert np.abs(values - grey / 257).max() <= 0.5001


def test_a_thumbnail_carries_no_notes_of_the_camera():
    exif = Image.Exif()
    exif[0x010F] = "Maker"
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    content = encoded(corner_picture(), "JPEG", exif=exif, icc_profile=profile)

    small = Image.open(io.BytesIO(thumbnail(content, 12)))

    assert not small.getexif()
    assert not small.info.get("icc_profile")


def test_a_thumbnail_keeps_the_shape_and_never_grows():
    content = encoded(Image.effect_noise((400, 200), 60).convert("RGB"), "JPEG")

    assert open_header(thumbnail(content, 100)) == (100, 50, "WEBP")
    assert open_header(thumbnail(content, 1000)) == (400, 200, "WEBP")
    assert thumbnail(content, 100) == thumbnail(content, 100)


def test_a_blurred_thumbnail_has_no_detail_left():
    stripes = np.zeros((256, 256, 3), dtype=np.uint8)
    stripes[:, ::16] = stripes[:, 1::16] = 255  # 16 stripes across: words and faces are finer than that
    content = encoded(Image.fromarray(stripes), "PNG")

    sharp = np.asarray(open_picture(thumbnail(content, 128)).image, float)
    blurred = np.asarray(open_picture(thumbnail(content, 128, blurred=True)).image, float)

    assert blurred.shape == sharp.shape
    assert blurred.std() < 0.05 * sharp.std()
