"""Crops embedded as they come, a full step at a time."""

from typing import Protocol

import numpy as np

from index_builder.encoding.preprocessing import Crop, Pixels, Preprocessing
from spine.tables import Vectors


class Encodes(Protocol):
    """A model that makes a row of numbers of each picture."""

    preprocess: Preprocessing
    d: int

    def encode_images(self, pixels: Pixels, *, steady: bool = False) -> Vectors:
        """Rows (n, d) for pictures (n, 3, height, width)."""


class CropEncoding:
    """Embeds crops as they come, a full step at a time, so that a shard's pictures needn't lie in memory.

    Steps begin anew with each `take`: the shard's embeddings so depend on the shard alone, and a stage
    that goes on after a kill makes the same ones.
    """

    def __init__(self, encoder: "Encodes", batch_size: int) -> None:
        self._encoder = encoder
        self._batch_size = batch_size
        self._crops: list[Crop] = []
        self._found: list[Vectors] = []

    def add(self, crop: Crop) -> None:
        """One more picture."""
        self._crops.append(crop)
        if len(self._crops) >= self._batch_size:
            self._encode()

    def take(self) -> Vectors:
        """Embeddings of all pictures since the last call, in their order: shape (n, d), float32."""
        if self._crops:
            self._encode()
        found, self._found = self._found, []
        return np.concatenate(found) if found else np.empty((0, self._encoder.d), dtype=np.float32)

    def _encode(self) -> None:
        pixels = self._encoder.preprocess.normalise(np.stack(self._crops))
        self._crops = []
        self._found.append(self._encoder.encode_images(pixels, steady=True))
