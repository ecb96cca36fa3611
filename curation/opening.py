"""Opening fetched pictures in processes of their own: a picture that kills its process costs that picture only."""

import hashlib
import io
from dataclasses import dataclass, replace
from functools import partial

from PIL import Image, ImageOps

from curation.pdq import LARGEST_PX, pdq
from spine.errors import ImageError
from spine.images import Picture, open_picture
from spine.lists import LOOK_EVERY_S, ListsInForce
from spine.refused import Refused, md5_of
from spine.run import Run
from spine.sources import read_bytes
from spine.workers import OPEN_S, PictureWorkers

SMALL_SIDE_PX = 448
"""Shorter side of a small copy: what a model looks at is cut out of it, 224 to 384 pixels a side."""

SUFFIXES = {"JPEG": ".jpg", "PNG": ".png", "WEBP": ".webp", "GIF": ".gif", "BMP": ".bmp", "TIFF": ".tif"}
"""What a stored picture is named with, by format."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Opened:
    """What was measured of a picture."""

    sha256: str
    """Of the bytes to be kept."""
    size_bytes: int
    width: int
    """Pixels, after EXIF rotation and any resize."""
    height: int
    original_width: int
    original_height: int
    format: str
    exif: str | None
    md5: str
    """Of the bytes to be kept."""
    pdq: str | None
    """As spine.tables.IMAGES has it."""
    content: bytes | None = None
    """The bytes to be kept where they are others than those given: scaled down."""
    small: bytes | None = None
    """A small copy as JPEG, where one was asked for and the picture isn't as small itself."""


_lists: ListsInForce | None = None  # of this process


def _heed(run: Run | None) -> None:
    global _lists
    _lists = None if run is None else ListsInForce(run, LOOK_EVERY_S)


def open_place(place: str, max_bytes: int, known_sha256: str | None) -> Opened | Refused:
    """Read and measure a local picture; in a worker. What a hash list names is not opened.

    Args:
        place: As spine.sources knows it.
        max_bytes: Larger ones are refused.
        known_sha256: What its bytes had when the pool was made, None if nobody knows.

    Raises:
        ConfigError: A list can't be read.
    """
    try:
        content = read_bytes(place, max_bytes=max_bytes)
    except ImageError as error:
        return Refused(error.reason, str(error))
    sha256, md5 = hashlib.sha256(content).hexdigest(), md5_of(content)
    rule = None if _lists is None else _lists.now().blocks(sha256=sha256, md5=md5)
    if rule is not None:
        return Refused(rule, "on a list", sha256, md5)
    if known_sha256 is not None and sha256 != known_sha256:
        return Refused("changed", f"{place}: not the bytes that were embedded; embed again", sha256, md5)
    return open_content(content, 0)


def open_content(content: bytes, max_side_px: int, copied: bool = False) -> Opened | Refused:
    """Measure a picture; in a worker.

    Args:
        content: Its bytes.
        max_side_px: Scale it down where its longer side is over this; 0 never does.
        copied: Make a small copy too.
    """
    found = measured(content, max_side_px)
    if isinstance(found, Refused):
        return found
    opened, picture = found
    if max_side_px and max(picture.width, picture.height) > max_side_px:
        opened = _scaled(opened, picture, max_side_px)
    if copied and min(opened.width, opened.height) > SMALL_SIDE_PX:
        opened = replace(opened, small=_small(picture.image))
    return opened


def _small(image: Image.Image) -> bytes:
    scale = SMALL_SIDE_PX / min(image.size)
    size = (round(image.width * scale), round(image.height * scale))
    kept = io.BytesIO()
    # Shrinking, it is as sharp as bicubic in half of its time; CLIP sees no difference, to Lanczos neither.
    image.resize(size, Image.Resampling.HAMMING, reducing_gap=3.0).save(kept, "JPEG", quality=90)
    return kept.getvalue()


def measured(content: bytes, least_px: int = 0) -> tuple[Opened, Picture] | Refused:
    """What is measured of a picture, and the opened picture; in a worker.

    Args:
        content: Its bytes.
        least_px: Pixels of the shorter side that are needed of the opened picture, beyond those of a small copy.
    """
    sha256 = hashlib.sha256(content).hexdigest()
    try:
        picture = open_picture(content, least_px=max(least_px, LARGEST_PX))
    except ImageError as error:
        return Refused(error.reason, str(error), sha256)
    opened = Opened(
        sha256=sha256,
        size_bytes=len(content),
        width=picture.width,
        height=picture.height,
        original_width=picture.width,
        original_height=picture.height,
        format=picture.format,
        exif=picture.exif,
        md5=md5_of(content),
        pdq=" ".join(pdq(picture.image)) or None,
    )
    return opened, picture


def _scaled(opened: Opened, picture: Picture, max_side_px: int) -> Opened:
    small = ImageOps.contain(picture.image, (max_side_px, max_side_px), Image.Resampling.LANCZOS)
    kept = io.BytesIO()
    if picture.format == "JPEG":
        small.save(kept, "JPEG", quality=95)
    else:
        small.save(kept, "PNG")
    content = kept.getvalue()
    return replace(
        opened,
        sha256=hashlib.sha256(content).hexdigest(),
        md5=md5_of(content),
        size_bytes=len(content),
        width=small.width,
        height=small.height,
        format="JPEG" if picture.format == "JPEG" else "PNG",
        content=content,
    )


class Openers(PictureWorkers):
    """Worker processes that open pictures; may be asked from many threads. Use as a context manager."""

    def __init__(self, workers: int = 0, open_s: int = OPEN_S, listed_by: Run | None = None) -> None:
        """As PictureWorkers.

        Args:
            workers: Processes; 0 is one a core.
            open_s: Seconds for one picture.
            listed_by: The run whose hash lists local pictures are held to before they are opened; downloads are held
                to them before they come here.
        """
        super().__init__(workers, open_s, partial(_heed, listed_by))

    def place(self, place: str, max_bytes: int, known_sha256: str | None) -> Opened | Refused:
        """`open_place` in a worker."""
        return self.ask(place, open_place, place, max_bytes, known_sha256)

    def content(self, name: str, content: bytes, max_side_px: int, copied: bool = False) -> Opened | Refused:
        """`open_content` in a worker."""
        return self.ask(name, open_content, content, max_side_px, copied)
