"""demo-clip as production loads it: the very calls that load ("ViT-L-14", "openai")."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from spine.torchvision_ops import declare_missing_operators


class DemoClip:
    """open_clip's model, preprocessing and tokenizer from a folder."""

    def __init__(self, folder: Path) -> None:
        declare_missing_operators()
        import open_clip

        self.model, _, self.preprocess = open_clip.create_model_and_transforms(f"local-dir:{folder}")
        self.tokenizer = open_clip.get_tokenizer(f"local-dir:{folder}")
        self.model.eval()

    def images(self, pictures: Iterable[Image.Image], batch: int = 128) -> NDArray[np.float32]:
        """Unit embeddings, shape (n, d), rounded to float16 as they are stored, given as float32."""
        waiting: list[Any] = []
        rows: list[NDArray[np.float32]] = []
        for picture in pictures:
            waiting.append(self.preprocess(picture))
            if len(waiting) == batch:
                rows.append(self._encode(waiting))
                waiting = []
        rows += [self._encode(waiting)] if waiting else []
        return np.concatenate(rows).astype(np.float16).astype(np.float32)

    def texts(self, texts: list[str]) -> NDArray[np.float32]:
        """Unit embeddings of texts, shape (n, d), float32."""
        with torch.inference_mode():
            parts = [
                self.model.encode_text(self.tokenizer(texts[k : k + 128]), normalize=True)
                for k in range(0, len(texts), 128)
            ]
        return np.asarray(torch.cat(parts).float())

    def _encode(self, tensors: list[Any]) -> NDArray[np.float32]:
        with torch.inference_mode():
            return np.asarray(self.model.encode_image(torch.stack(tensors), normalize=True).float())
