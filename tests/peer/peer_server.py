"""Starts clip-retrieval's own back end on the loopback. Run by the interpreter of the peer's environment.

Where it would download a model, it gets the files that our server gets: the aesthetic, violence and safety
vectors beside indices_paths.json, and the demo CLIP where an entry's clip_model is "demo". Routes, search,
filters, metadata and metrics are its own.
"""

import importlib
import json
import sys
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from spine.torchvision_ops import declare_missing_operators  # noqa: E402

declare_missing_operators()

import all_clip  # noqa: E402
import flask  # noqa: E402

back = importlib.import_module("clip_retrieval.clip_back")  # the package gives this name to a function in it


class LinearSafety:
    """A safety model with one layer, called as Keras calls its own."""

    def __init__(self, path: Path) -> None:
        with np.load(path) as arrays:
            self._weight, self._bias = arrays["weight"], arrays["bias"]

    def predict(self, embeddings: np.ndarray, batch_size: int) -> np.ndarray:
        """(m, d) to (m, 1)."""
        return (embeddings.astype(np.float64) @ self._weight + self._bias)[:, None]


def load_clip(clip_model: str, **_: object) -> tuple[object, object, object]:
    """Model, preprocessing and tokenizer."""
    if clip_model != "demo":
        return None, None, None  # embedding queries only
    import open_clip
    import torch
    from tokenizers import Tokenizer

    folder = ROOT / "index_builder" / "models" / "demo-clip"
    model, _, preprocess = open_clip.create_model_and_transforms(f"local-dir:{folder}")
    # Its transformers is older than the one that wrote the tokenizer's settings.
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    length = model.context_length
    tokenizer.enable_padding(length=length, pad_id=tokenizer.token_to_id("<pad>"), pad_token="<pad>")
    tokenizer.enable_truncation(length)

    def tokens(texts: list[str]) -> torch.Tensor:
        return torch.tensor([each.ids for each in tokenizer.encode_batch(texts)])

    return model.eval(), preprocess, tokens


def main(indices: Path, port: int) -> None:
    """Serve until killed."""
    models = indices.parent / "models"
    all_clip.load_clip = load_clip
    back.get_aesthetic_embedding = lambda _: {k: np.load(models / f"rating{k}.npy")[None] for k in range(10)}
    back.load_violence_detector = lambda _: np.load(models / "violence.npy")
    back.load_safety_model = lambda _: LinearSafety(models / "unsafe.npz")
    run = flask.Flask.run
    flask.Flask.run = lambda self, host=None, port=None, **more: run(
        self, host="127.0.0.1", port=port, **more
    )
    back.clip_back(indices_paths=str(indices), port=port, enable_mclip_option=False, use_jit=False)


def ask_as_client(url: str) -> None:
    """Answer each line of stdin, {"client": {...}, "query": {...}}, with what ClipClient returns."""
    from clip_retrieval.clip_client import ClipClient, Modality

    for line in sys.stdin:
        asked = json.loads(line)
        options = asked["client"] | {"modality": Modality(asked["client"].get("modality", "image"))}
        print(json.dumps(ClipClient(url=url, **options).query(**asked["query"])), flush=True)


if __name__ == "__main__":
    if sys.argv[1] == "client":
        ask_as_client(sys.argv[2])
    else:
        main(Path(sys.argv[1]), int(sys.argv[2]))
