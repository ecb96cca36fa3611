"""CLIP's preprocessing in Pillow and NumPy alone.

The same as open_clip's own transform, number for number, but without torch: the processes that decode
pictures start in a moment and stay small, and they hand over bytes, a quarter of the floats' size.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from spine.errors import ModelError

Pixels = npt.NDArray[np.float32]
"""What a model takes: shape (n, 3, height, width)."""

Crop = npt.NDArray[np.uint8]
"""One picture at the model's size, shape (height, width, 3)."""

_MANY_PIXELS = 30_000_000  # of a resized picture before its crop: 90 MB

_FILTERS = {"bicubic": Image.Resampling.BICUBIC, "bilinear": Image.Resampling.BILINEAR}


@dataclass(frozen=True, slots=True)
class Preprocessing:
    """What a CLIP model wants done to a picture before it looks at it."""

    height: int
    width: int
    mean: tuple[float, float, float]
    """Of each channel on the scale 0 to 1."""
    std: tuple[float, float, float]
    interpolation: str
    """bicubic or bilinear."""
    resize_mode: str
    """shortest: scale the shorter side and cut out the centre; longest: fit and pad; squash: neither."""
    fill_color: int
    """Grey that pads in mode longest."""

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> "Preprocessing":
        """From open_clip's preprocess_cfg.

        Raises:
            ModelError: It asks for something unknown here.
        """
        size = config["size"]
        height, width = (size, size) if isinstance(size, int) else (int(size[-2]), int(size[-1]))
        interpolation, mode = str(config["interpolation"]), str(config["resize_mode"])
        if interpolation not in _FILTERS or mode not in ("shortest", "longest", "squash"):
            raise ModelError(
                f"preprocessing with {interpolation} and {mode} is unknown; use another CLIP model"
            )
        mean, std = _three(config["mean"]), _three(config["std"])
        return cls(height, width, mean, std, interpolation, mode, int(config.get("fill_color", 0)))

    def crop(self, image: Image.Image) -> Crop:
        """A picture at the model's size: RGB bytes, shape (height, width, 3)."""
        picture = image if image.mode == "RGB" else image.convert("RGB")
        if self.resize_mode == "squash":
            return np.asarray(self._resize(picture, self.width, self.height))
        if self.resize_mode == "longest":
            ratio = max(picture.height / self.height, picture.width / self.width)
            small = self._resize(picture, round(picture.width / ratio), round(picture.height / ratio))
            padded = Image.new("RGB", (self.width, self.height), (self.fill_color,) * 3)
            padded.paste(small, ((self.width - small.width) // 2, (self.height - small.height) // 2))
            return np.asarray(padded)
        width, height = self._shortest(picture.size)
        left, top = round((width - self.width) / 2.0), round((height - self.height) / 2.0)
        box = (left, top, left + self.width, top + self.height)
        if width * height <= _MANY_PIXELS:
            return np.asarray(self._resize(picture, width, height).crop(box))
        # A strip of 30,000 x 1 pixels would be blown up to gigabytes, to be thrown away by the crop:
        # there the part is resized alone, which may differ in the last bit.
        scale_x, scale_y = picture.width / width, picture.height / height
        part = (box[0] * scale_x, box[1] * scale_y, box[2] * scale_x, box[3] * scale_y)
        return np.asarray(picture.resize((self.width, self.height), _FILTERS[self.interpolation], box=part))

    def normalise(self, crops: npt.NDArray[np.uint8]) -> Pixels:
        """Crops (n, height, width, 3) as the model takes them, shape (n, 3, height, width)."""
        mean, std = (np.array(values, dtype=np.float32)[:, None, None] for values in (self.mean, self.std))
        normalised = np.empty((len(crops), 3, self.height, self.width), dtype=np.float32)
        # One picture at a time, where it lies: all at once take four times as long, and copies of all as floats.
        for crop, pixels in zip(crops, normalised, strict=True):
            np.divide(crop.transpose(2, 0, 1), np.float32(255), out=pixels, dtype=np.float32)
            pixels -= mean
            pixels /= std
        return normalised

    def __call__(self, image: Image.Image) -> Pixels:
        """One picture as the model takes it, shape (3, height, width)."""
        pixels: Pixels = self.normalise(self.crop(image)[None])[0]
        return pixels

    def _shortest(self, size: tuple[int, int]) -> tuple[int, int]:
        """Width and height once the picture just covers the model's size; torchvision's own rounding."""
        width, height = size
        if self.width == self.height:
            if width <= height:
                return self.width, int(self.width * height / width)
            return int(self.height * width / height), self.height
        ratio = min(height / self.height, width / self.width)
        return round(width / ratio), round(height / ratio)

    def _resize(self, picture: Image.Image, width: int, height: int) -> Image.Image:
        return picture.resize((max(1, width), max(1, height)), _FILTERS[self.interpolation])


def _three(values: Any) -> tuple[float, float, float]:
    numbers = [float(value) for value in values] if isinstance(values, list | tuple) else [float(values)] * 3
    return numbers[0], numbers[1], numbers[2]
