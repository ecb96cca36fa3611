"""PDQ: a 256-bit hash of how a picture looks, for lists that name pictures so.

Re-encoded, resized, darkened or grey, a picture keeps all but a few bits; cropped, it gets another hash.
Two hashes match at up to 31 differing bits. A mirrored or turned copy is found since a picture is looked
for by its eight turnings.

Source: Dalins, Wilson and Boudry, "PDQ & TMK + PDQF", 2019, and its reference in facebook/ThreatExchange.
Written anew in NumPy; unlike the reference, a large picture is first brought down to 512 pixels a side.
"""

from functools import lru_cache

import numpy as np
import numpy.typing as npt
from PIL import Image

MIN_QUALITY = 50
"""A flatter picture gets no hash: it would match anything as flat."""

_SIDE = 64
_BITS = 16
_LARGEST_PX = 512

_Floats = npt.NDArray[np.float32]

_COSINES: _Floats = (
    np.sqrt(2 / _SIDE)
    * np.cos(np.pi / (2 * _SIDE) * np.outer(np.arange(1, _BITS + 1), 2 * np.arange(_SIDE) + 1))
).astype(np.float32)


def pdq(image: Image.Image) -> tuple[str, ...]:
    """The hashes of a picture's eight rotations and mirrorings, 64 hex digits each, as it stands first.

    Args:
        image: Mode RGB or L.

    Returns:
        Eight hashes; none where the picture is too flat.
    """
    if max(image.size) > _LARGEST_PX:
        factor = _LARGEST_PX / max(image.size)
        size = (max(1, round(image.width * factor)), max(1, round(image.height * factor)))
        image = image.resize(size, Image.Resampling.BOX)
    luma = np.asarray(image.convert("L"), dtype=np.float32)
    down, across = (_smoothing(n) for n in luma.shape)
    # What smooths the mirrored picture is what smooths the picture, read from its other end.
    rows = [each @ luma for each in (down, down[:, ::-1])]
    samples: list[_Floats] = [
        (each @ columns.T).astype(np.float32) for each in rows for columns in (across, across[:, ::-1])
    ]
    if _quality(samples[0]) < MIN_QUALITY:
        return ()
    return tuple(_hash(turned) for each in samples for turned in (each, each.T))


def _hash(samples: _Floats) -> str:
    waves = _COSINES @ samples @ _COSINES.T
    bits = (waves > np.sort(waves, axis=None)[(waves.size - 1) // 2]).reshape(-1)
    return np.packbits(bits[::-1]).tobytes().hex()


@lru_cache(maxsize=64)
def _smoothing(n: int) -> _Floats:
    """What takes n values to 64 samples of them, smoothed by two passes of a box, as a matrix of shape (64, n)."""
    window = (n + 2 * _SIDE - 1) // (2 * _SIDE)
    after = (window + 2) // 2
    at = np.arange(n)
    low = np.maximum(at + after - window, 0)[:, None]
    high = np.minimum(at + after, n)[:, None]  # at the ends the mean is over what is there
    box = ((at >= low) & (at < high)) / (high - low)
    samples = ((np.arange(_SIDE) + 0.5) * n / _SIDE).astype(np.int64)
    return np.ascontiguousarray(box[samples] @ box, dtype=np.float32)


def _quality(small: _Floats) -> int:
    """How much there is to be seen, 0 to 100."""
    steps = sum(
        int(np.abs(np.trunc(np.diff(small, axis=axis) * np.float32(100 / 255))).sum()) for axis in (0, 1)
    )
    return min(steps // 90, 100)
