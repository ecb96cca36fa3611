"""Multi-CLIP: texts of a hundred languages in the space of a CLIP model's pictures.

An XLM-RoBERTa whose mean output a linear layer turns into CLIP's space. Its checkpoints hold config.json (with the
name of the base model), the tokenizer, and the weights of both parts.

Source: Carlsson et al., "Cross-lingual and Multilingual CLIP", LREC 2022; github.com/FreddeFrallan/Multilingual-CLIP.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from spine.errors import ModelError
from spine.tables import Vectors

MAX_TOKENS = 512
"""What XLM-RoBERTa reads of a text."""

_FILES = ("*.json", "*.safetensors", "*.bin", "*.model")
_HEAD = "LinearTransformation."
_BODY = "transformer."


class MultilingualText:
    """A loaded Multi-CLIP model.

    Attributes:
        d: Dimension of its vectors.
    """

    def __init__(self, transformer: Any, head: Any, tokenizer: Any) -> None:
        self._transformer, self._head, self._tokenizer = transformer, head, tokenizer
        self.d = int(head.out_features)

    @classmethod
    def load(cls, source: str) -> "MultilingualText":
        """Load a checkpoint.

        Args:
            source: A folder, or a name on the hub such as M-CLIP/XLM-Roberta-Large-Vit-L-14.

        Raises:
            ModelError: It isn't there and can't be fetched, or is no such checkpoint.
        """
        from spine.torchvision_ops import declare_missing_operators

        declare_missing_operators()
        import torch
        import transformers

        try:
            folder = _folder(source)
            base = json.loads((folder / "config.json").read_text(encoding="utf-8"))["modelBase"]
            local = folder / str(base)  # beside the checkpoint, where there is no hub
            config = transformers.AutoConfig.from_pretrained(str(local) if local.is_dir() else base)
            transformer = transformers.AutoModel.from_config(config)
            weights = _weights(folder)
            # What older releases of transformers stored besides.
            body = {
                name.removeprefix(_BODY): value
                for name, value in weights.items()
                if name.startswith(_BODY) and not name.endswith("position_ids")
            }
            transformer.load_state_dict(body)
            d, inside = weights[f"{_HEAD}weight"].shape
            head = torch.nn.Linear(inside, d)
            head.load_state_dict({name: weights[f"{_HEAD}{name}"] for name in ("weight", "bias")})
            tokenizer = transformers.AutoTokenizer.from_pretrained(str(folder))
        except (OSError, RuntimeError, ValueError, KeyError, TypeError) as error:
            said = " ".join(str(error).split())[:300]
            help_ = "name an M-CLIP checkpoint: a folder, or on the hub"
            raise ModelError(f"multilingual model {source} can't be loaded ({said}); {help_}") from None
        return cls(transformer.eval(), head.eval(), tokenizer)

    def encode_texts(self, texts: Sequence[str]) -> Vectors:
        """Embed texts; longer ones than the model reads are cut.

        Returns:
            Shape (n, d), float32, rows of L2 norm 1.
        """
        import torch

        tokens = self._tokenizer(
            list(texts), padding=True, truncation=True, max_length=MAX_TOKENS, return_tensors="pt"
        )
        with torch.inference_mode():
            outputs = self._transformer(**tokens)[0]
            said = tokens["attention_mask"].unsqueeze(2)
            mean = (outputs * said).sum(dim=1) / said.sum(dim=1)
            vectors = self._head(mean).float().numpy()
        unit: Vectors = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
        return unit


def _folder(source: str) -> Path:
    if Path(source).expanduser().is_dir():
        return Path(source).expanduser()
    import huggingface_hub

    return Path(huggingface_hub.snapshot_download(source, allow_patterns=list(_FILES)))


def _weights(folder: Path) -> dict[str, Any]:
    if (folder / "model.safetensors").is_file():
        from safetensors.torch import load_file

        return dict(load_file(folder / "model.safetensors"))
    import torch

    return dict(torch.load(folder / "pytorch_model.bin", map_location="cpu", weights_only=True))
