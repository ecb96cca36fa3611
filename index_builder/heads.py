"""Heads that score embeddings, read from LAION's own files without TensorFlow or code from them.

| file | form | scale |
|---|---|---|
| sa_0_4_*_linear.pth | LAION-Aesthetics V1: one linear layer | about 0 to 10 |
| sac+logos+ava1-*.pth | LAION-Aesthetics V2: linear layers with nothing between, so one linear map | 1 to 10 |
| weight and bias in .npz | such a map | as the file's source |
| norm_mean, dense_0_kernel, ... in .npz | CLIP-based-NSFW-Detector as plain arrays | probability |

The NSFW detector takes a few columns as categories: it prints the value with six decimals and looks it
up. It so depends on embeddings being exactly as stored, in float16; from float32 nearly every look-up
fails, silently. Heads therefore score what is stored, not renormalised. They calculate in float64, so that
a score doesn't depend on how many rows are scored together, as it would in the last bit of float32.
"""

import hashlib
import io
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import numpy.typing as npt

from spine.config import DEMO
from spine.errors import ModelError
from spine.tables import Vectors

Kind = Literal["aesthetic", "unsafe", "watermark"]
Floats = npt.NDArray[np.float32]

DEMO_HEADS = Path(__file__).parent / "models" / "demo-heads"
"""The small world's heads."""

_DEMO_FILES: dict[Kind, str] = {
    "aesthetic": "aesthetic_linear.pth",
    "unsafe": "unsafe.npz",
    "watermark": "watermark.npz",
}
_SIZE_LIMIT = 200_000_000  # bytes of a head's file


class Head(Protocol):
    """Scores embeddings of one dimension."""

    @property
    def name(self) -> str:
        """File and first 8 hex digits of its SHA-256: what a score names as its model."""

    @property
    def d(self) -> int:
        """Dimension of the embeddings it scores."""

    def score(self, vectors: Vectors) -> Floats:
        """Score embeddings (n, d), float32 with float16-exact values as stored; returns (n,)."""


@dataclass(frozen=True, slots=True)
class LinearHead:
    """score = weight . embedding + bias."""

    name: str
    weight: Floats
    """Shape (d,)."""
    bias: float

    @property
    def d(self) -> int:
        """Dimension of the embeddings it scores."""
        return len(self.weight)

    def score(self, vectors: Vectors) -> Floats:
        """Score embeddings (n, d); returns (n,)."""
        return (vectors.astype(np.float64) @ self.weight + self.bias).astype(np.float32)


@dataclass(frozen=True, slots=True)
class CategoryHead:
    """A small network over normalised columns, some of which are categories; gives a probability."""

    name: str
    mean: Floats
    deviation: Floats
    vocabularies: Mapping[int, Mapping[str, int]]
    """Column to its printed values, each with its number from 1."""
    layers: tuple[tuple[Floats, Floats], ...]
    """Kernel (in, out) and bias (out,) of each dense layer; ReLU between, a sigmoid at the end."""

    @property
    def d(self) -> int:
        """Dimension of the embeddings it scores."""
        return len(self.mean)

    def score(self, vectors: Vectors) -> Floats:
        """Probability for embeddings (n, d), values as stored in float16; returns (n,), 0 to 1."""
        hidden = np.nan_to_num(vectors.astype(np.float64), nan=0.0, posinf=np.inf, neginf=-np.inf)
        for column, vocabulary in self.vocabularies.items():
            hidden[:, column] = [vocabulary.get(f"{value:.6f}", 0) for value in vectors[:, column].tolist()]
        hidden = (hidden - self.mean) / self.deviation
        for kernel, bias in self.layers[:-1]:
            hidden = np.maximum(hidden @ kernel + bias, 0)
        kernel, bias = self.layers[-1]
        logits = np.clip((hidden @ kernel + bias)[:, 0], -88, 88)  # beyond, float32 is 0 or 1
        probability: Floats = (1 / (1 + np.exp(-logits))).astype(np.float32)
        return probability


def head_name(source: str, kind: Kind) -> str | None:
    """What scores of this head name as their model; None where no head is given. Reads the file, loads nothing.

    Raises:
        ModelError: The file is missing.
    """
    return _named(source, kind)[1] if source else None


def load_head(source: str, kind: Kind, d: int | None = None) -> Head:
    """Read a head.

    Args:
        source: Path of a .pth or .npz in one of LAION's forms; "demo" is the small world's.
        kind: Which score it is meant for.
        d: Dimension of the embeddings it will score; None leaves it unchecked.

    Raises:
        ModelError: The file is missing, is none of the known forms, or doesn't fit d.
    """
    path, name, content = _named(source, kind)
    head = _head(name, path, content)
    if d is not None and head.d != d:
        raise ModelError(
            f"{path}: this {kind} head scores embeddings of d = {head.d}, the CLIP model gives d = {d}; "
            f"use the head trained for that model, or another [clip] model"
        )
    return head


def load_rating_vector(source: str, rating: int, d: int | None = None) -> Floats:
    """The mean embedding of pictures with one aesthetic rating, to shift queries towards beauty.

    Args:
        source: Folder with rating0.npy to rating9.npy; "demo" is the small world's.
        rating: 0 to 9.
        d: Dimension of the queries; None leaves it unchecked.

    Returns:
        Shape (d,), float32, of L2 norm 1.

    Raises:
        ModelError: The file is missing, holds something else, or doesn't fit d.
    """
    if not 0 <= rating <= 9:
        raise ModelError(f"rating {rating} is none of 0 to 9")
    folder = DEMO_HEADS / "ratings" if source == DEMO else Path(source).expanduser()
    path = folder / f"rating{rating}.npy"
    content = _read(path, "[score] aesthetic_query_vectors")
    try:
        vector = np.load(io.BytesIO(content), allow_pickle=False).astype(np.float32).reshape(-1)
    except (ValueError, OSError, EOFError) as error:
        raise ModelError(f"{path}: no array of numbers ({error})") from None
    norm = float(np.linalg.norm(vector))
    if not np.isfinite(norm) or norm < 1e-6:
        raise ModelError(f"{path}: its norm is {norm}, a unit vector was needed")
    if d is not None and len(vector) != d:
        raise ModelError(
            f"{path}: d = {len(vector)}, the queries have d = {d}; use the vectors made for that CLIP model"
        )
    unit: Floats = vector / np.float32(norm)
    return unit


def _named(source: str, kind: Kind) -> tuple[Path, str, bytes]:
    path = DEMO_HEADS / _DEMO_FILES[kind] if source == DEMO else Path(source).expanduser()
    content = _read(path, f"[score] {kind}_head")
    stem = f"demo-{kind}" if source == DEMO else path.stem
    return path, f"{stem}-{hashlib.sha256(content).hexdigest()[:8]}", content


def _read(path: Path, setting: str) -> bytes:
    try:
        if path.stat().st_size > _SIZE_LIMIT:
            raise ModelError(f"{path}: larger than {_SIZE_LIMIT:,} bytes; that is no scorer head")
        return path.read_bytes()
    except OSError as error:
        raise ModelError(f"{path}: {error.strerror}; {setting} names it") from None


def _head(name: str, path: Path, content: bytes) -> Head:
    arrays = _torch_arrays(path, content) if path.suffix == ".pth" else _npz_arrays(path, content)
    bad = [key for key, array in arrays.items() if array.dtype.kind == "f" and not np.isfinite(array).all()]
    if bad:
        raise ModelError(f"{path}: {bad[0]} holds values that are no finite numbers; get the file again")
    try:
        if "norm_mean" in arrays:
            return _category_head(name, arrays)
        return _linear_head(name, arrays)
    except (KeyError, ValueError, IndexError) as error:
        known = "a linear layer, a stack of linear layers, or the NSFW detector's arrays"
        raise ModelError(
            f"{path}: not {known} ({error}); it holds {', '.join(sorted(arrays)[:12])}"
        ) from None


def _torch_arrays(path: Path, content: bytes) -> dict[str, npt.NDArray[Any]]:
    import pickle

    import torch

    try:
        state = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)  # runs no code
    except (pickle.UnpicklingError, RuntimeError, ValueError, EOFError, OSError, KeyError) as error:
        raise ModelError(f"{path}: no plain weights ({str(error).splitlines()[0]})") from None
    if not isinstance(state, dict) or not all(isinstance(value, torch.Tensor) for value in state.values()):
        raise ModelError(f"{path}: it holds more than tensors by name; only plain weights are taken")
    return {str(key): value.to(torch.float32).numpy() for key, value in state.items()}


def _npz_arrays(path: Path, content: bytes) -> dict[str, npt.NDArray[Any]]:
    try:
        with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
            return {key: arrays[key] for key in arrays.files}
    except (ValueError, OSError, EOFError, KeyError, AttributeError, zipfile.BadZipFile) as error:
        raise ModelError(f"{path}: no .npz of plain arrays ({error})") from None


def _linear_head(name: str, arrays: Mapping[str, npt.NDArray[Any]]) -> LinearHead:
    """One map from a linear layer, or from the product of a stack of them."""
    if "weight" in arrays:
        weight, bias = arrays["weight"].astype(np.float64).reshape(-1), arrays["bias"]
        return LinearHead(name, weight.astype(np.float32), float(bias.reshape(-1)[0]))
    numbers = sorted(
        int(key.split(".")[1]) for key in arrays if key.startswith("layers.") and key.endswith(".weight")
    )
    total = np.eye(arrays[f"layers.{numbers[0]}.weight"].shape[1])
    shift = np.zeros(len(total))
    for number in numbers:
        layer = arrays[f"layers.{number}.weight"].astype(np.float64)
        total, shift = layer @ total, layer @ shift + arrays[f"layers.{number}.bias"]
    if total.shape[0] != 1:
        raise ValueError(f"{total.shape[0]} outputs, 1 was needed")
    return LinearHead(name, total[0].astype(np.float32), float(shift[0]))


def _category_head(name: str, arrays: Mapping[str, npt.NDArray[Any]]) -> CategoryHead:
    mean = arrays["norm_mean"].astype(np.float32)
    # The variance's floor is AutoKeras's epsilon.
    deviation = np.maximum(np.sqrt(arrays["norm_var"].astype(np.float32)), np.float32(1e-7))
    vocabularies = {
        int(column): {str(value): place for place, value in enumerate(arrays[f"vocab_{column}"].tolist(), 1)}
        for column in arrays["cat_columns"].tolist()
    }
    count = sum(key.endswith("_kernel") for key in arrays)
    layers = tuple(
        (
            arrays[f"dense_{number}_kernel"].astype(np.float32),
            arrays[f"dense_{number}_bias"].astype(np.float32),
        )
        for number in range(count)
    )
    widths = [len(mean), *(kernel.shape[1] for kernel, _ in layers)]
    if widths[1:] != [len(bias) for _, bias in layers] or widths[-1] != 1 or not layers:
        raise ValueError("its layers don't fit together")
    if widths[:-1] != [kernel.shape[0] for kernel, _ in layers] or not all(
        c < len(mean) for c in vocabularies
    ):
        raise ValueError("its layers don't fit together")
    return CategoryHead(name, mean, deviation, vocabularies, layers)
