"""Reads and decodes pictures ahead of the model, so that it doesn't wait for them."""

import hashlib
import os
from collections import deque
from collections.abc import Callable, Generator, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from PIL import Image

from captioner.engine import CaptionFailure, Wanted
from spine.errors import ImageError
from spine.images import open_picture
from spine.sources import read_bytes

SHORT_SIDE_PX = 1344
"""A picture with a longer short side is scaled down to it: four times what LLaVA-1.5 looks at."""

LONGEST_RATIO = 4
"""Of a longer picture only the middle is kept; LLaVA-1.5's own preprocessing keeps the middle square."""

PREPROCESSING = {
    "crop": f"middle {LONGEST_RATIO}:1, short side {SHORT_SIDE_PX} px Lanczos, then the checkpoint's own",
    "pad": f"long side {SHORT_SIDE_PX} px Lanczos, on a square of CLIP's mean colour, then the checkpoint's own",
    "squash": f"distorted to a square of at most {SHORT_SIDE_PX} px Lanczos, then the checkpoint's own",
}
"""By [caption] image_mode, as it stands in a caption's fingerprint."""

MEAN_COLOUR = (122, 116, 104)
"""CLIP's mean pixel, with which LLaVA-1.5's own code fills the square."""

BLANK_PX = 336
"""Side of the picture that shows nothing: LLaVA-1.5's own."""

Read = TypeVar("Read")

_AHEAD = 2  # batches that are decoded or being decoded while the model works on one


def blank_picture() -> Image.Image:
    """A picture that shows nothing, and that any model of pictures can take."""
    return Image.new("RGB", (BLANK_PX, BLANK_PX), MEAN_COLOUR)


def load_picture(wanted: Wanted | None, mode: str = "crop") -> Image.Image | CaptionFailure:
    """Read and decode one picture, and bound its size.

    Args:
        wanted: None where the picture was not fetched.
        mode: One of PREPROCESSING.

    Returns:
        RGB, upright; or why it can't be used.
    """
    if wanted is None:
        return CaptionFailure(
            "not_fetched", "selected, but images/ has no fetched picture of it; fetch again"
        )
    try:
        content = read_bytes(wanted.place)
        if hashlib.sha256(content).hexdigest() != wanted.sha256:
            return CaptionFailure("changed", f"{wanted.place}: not the bytes that were fetched; fetch again")
        return shaped(open_picture(content).image, mode)
    except ImageError as error:
        return CaptionFailure(error.reason, str(error))


def shaped(image: Image.Image, mode: str) -> Image.Image:
    """The picture as [caption] image_mode wants it, bounded in size.

    Args:
        image: RGB.
        mode: crop leaves its shape to the checkpoint, which keeps the middle square; pad and squash give a square.
    """
    if mode == "crop":
        return bounded(image)
    side = min(max(image.size), SHORT_SIDE_PX)
    if mode == "squash":
        return image.resize((side, side), Image.Resampling.LANCZOS, reducing_gap=3.0)
    scale = side / max(image.size)
    if scale < 1:
        size = (max(round(image.width * scale), 1), max(round(image.height * scale), 1))
        image = image.resize(size, Image.Resampling.LANCZOS, reducing_gap=3.0)
    square = Image.new("RGB", (side, side), MEAN_COLOUR)
    square.paste(image, ((side - image.width) // 2, (side - image.height) // 2))
    return square


def bounded(image: Image.Image) -> Image.Image:
    """The picture within SHORT_SIDE_PX and LONGEST_RATIO, itself where it is.

    The checkpoint's preprocessing scales the short side to 336 px: of a picture 1 px high and 30,000 wide it would
    make one of ten million.
    """
    short = min(image.size)
    longest = LONGEST_RATIO * short
    if max(image.size) > longest:
        width, height = min(image.width, longest), min(image.height, longest)
        left, top = (image.width - width) // 2, (image.height - height) // 2
        image = image.crop((left, top, left + width, top + height))
    if short > SHORT_SIDE_PX:
        scale = SHORT_SIDE_PX / short
        size = (round(image.width * scale), round(image.height * scale))
        image = image.resize(size, Image.Resampling.LANCZOS, reducing_gap=3.0)
    return image


def read_ahead(
    batches: Iterable[Sequence[Wanted | None]],
    read: Callable[[Wanted | None], Read],
) -> Generator[list[Read], None, None]:
    """Read the pictures of each batch in threads, some batches ahead of the one that is taken.

    To be closed by who takes them: the garbage collector may do it in the midst of a thread's start, which then waits
    for itself.

    Args:
        batches: What each batch wants.
        read: Reads one; called in threads.

    Yields:
        What `read` returns for each of a batch, in order; batch by batch, in order.
    """
    waiting: deque[list[Future[Read]]] = deque()
    threads = ThreadPoolExecutor(max_workers=min(8, os.cpu_count() or 1), thread_name_prefix="pictures")
    try:
        for batch in batches:
            waiting.append([threads.submit(read, wanted) for wanted in batch])
            if len(waiting) > _AHEAD:
                yield [future.result() for future in waiting.popleft()]
        while waiting:
            yield [future.result() for future in waiting.popleft()]
    finally:
        threads.shutdown(cancel_futures=True)
