"""Opening pictures that nobody vouched for.

A picture is decoded only after its header was measured, only in a format of the list, and only whole:
half a JPEG is refused, never shown. What comes out is always upright RGB of 8 bits, over white where
it was transparent. Every way to fail has a name in REFUSALS, so that a stage can count it.
"""

import io
import json
import struct
import warnings
import zlib
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from spine.errors import ImageError

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")
"""What is opened. Pillow knows 44 formats, some of which start other programs."""

MAX_PIXELS = 50_000_000
"""Width times height at most, by the header, before anything is decoded."""

MAX_SIDE_PX = 30_000
"""The longer side at most."""

MAX_BYTES = 50_000_000
"""Size of the file at most."""

REFUSALS: dict[str, str] = {
    "missing": "there is no such file, member or row",
    "unreadable": "the file, or the archive it is in, can't be read",
    "empty_file": "the file has no bytes",
    "too_many_bytes": "the file is larger than allowed",
    "not_an_image": "its content is no picture",
    "unsupported_format": f"a picture, but none of {', '.join(FORMATS)}",
    "truncated": "the picture is cut off or damaged",
    "too_many_pixels": "the picture is larger than allowed",
    "out_of_memory": "opening it takes more memory than one picture may",
    "decode_timeout": "opening it took too long",
    "decode_crashed": "opening it ended the process that tried",
    "not_local": "only its address is known; its bytes are not here",
    "bad_embedding": "the model gave no finite embedding for it",
}
"""Why a picture can't be used: reason to meaning."""

# Pillow's own limit lies above ours, so its warning never concerns a picture we take.
warnings.simplefilter("error", Image.DecompressionBombWarning)

# What Pillow's decoders raise on damaged bytes, by what was seen and by its sources: not all are OSErrors.
_DECODER_ERRORS = (
    OSError,
    ValueError,
    SyntaxError,
    EOFError,
    LookupError,
    TypeError,
    AttributeError,
    ArithmeticError,
    RuntimeError,
    struct.error,
    zlib.error,
)
_BOMBS = (Image.DecompressionBombError, Image.DecompressionBombWarning)

_OTHER_FORMATS = (
    (4, b"ftypheic", "HEIC"),
    (4, b"ftypheix", "HEIC"),
    (4, b"ftypmif1", "HEIF"),
    (4, b"ftypmsf1", "HEIF"),
    (4, b"ftypavif", "AVIF"),
    (4, b"ftypavis", "AVIF"),
    (0, b"\x00\x00\x00\x0cjP  \r\n\x87\n", "JPEG 2000"),
    (0, b"\xff\x4f\xff\x51", "JPEG 2000"),
    (0, b"\x00\x00\x00\x0cJXL \r\n\x87\n", "JPEG XL"),
    (0, b"\xff\x0a", "JPEG XL"),
    (0, b"8BPS", "PSD"),
    (0, b"%!PS", "PostScript"),
    (0, b"\x00\x00\x01\x00", "ICO"),
    (0, b"SIMPLE  =", "FITS"),
    (0, b"<svg", "SVG"),
    (0, b"P5", "PNM"),
    (0, b"P6", "PNM"),
)

_MARKS = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF87a", b"GIF89a")  # of formats that are opened

_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""EXIF orientation to what puts it upright; 1 and anything else is upright already."""

_EXIF_LIMIT = 20_000  # characters of EXIF kept; a longer one is notes of the camera's maker
_BAND_ROWS = 256  # rows converted at a time
_BLURRED_SIDE = 8  # pixels that a blurred thumbnail has left on its longer side


@dataclass(frozen=True, slots=True)
class Picture:
    """An opened picture."""

    image: Image.Image
    """Mode RGB, upright, decoded; a JPEG at a half, a quarter or an eighth of its size where that was enough."""

    width: int
    """Pixels of the picture itself, after EXIF rotation."""

    height: int
    """Pixels of the picture itself, after EXIF rotation."""

    format: str
    """One of FORMATS."""

    exif: str | None
    """Tags by name as JSON, without place and maker notes; None where it has none."""


def open_picture(content: bytes, *, least_px: int = 0) -> Picture:
    """Decode a picture's first frame as upright 8-bit RGB.

    16-bit and floating-point pictures are scaled to 8 bits, not clipped; transparency is laid over white.

    Args:
        content: The file's bytes.
        least_px: So many pixels of the shorter side are enough: a larger JPEG is decoded at a part of its size, in
            half the time. 0 needs them all. Damage is seen all the same.

    Raises:
        ImageError: With reason empty_file, too_many_bytes, not_an_image, unsupported_format,
            too_many_pixels, out_of_memory or truncated.
    """
    image = _open(content)
    width, height = image.size
    try:
        if least_px and image.format == "JPEG":
            part = max(1, min(width, height) // least_px)
            image.draft(None, (width // part, height // part))
        image.load()
        exif = _exif(image)
        orientation = _orientation(image, content)
        turn = _UPRIGHT.get(orientation)
        rgb = _rgb(image)
        upright = rgb.transpose(turn) if turn is not None else rgb
        upright.info = {}  # or whoever looks for an orientation finds the old one and turns it again
    except _BOMBS as error:
        raise ImageError("too_many_pixels", f"{error}") from None
    except MemoryError:
        raise ImageError("out_of_memory", "more memory is needed than there is") from None
    except _DECODER_ERRORS as error:
        raise ImageError("truncated", f"damaged or cut off: {_said(error)}") from None
    if orientation >= 5:
        width, height = height, width
    return Picture(upright, width, height, _format(image), exif)


def open_header(content: bytes) -> tuple[int, int, str]:
    """Measure a picture without decoding it.

    Returns:
        Width and height in pixels after EXIF rotation, and the format.

    Raises:
        ImageError: As open_picture, but damage behind the header isn't seen.
    """
    image = _open(content)
    width, height = image.size
    try:
        sideways = _orientation(image, content) >= 5
    except _DECODER_ERRORS as error:
        raise ImageError("truncated", f"damaged or cut off: {_said(error)}") from None
    return (height, width, _format(image)) if sideways else (width, height, _format(image))


def thumbnail(content: bytes, side_px: int, *, blurred: bool = False) -> bytes:
    """A small WebP of a picture, encoded anew, without metadata; never larger than the picture.

    Args:
        content: The file's bytes.
        side_px: Longer side at most.
        blurred: Leave 8 pixels a side at most, smoothed over the same area, so that nothing can be recognised.

    Raises:
        ImageError: As open_picture.
    """
    return thumbnail_of(open_picture(content, least_px=side_px).image, side_px, blurred=blurred)


def thumbnail_of(image: Image.Image, side_px: int, *, blurred: bool = False) -> bytes:
    """As `thumbnail`, of an opened picture."""
    small = ImageOps.contain(image, (side_px, side_px)) if max(image.size) > side_px else image
    if blurred:
        left = max(1, min(_BLURRED_SIDE, max(small.size) // _BLURRED_SIDE))
        few = image.resize(_shrunk(image.size, left), Image.Resampling.BOX)
        small = few.resize(small.size, Image.Resampling.BICUBIC)
    kept = io.BytesIO()
    # The usual method, 4, takes two thirds more time for 5 % fewer bytes.
    small.save(kept, "WEBP", quality=75, method=2)
    return kept.getvalue()


def _open(content: bytes) -> Image.Image:
    if not content:
        raise ImageError("empty_file", "0 bytes")
    if len(content) > MAX_BYTES:
        raise ImageError("too_many_bytes", f"{len(content):,} bytes, at most {MAX_BYTES:,} are taken")
    try:
        image = Image.open(io.BytesIO(content), formats=FORMATS)
    except _BOMBS as error:
        raise ImageError("too_many_pixels", f"{error}") from None
    except UnidentifiedImageError:
        other = _other_format(content)
        if other is not None:
            raise ImageError("unsupported_format", f"{other}; convert it to JPEG or PNG") from None
        if content.startswith((b"II*\x00", b"MM\x00*")):
            raise ImageError(
                "unsupported_format", "a TIFF of a kind that can't be opened, or damaged"
            ) from None
        if content.startswith(_MARKS):
            raise ImageError("truncated", "it begins as a picture, but its header is damaged") from None
        raise ImageError("not_an_image", "no picture in its content") from None
    except MemoryError:
        raise ImageError("out_of_memory", "its header asks for more memory than there is") from None
    except _DECODER_ERRORS as error:
        raise ImageError("truncated", f"damaged header: {_said(error)}") from None
    width, height = image.size
    if width < 1 or height < 1:
        raise ImageError("truncated", f"its header says {width} x {height} pixels")
    if width * height > MAX_PIXELS or max(width, height) > MAX_SIDE_PX:
        raise ImageError(
            "too_many_pixels",
            f"{width:,} x {height:,} pixels, at most {MAX_PIXELS:,} and {MAX_SIDE_PX:,} a side are taken",
        )
    return image


def _format(image: Image.Image) -> str:
    return "JPEG" if image.format == "MPO" else str(image.format)  # MPO: a JPEG with a second one behind it


def _other_format(content: bytes) -> str | None:
    for offset, mark, name in _OTHER_FORMATS:
        if content.startswith(mark, offset):
            return name
    return "SVG" if content.startswith(b"<?xml") and b"<svg" in content[:1000] else None


def _said(error: BaseException) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__


def _orientation(image: Image.Image, content: bytes) -> int:
    """The EXIF orientation that is still to be applied, 1 to 8."""
    if image.format == "TIFF":  # Pillow turns a TIFF by itself, its size included
        return 1
    if image.format == "PNG" and "exif" not in image.info:
        # Image.getexif would decode the picture to look behind it for the EXIF chunk.
        found = _png_exif(content)
        exif = Image.Exif()
        if found is not None:
            exif.load(found)
    else:
        exif = image.getexif()
    value = exif.get(ExifTags.Base.Orientation, 1)
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def _png_exif(content: bytes) -> bytes | None:
    at = 8
    while at + 8 <= len(content):
        length, kind = struct.unpack_from(">I4s", content, at)
        if kind == b"eXIf":
            return content[at + 8 : at + 8 + length]
        at += 12 + length
    return None


def _exif(image: Image.Image) -> str | None:
    """Tags by name as JSON. Where and maker notes stay out: the first is private, the second is no data."""
    try:
        exif = image.getexif()
        tags: dict[int, Any] = {**exif, **exif.get_ifd(ExifTags.IFD.Exif)}
    except _DECODER_ERRORS:  # a picture is no worse for damaged notes about it
        return None
    named = {ExifTags.TAGS[tag]: _plain(value) for tag, value in tags.items() if tag in ExifTags.TAGS}
    kept = {name: value for name, value in named.items() if value is not None}
    for unwanted in ("MakerNote", "GPSInfo", "ExifOffset"):
        kept.pop(unwanted, None)
    text = json.dumps(kept, sort_keys=True, ensure_ascii=True)
    return text if kept and len(text) <= _EXIF_LIMIT else None


def _plain(value: object) -> str | int | float | list[Any] | None:
    if isinstance(value, str):
        return value.replace("\x00", "").strip()[:1000] or None
    if isinstance(value, int):
        return value
    if isinstance(value, tuple):
        entries = [_plain(entry) for entry in value[:16]]
        return None if None in entries else entries
    try:
        number = float(value)  # type: ignore[arg-type]  # IFDRational among others
    except (TypeError, ValueError, ArithmeticError):
        return None
    return number if np.isfinite(number) else None


def _rgb(image: Image.Image) -> Image.Image:
    """A loaded picture of any mode as RGB, before rotation."""
    if image.mode.startswith(("I", "F")):
        return Image.fromarray(_eight_bits(np.asarray(image), image.mode)).convert("RGB")
    if image.has_transparency_data:
        picture = image if image.mode == "RGBA" else image.convert("RGBA")
        white = Image.new("RGB", picture.size, "white")
        white.paste(picture, mask=picture.getchannel("A"))  # half the memory of an alpha_composite
        return white
    return image.convert("RGB")


def _eight_bits(values: npt.NDArray[Any], mode: str) -> npt.NDArray[np.uint8]:
    """Grey values of more than 8 bits as 0 to 255, in proportion: Pillow's own conversion clips them."""
    bands = [values[start : start + _BAND_ROWS] for start in range(0, len(values), _BAND_ROWS)]
    low, high = 0.0, 65535.0
    if not mode.startswith("I;16"):
        low = min(float(_finite(band).min()) for band in bands)
        high = max(float(_finite(band).max()) for band in bands)
        if low >= 0:  # the smallest usual range that holds them all
            tops = (1.0, 255.0) if mode == "F" else (255.0, 65535.0)
            low, high = 0.0, next((top for top in tops if high <= top), high)
    eight = np.empty(values.shape, dtype=np.uint8)
    scale = np.float32(255.0 / ((high - low) or 1.0))
    for number, band in enumerate(bands):
        # A band at a time: as a whole, a large picture would lie in memory four times as floats.
        eight[number * _BAND_ROWS : number * _BAND_ROWS + len(band)] = (_finite(band) - low) * scale + 0.5
    return eight


def _finite(band: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
    return np.nan_to_num(band.astype(np.float32), nan=0.0, posinf=0.0, neginf=0.0)


def _shrunk(size: tuple[int, int], side_px: int) -> tuple[int, int]:
    scale = side_px / max(size)
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))
