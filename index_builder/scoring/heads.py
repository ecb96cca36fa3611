"""Heads that score embeddings, read from LAION's own files without TensorFlow or code from them.

| file | form | scale |
|---|---|---|
| sa_0_4_*_linear.pth | LAION-Aesthetics V1: one linear layer | about 0 to 10 |
| sac+logos+ava1-*.pth | LAION-Aesthetics V2: linear layers with nothing between, so one linear map | 1 to 10 |
| weight and bias in .npz | such a map | as the file's source |
| clip_autokeras_*.zip | CLIP-based-NSFW-Detector for L/14 and B/32, as LAION published it | probability |
| norm_mean, dense_0_kernel, ... in .npz | the same as plain arrays | probability |
| h14_nsfw.pth | CLIP-based-NSFW-Detector for H/14: layers with ReLU between, no sigmoid at the end | about 0 to 1 |
| violence_detection_*.npy | two prompts; violent is what is nearer to the second | above 0 is violent |

The NSFW detector takes a few columns as categories: it prints the value with six decimals and looks it
up. It so depends on embeddings being exactly as stored, in float16; from float32 nearly every look-up
fails, silently. Heads therefore score what is stored, not renormalised. They calculate in float64, so that
a score doesn't depend on how many rows are scored together, as it would in the last bit of float32.
"""

import io
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import numpy.typing as npt

from index_builder.scoring.head_files import (
    digits_of,
    head_file,
    known_digest,
    rating_file,
    read_arrays,
    read_head_file,
)
from spine.config import DEMO
from spine.errors import ModelError
from spine.tables import Vectors

Kind = Literal["aesthetic", "unsafe", "watermark", "violence"]
Floats = npt.NDArray[np.float32]

DEMO_HEADS = Path(__file__).parents[1] / "models" / "demo-heads"
"""The small world's heads."""

_DEMO_FILES: dict[Kind, str] = {
    "aesthetic": "aesthetic_linear.pth",
    "unsafe": "unsafe.npz",
    "watermark": "watermark.npz",
}
_SETTINGS: dict[Kind, str] = {
    "aesthetic": "aesthetic_head",
    "unsafe": "unsafe_head",
    "watermark": "watermark_head",
    "violence": "violence_prompts",
}
_V2_LAYERS = (0, 2, 4, 6, 7)  # dropout between them, which does nothing here
_H14_LAYERS = (0, 3, 6, 9, 12, 15, 16)  # ReLU and dropout between all but the last two
_FORMS = "a linear layer, LAION's V2 or H/14 stack of layers, or the NSFW detector's arrays"


class Head(Protocol):
    """Scores embeddings of one dimension."""

    @property
    def name(self) -> str:
        """File and first 8 hex digits of its SHA-256: what a score names as its model."""

    @property
    def d(self) -> int:
        """Dimension of the embeddings it scores."""

    @property
    def scale(self) -> str:
        """What its numbers mean, for a person."""

    def score(self, vectors: Vectors) -> Floats:
        """Score embeddings (n, d), float32 with float16-exact values as stored; returns (n,)."""


@dataclass(frozen=True, slots=True)
class LinearHead:
    """score = weight . embedding + bias."""

    name: str
    weight: Floats
    """Shape (d,)."""
    bias: float
    scale: str
    """What its numbers mean, for a person."""

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

    @property
    def scale(self) -> str:
        """What its numbers mean, for a person."""
        return "probability, 0 to 1, of float16-exact embeddings"

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


@dataclass(frozen=True, slots=True)
class LayeredHead:
    """LAION's NSFW detector for H/14: ReLU behind all layers but the last two, and no sigmoid."""

    name: str
    layers: tuple[tuple[Floats, Floats], ...]
    """Kernel (in, out) and bias (out,) of each."""

    @property
    def d(self) -> int:
        """Dimension of the embeddings it scores."""
        return len(self.layers[0][0])

    @property
    def scale(self) -> str:
        """What its numbers mean, for a person."""
        return "about 0 to 1, trained as a probability without being one"

    def score(self, vectors: Vectors) -> Floats:
        """Score embeddings (n, d); returns (n,)."""
        hidden = vectors.astype(np.float64)
        for number, (kernel, bias) in enumerate(self.layers, 1):
            hidden = hidden @ kernel + bias
            if number < len(self.layers) - 1:
                hidden = np.maximum(hidden, 0)
        found: Floats = hidden[:, 0].astype(np.float32)
        return found


def open_head(source: str, kind: Kind) -> tuple[Path, str, bytes]:
    """A head's file: its path, what its scores name as their model, and its bytes.

    Raises:
        ModelError: It is missing or can't be fetched.
    """
    setting = f"[score] {_SETTINGS[kind]}"
    path = DEMO_HEADS / _DEMO_FILES[kind] if _is_demo(source, kind) else head_file(source)
    content = read_head_file(path, setting)
    stem = f"demo-{kind}" if source == DEMO else path.stem
    known = known_digest(source)
    return path, f"{known[0] if known else stem}-{digits_of(content)}", content


def head_name(source: str, kind: Kind) -> str | None:
    """What scores of this head name as their model; None where no head is given. Reads the file, loads nothing.

    Raises:
        ModelError: The file is missing.
    """
    known = known_digest(source)
    if known is not None:
        return f"{known[0]}-{known[1][:8]}"
    return open_head(source, kind)[1] if source else None


def load_head(source: str, kind: Kind, d: int | None = None) -> Head:
    """Read a head.

    Args:
        source: Path of a file in one of LAION's forms, or a name of index_builder.scoring.known_weights, whose file is
            fetched on first use; "demo" is the small world's.
        kind: Which score it is meant for.
        d: Dimension of the embeddings it will score; None leaves it unchecked.

    Raises:
        ModelError: The file is missing or can't be fetched, is none of the known forms, or doesn't fit d.
    """
    path, name, content = open_head(source, kind)
    head = _head(name, kind, path, content)
    if d is not None and head.d != d:
        raise ModelError(
            f"{path}: this {kind} head scores embeddings of d = {head.d}, the CLIP model gives d = {d}; "
            f"use the head trained for that model, or another [clip] model"
        )
    return head


def load_rating_vector(source: str, rating: int, d: int | None = None) -> Floats:
    """The mean embedding of pictures with one aesthetic rating, to shift queries towards beauty.

    Args:
        source: Folder with rating0.npy to rating9.npy, or a name of index_builder.scoring.known_weights; "demo" is the
            small world's.
        rating: 0 to 9.
        d: Dimension of the queries; None leaves it unchecked.

    Returns:
        Shape (d,), float32, of L2 norm 1.

    Raises:
        ModelError: The file is missing, holds something else, or doesn't fit d.
    """
    if not 0 <= rating <= 9:
        raise ModelError(f"rating {rating} is none of 0 to 9")
    path = rating_file(str(DEMO_HEADS / "ratings") if source == DEMO else source, rating)
    content = read_head_file(path, "[score] aesthetic_query_vectors")
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


def _is_demo(source: str, kind: Kind) -> bool:
    if source == DEMO and kind not in _DEMO_FILES:
        raise ModelError(f"[score] {_SETTINGS[kind]}: the small world has no {kind} head; name a file")
    return source == DEMO


def _head(name: str, kind: Kind, path: Path, content: bytes) -> Head:
    arrays = read_arrays(path, content)
    try:
        if kind == "violence":
            return _prompt_head(name, arrays)
        if "norm_mean" in arrays:
            return _category_head(name, arrays)
        if "layers.0.weight" in arrays:
            return _stacked_head(name, arrays)
        return _linear_head(name, arrays)
    except (KeyError, ValueError, IndexError) as error:
        known = "two violence prompts" if kind == "violence" else _FORMS
        raise ModelError(
            f"{path}: not {known} ({error}); it holds {', '.join(sorted(arrays)[:12]) or 'nothing'}"
        ) from None


def _linear_head(name: str, arrays: Mapping[str, npt.NDArray[Any]]) -> LinearHead:
    weight, bias = arrays["weight"].astype(np.float32).reshape(-1), arrays["bias"].reshape(-1)
    return LinearHead(name, weight, float(bias[0]), "a linear score; LAION's V1: about 0 to 10")


def _prompt_head(name: str, arrays: Mapping[str, npt.NDArray[Any]]) -> LinearHead:
    """LAION's violence detector: two prompts, of which the second is violent where it is the nearer."""
    (prompts,) = arrays.values()
    if prompts.ndim != 2 or len(prompts) != 2 or prompts.dtype.kind != "f":
        raise ValueError(f"shape {prompts.shape} of {prompts.dtype}, two rows of floats were needed")
    rows = prompts.astype(np.float64)
    scale = "similarity to the violent prompt minus that to the harmless one; above 0 is violent"
    return LinearHead(name, (rows[1] - rows[0]).astype(np.float32), 0.0, scale)


def _stacked_head(name: str, arrays: Mapping[str, npt.NDArray[Any]]) -> Head:
    """A stack of linear layers as LAION trained them, known by the numbers of its layers."""
    numbers = tuple(
        sorted(
            int(key.split(".")[1]) for key in arrays if key.startswith("layers.") and key.endswith(".weight")
        )
    )
    layers = tuple(
        (
            arrays[f"layers.{number}.weight"].astype(np.float32).T,
            arrays[f"layers.{number}.bias"].astype(np.float32),
        )
        for number in numbers
    )
    _check_widths(layers)
    if numbers == _V2_LAYERS:
        total, shift = np.eye(len(layers[0][0])), np.zeros(len(layers[0][0]))
        for kernel, bias in layers:
            total, shift = total @ kernel.astype(np.float64), shift @ kernel.astype(np.float64) + bias
        return LinearHead(name, total[:, 0].astype(np.float32), float(shift[0]), "LAION's V2: about 1 to 10")
    if numbers == _H14_LAYERS:
        return LayeredHead(name, layers)
    raise ValueError(f"layers {', '.join(map(str, numbers))} are of no stack that is known")


def _check_widths(layers: tuple[tuple[Floats, Floats], ...]) -> None:
    widths = [layers[0][0].shape[0], *(kernel.shape[1] for kernel, _ in layers)]
    if widths[1:] != [len(bias) for _, bias in layers] or widths[-1] != 1:
        raise ValueError("its layers don't fit together")
    if widths[:-1] != [kernel.shape[0] for kernel, _ in layers]:
        raise ValueError("its layers don't fit together")


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
    if not layers or len(layers[0][0]) != len(mean) or not all(c < len(mean) for c in vocabularies):
        raise ValueError("its layers don't fit together")
    _check_widths(layers)
    return CategoryHead(name, mean, deviation, vocabularies, layers)
