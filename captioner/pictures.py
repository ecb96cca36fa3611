"""Reads and decodes pictures ahead of the model, so that it doesn't wait for them."""

import hashlib
import os
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

from PIL import Image

from captioner.engine import CaptionFailure
from spine.errors import ImageError
from spine.images import open_picture
from spine.sources import read_bytes

SHORT_SIDE_PX = 1344
"""A picture with a longer short side is scaled down to it: four times what LLaVA-1.5 looks at."""

LONGEST_RATIO = 4
"""Of a longer picture only the middle is kept; LLaVA-1.5's own preprocessing keeps the middle square."""

PREPROCESSING = f"middle {LONGEST_RATIO}:1, short side {SHORT_SIDE_PX} px Lanczos, then the checkpoint's own"
"""As it stands in a caption's fingerprint."""

_AHEAD = 2  # batches that are decoded or being decoded while the model works on one


@dataclass(frozen=True, slots=True)
class Wanted:
    """A picture to be read."""

    place: str
    """Where its bytes are; see spine.sources."""

    sha256: str
    """Of the bytes that were fetched, in hex."""


def load_picture(wanted: Wanted | None) -> Image.Image | CaptionFailure:
    """Read and decode one picture, and bound its size.

    Args:
        wanted: None where the picture was not fetched.

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
        return bounded(open_picture(content).image)
    except ImageError as error:
        return CaptionFailure(error.reason, str(error))


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


def read_ahead(batches: Iterable[Sequence[Wanted | None]]) -> Iterator[list[Image.Image | CaptionFailure]]:
    """Load the pictures of each batch in threads, some batches ahead of the one that is taken.

    Yields:
        What load_picture returns for each of a batch, in order; batch by batch, in order.
    """
    waiting: deque[list[Future[Image.Image | CaptionFailure]]] = deque()
    threads = ThreadPoolExecutor(max_workers=min(8, os.cpu_count() or 1), thread_name_prefix="pictures")
    try:
        for batch in batches:
            waiting.append([threads.submit(load_picture, wanted) for wanted in batch])
            if len(waiting) > _AHEAD:
                yield [future.result() for future in waiting.popleft()]
        while waiting:
            yield [future.result() for future in waiting.popleft()]
    finally:
        threads.shutdown(cancel_futures=True)
