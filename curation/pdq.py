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

LARGEST_PX = 512
"""Longer side that is looked at: a larger picture is brought down to it."""

_SIDE = 64
_BITS = 16

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
    if max(image.size) > LARGEST_PX:
        factor = LARGEST_PX / max(image.size)
        size = (max(1, round(image.width * factor)), max(1, round(image.height * factor)))
        image = image.resize(size, Image.Resampling.BOX)
    luma = np.asarray(image.convert("L"), dtype=np.float32)
    # What smooths the mirrored picture is what smooths the picture, read from its other end.
    rows = [np.ascontiguousarray(_smoothed(luma, upside_down).T) for upside_down in (False, True)]
    samples = [_smoothed(each, mirrored).T for each in rows for mirrored in (False, True)]
    if _quality(samples[0]) < MIN_QUALITY:
        return ()
    return tuple(_hash(turned) for each in samples for turned in (each, each.T))


def _hash(samples: _Floats) -> str:
    waves = _COSINES @ samples @ _COSINES.T
    bits = (waves > np.sort(waves, axis=None)[(waves.size - 1) // 2]).reshape(-1)
    return np.packbits(bits[::-1]).tobytes().hex()


def _smoothed(values: _Floats, from_end: bool) -> _Floats:
    """64 samples of the rows after two passes of a box over them, shape (64, columns).

    Weighted sums of a few rows each: a product of matrices would start BLAS's threads in every worker.
    """
    places, weights = _smoothing(len(values))
    taken = values[len(values) - 1 - places if from_end else places]
    summed: _Floats = np.einsum("stc,st->sc", taken, weights)
    return summed


@lru_cache(maxsize=256)
def _smoothing(n: int) -> tuple[npt.NDArray[np.int64], _Floats]:
    """Of n rows those that each of the 64 samples takes, and how much of each; both of shape (64, taken)."""
    window = (n + 2 * _SIDE - 1) // (2 * _SIDE)
    after = (window + 2) // 2
    low = [max(at + after - window, 0) for at in range(n)]
    high = [min(at + after, n) for at in range(n)]  # at the ends the mean is over what is there
    weights = np.zeros((_SIDE, n))
    for sample in range(_SIDE):
        middle = int((sample + 0.5) * n / _SIDE)
        for at in range(low[middle], high[middle]):
            share = 1 / (high[middle] - low[middle]) / (high[at] - low[at])
            weights[sample, low[at] : high[at]] += share
    taken = int((weights > 0).sum(axis=1).max())
    first = np.minimum((weights > 0).argmax(axis=1), n - taken)
    places = first[:, None] + np.arange(taken)
    return places, np.take_along_axis(weights, places, axis=1).astype(np.float32)


def _quality(small: _Floats) -> int:
    """How much there is to be seen, 0 to 100."""
    steps = sum(
        int(np.abs(np.trunc(np.diff(small, axis=axis) * np.float32(100 / 255))).sum()) for axis in (0, 1)
    )
    return min(steps // 90, 100)
