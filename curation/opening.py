"""Opening fetched pictures in processes of their own: a picture that kills its process costs that picture only."""

import hashlib
import io
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, replace
from multiprocessing.process import BaseProcess
from typing import TypeVar

from PIL import Image, ImageOps

from curation.pdq import pdq
from spine.errors import ImageError
from spine.images import Picture, open_picture
from spine.refused import Refused, md5_of
from spine.sources import read_bytes
from spine.workers import interrupts_held

OPEN_S = 60
"""Seconds for reading and opening one picture; then its process is ended."""

_Result = TypeVar("_Result")

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


def open_place(place: str, max_bytes: int, known_sha256: str | None) -> Opened | Refused:
    """Read and measure a local picture; in a worker.

    Args:
        place: As spine.sources knows it.
        max_bytes: Larger ones are refused.
        known_sha256: What its bytes had when the pool was made, None if nobody knows.
    """
    try:
        content = read_bytes(place, max_bytes=max_bytes)
    except ImageError as error:
        return Refused(error.reason, str(error))
    sha256 = hashlib.sha256(content).hexdigest()
    if known_sha256 is not None and sha256 != known_sha256:
        return Refused("changed", f"{place}: not the bytes that were embedded; embed again", sha256)
    return open_content(content, 0)


def open_content(content: bytes, max_side_px: int) -> Opened | Refused:
    """Measure a picture, and scale it down where its longer side is over max_side_px (0: never); in a worker."""
    found = measured(content)
    if isinstance(found, Refused):
        return found
    opened, picture = found
    if not max_side_px or max(picture.width, picture.height) <= max_side_px:
        return opened
    return _scaled(opened, picture, max_side_px)


def measured(content: bytes) -> tuple[Opened, Picture] | Refused:
    """What is measured of a picture, and the opened picture; in a worker."""
    sha256 = hashlib.sha256(content).hexdigest()
    try:
        picture = open_picture(content)
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


class Openers:
    """Worker processes that open pictures; may be asked from many threads. Use as a context manager."""

    def __init__(self, workers: int = 0, open_s: int = OPEN_S) -> None:
        """Start nothing yet.

        Args:
            workers: Processes; 0 is one a core.
            open_s: Seconds for one picture; then its process is ended.
        """
        self._workers, self._open_s = workers or os.cpu_count() or 1, open_s
        self._lock = threading.Lock()
        self._pool: ProcessPoolExecutor | None = None

    def __enter__(self) -> "Openers":
        return self

    def __exit__(self, *_: object) -> None:
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)

    def place(self, place: str, max_bytes: int, known_sha256: str | None) -> Opened | Refused:
        """`open_place` in a worker."""
        return self.ask(place, open_place, place, max_bytes, known_sha256)

    def content(self, name: str, content: bytes, max_side_px: int) -> Opened | Refused:
        """`open_content` in a worker."""
        return self.ask(name, open_content, content, max_side_px)

    def ask(self, name: str, work: Callable[..., _Result], *arguments: object) -> _Result | Refused:
        """Have a worker do it; decode_crashed or decode_timeout where it ended its process.

        Args:
            name: Of the picture, for the message.
            work: A top-level function.
            arguments: What it is called with.
        """
        with self._lock:
            if self._pool is None:
                self._pool = _pool(self._workers)
            pool = self._pool
        try:
            with interrupts_held():
                opened = pool.submit(_within_time, self._open_s, work, *arguments)
            return opened.result()
        except BrokenProcessPool:
            # Some picture ended its worker, and all that were being opened are lost with the pool.
            # Each of them is tried once more by itself, so that only the one to blame is refused.
            with self._lock:
                if self._pool is pool:
                    self._pool = None
                    pool.shutdown(wait=False, cancel_futures=True)
                return self._alone(name, work, *arguments)

    def _alone(self, name: str, work: Callable[..., _Result], *arguments: object) -> _Result | Refused:
        with _pool(1) as pool:
            started = time.monotonic()
            try:
                with interrupts_held():
                    opened = pool.submit(_within_time, self._open_s, work, *arguments)
                return opened.result()
            except BrokenProcessPool:
                if time.monotonic() - started >= self._open_s:
                    return Refused("decode_timeout", f"{name}: took longer than {self._open_s} s to open")
                return Refused("decode_crashed", f"{name}: opening it ended the process that tried")


def _pool(workers: int) -> ProcessPoolExecutor:
    # Never fork: a thread of the parent may hold a lock that the child would wait for.
    return ProcessPoolExecutor(
        workers, mp_context=multiprocessing.get_context("spawn"), initializer=follow_parent
    )


def follow_parent() -> None:
    """End with the parent: a worker's own queue would never tell of a kill -9."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_end_with, args=(parent,), name="parent", daemon=True).start()


def _end_with(parent: BaseProcess) -> None:
    parent.join()
    os._exit(1)


def _within_time(seconds: int, work: Callable[..., _Result], *arguments: object) -> _Result:
    # The alarm's default ends the process, also inside a decoder written in C.
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.alarm(seconds)
    try:
        return work(*arguments)
    finally:
        signal.alarm(0)
