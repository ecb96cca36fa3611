"""Thumbnails by the SHA-256 of the picture, made in processes that can be killed, kept in memory and in a cache.

Decoders are the part of a program that pictures from strangers attack first: they run in processes of
their own, with limits on time and memory.
"""

import contextlib
import os
import threading
import uuid
import zlib
from collections import OrderedDict
from pathlib import Path

from spine.errors import DataError, ImageError
from spine.images import thumbnail
from spine.places import read_bytes
from spine.refused import Refused
from spine.workers import PictureWorkers

SIDE_PX = 256
"""Longer side of a thumbnail."""

DECODERS = max(2, min(4, (os.cpu_count() or 2) - 1))
"""Processes that open pictures: a screen of new ones waits for them, and a core is left to those who ask."""

_MEMORY_BYTES = 64_000_000
_CHECKSUM_BYTES = 4


class Thumbnails:
    """Thumbnails of a run, made once. Used from several threads."""

    def __init__(self, cache: Path, *, decoders: int = DECODERS, time_limit_s: float = 10.0) -> None:
        """Args: cache: Folder of those made before. decoders: Processes. time_limit_s: For one picture."""
        self._cache = cache
        self._decoders = PictureWorkers(decoders, time_limit_s)
        self._lock = threading.Lock()
        self._recent: OrderedDict[str, bytes] = OrderedDict()
        self._recent_bytes = 0

    def get(self, sha256: str, place: str, *, blurred: bool, side_px: int | None = None) -> bytes:
        """The thumbnail of the picture with this hash, as WebP.

        Args:
            sha256: Of the picture's bytes.
            place: Where they are.
            blurred: A blurred thumbnail is a picture of its own, so that no clear pixel travels with it.
            side_px: Longer side; None for SIDE_PX. Other sizes are not kept on disk.

        Raises:
            DataError: The picture can't be opened.
        """
        name = f"{sha256}.blurred.webp" if blurred else f"{sha256}.webp"
        if side_px is not None:
            name = f"{side_px}.{name}"
        with self._lock:
            content = self._recent.get(name)
            if content is not None:
                self._recent.move_to_end(name)
                return content
        path = self._cache / sha256[:2] / name
        content = _kept(path)
        if content is None:
            content = self._make(place, side_px or SIDE_PX, blurred)
            if side_px is None:
                with contextlib.suppress(OSError):  # a full disk: it is made again the next time
                    _keep(path, content)
        self._remember(name, content)
        return content

    def close(self) -> None:
        """Stop the decoders, once each has done what it is at."""
        self._decoders.close()

    def _make(self, place: str, side_px: int, blurred: bool) -> bytes:
        made = self._decoders.ask(place, _made, place, side_px, blurred)
        if isinstance(made, Refused):
            raise DataError(made.message)
        return made

    def _remember(self, name: str, content: bytes) -> None:
        with self._lock:
            self._recent_bytes += len(content) - len(self._recent.pop(name, b""))
            self._recent[name] = content
            while self._recent_bytes > _MEMORY_BYTES:
                self._recent_bytes -= len(self._recent.popitem(last=False)[1])


def _made(place: str, side_px: int, blurred: bool) -> bytes | Refused:
    try:
        return thumbnail(read_bytes(place), side_px, blurred=blurred)
    except ImageError as error:
        return Refused(error.reason, str(error))
    except MemoryError:
        return Refused("out_of_memory", f"{place}: more memory is needed than a picture may take")


def _kept(path: Path) -> bytes | None:
    """What `_keep` wrote there; None where there is nothing, or nothing whole."""
    try:
        held = path.read_bytes()
    except FileNotFoundError:
        return None
    content, checksum = held[:-_CHECKSUM_BYTES], held[-_CHECKSUM_BYTES:]
    return content if content and checksum == _checksum(content) else None


def _keep(path: Path, content: bytes) -> None:
    """Write it with a checksum behind it, and leave it to the system when it reaches the disk.

    Waiting for the disk took longer than making the picture. What a crash of the machine leaves damaged is made again.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}{uuid.uuid4().hex[:12]}")
    try:
        temporary.write_bytes(content + _checksum(content))
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _checksum(content: bytes) -> bytes:
    return zlib.crc32(content).to_bytes(_CHECKSUM_BYTES, "little")
