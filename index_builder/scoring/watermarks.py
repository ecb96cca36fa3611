"""Watermarks where the pool says nothing of them: LAION's classifier on the pixels, or CLIP's own guess from words.

LAION's classifier is an EfficientNet-B3a whose last layer was replaced by three; it looks at the whole picture,
squashed to 256 x 256 pixels. Whoever has no weights of it gets a zero-shot score, which is named so: CLIP's
similarity to words for a watermark against words for none. It is a rough guess, better than none.

Source: LAION-AI/LAION-5B-WatermarkDetection, example_use.py.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from index_builder.encoding.clip import ClipEncoder
from index_builder.encoding.preprocessing import Pixels, Preprocessing
from index_builder.scoring.head_files import Arrays
from index_builder.scoring.heads import Floats
from spine.errors import ModelError
from spine.tables import Vectors

ZERO_SHOT = "zero-shot"
"""As [score] watermark_head: CLIP's own guess."""

WITH = ("a picture with a watermark", "a watermarked picture", "watermark")
WITHOUT = ("no watermark", "a clean picture without a watermark", "a picture without any text over it")
"""What CLIP's guess compares a picture with."""

_IMAGENET = Preprocessing(256, 256, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225), "bilinear", "squash", 0)
_BATCH = 16


@dataclass(frozen=True, slots=True)
class ZeroShotWatermarks:
    """Probability that a picture is watermarked, by words alone."""

    name: str
    direction: Floats
    """Mean embedding of WITH less that of WITHOUT, times the model's own temperature; shape (d,)."""

    @classmethod
    def of(cls, encoder: ClipEncoder) -> "ZeroShotWatermarks":
        """From the words' embeddings by the model that made the pictures'."""
        with_, without = (_middle(encoder.encode_texts(texts)) for texts in (WITH, WITHOUT))
        return cls(zero_shot_name(encoder.name), (encoder.logit_scale * (with_ - without)).astype(np.float32))

    @property
    def d(self) -> int:
        """Dimension of the embeddings it scores."""
        return len(self.direction)

    @property
    def scale(self) -> str:
        """What its numbers mean, for a person."""
        return "0 to 1, CLIP's guess from words: more similar to a watermark than to none above 0.5"

    def score(self, vectors: Vectors) -> Floats:
        """Score embeddings (n, d); returns (n,), 0 to 1."""
        logits = np.clip(vectors.astype(np.float64) @ self.direction, -88, 88)
        found: Floats = (1 / (1 + np.exp(-logits))).astype(np.float32)
        return found


def zero_shot_name(clip: str) -> str:
    """What a zero-shot score names as its model."""
    return f"zero-shot by {clip}"


def _middle(vectors: Vectors) -> Vectors:
    mean = vectors.mean(axis=0)
    middle: Vectors = mean / np.linalg.norm(mean)
    return middle


class WatermarkClassifier:
    """LAION's EfficientNet-B3a. It scores pixels as an encoder of d = 1 embeds them: crops stream through it."""

    d = 1
    scale = "probability, 0 to 1, of the whole picture at 256 x 256 pixels"

    def __init__(self, name: str, model: Any, device: str) -> None:
        self.name = name
        self.preprocess = _IMAGENET
        self._model = model
        self._device = device

    @classmethod
    def from_arrays(cls, name: str, path: Path, arrays: Arrays, device: str) -> "WatermarkClassifier":
        """Build the network around its weights.

        Raises:
            ModelError: They are not its weights.
        """
        from spine.torchvision_ops import declare_missing_operators

        declare_missing_operators()
        import timm
        import torch
        from torch import nn

        model = timm.create_model(
            "efficientnet_b3", pretrained=False, num_classes=2
        )  # formerly efficientnet_b3a
        model.classifier = nn.Sequential(
            nn.Linear(1536, 625),
            nn.ReLU(),
            nn.Dropout(0.3),
            nn.Linear(625, 256),
            nn.ReLU(),
            nn.Linear(256, 2),
        )
        try:
            model.load_state_dict({key: torch.from_numpy(value) for key, value in arrays.items()})
        except RuntimeError as error:
            said = " ".join(str(error).split())[:200]
            raise ModelError(f"{path}: not the watermark classifier's weights ({said})") from None
        return cls(name, model.eval().to(device), device)

    def encode_images(self, pixels: Pixels, *, steady: bool = False) -> Floats:
        """Probability of a watermark for pictures (n, 3, 256, 256); returns (n, 1).

        Steps are always filled up to the same size, so that a score doesn't depend on its company.
        """
        import torch

        found = [np.empty((0, 1), dtype=np.float32)]
        for start in range(0, len(pixels), _BATCH):
            batch = pixels[start : start + _BATCH]
            filling = np.zeros((_BATCH - len(batch), *batch.shape[1:]), dtype=np.float32)
            with torch.inference_mode():
                step = torch.from_numpy(np.concatenate([batch, filling])).to(self._device)
                # Of its two classes the first is "watermark".
                probability = self._model(step).float().softmax(dim=1)[: len(batch), :1]
            found.append(probability.cpu().numpy())
        return np.concatenate(found)


def is_classifier(arrays: Arrays) -> bool:
    """Whether a file's arrays are a network on pixels, not a head on embeddings."""
    return "conv_stem.weight" in arrays
