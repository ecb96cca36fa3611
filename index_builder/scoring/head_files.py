"""Files of scorer heads: found by path or name, read as arrays by name. Nothing in them is ever executed."""

import hashlib
import io
import pickle
import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from index_builder.scoring.known_weights import KNOWN, RATINGS, weights_file
from index_builder.scoring.saved_model import read_detector
from spine.errors import ModelError

Arrays = dict[str, npt.NDArray[Any]]

TORCH_SUFFIXES = (".pth", ".pt", ".bin")
"""Of files that torch wrote."""

_SIZE_LIMIT = 200_000_000  # bytes of a head's file


def head_file(source: str) -> Path:
    """The file that a setting names, by path or by the name of known weights, which are fetched on first use.

    Raises:
        ModelError: The weights can't be fetched.
    """
    return weights_file(source, KNOWN[source]) if source in KNOWN else Path(source).expanduser()


def rating_file(source: str, rating: int) -> Path:
    """As head_file, for the vector of one rating in a folder of them."""
    if source in RATINGS:
        return weights_file(source, RATINGS[source][rating])
    return Path(source).expanduser() / f"rating{rating}.npy"


def known_digest(source: str) -> tuple[str, str] | None:
    """Name and SHA-256 of known weights, which need not be here for that; None for anything else."""
    known = KNOWN.get(source)
    return (Path(known.file).stem, known.sha256) if known is not None else None


def read_head_file(path: Path, setting: str) -> bytes:
    """A head's file.

    Raises:
        ModelError: It is missing or too large.
    """
    try:
        if path.stat().st_size > _SIZE_LIMIT:
            raise ModelError(f"{path}: larger than {_SIZE_LIMIT:,} bytes; that is no scorer head")
        return path.read_bytes()
    except OSError as error:
        known = ", ".join([*KNOWN, *RATINGS])
        raise ModelError(
            f"{path}: {error.strerror}; {setting} names it: give a path, or one of {known}"
            " (LAION's H/14 detector and watermark classifier come by path only)"
        ) from None


def read_arrays(path: Path, content: bytes) -> Arrays:
    """The arrays in a head's file, by its suffix: .npz, .npy, .safetensors, .zip (a SavedModel), or what torch wrote.

    Raises:
        ModelError: It holds something else, or values that are no finite numbers.
    """
    readers: dict[str, Callable[[bytes], Arrays]] = {
        ".npz": _npz_arrays,
        ".npy": _npy_array,
        ".safetensors": _safe_arrays,
        ".zip": read_detector,
        **dict.fromkeys(TORCH_SUFFIXES, _torch_arrays),
    }
    read = readers.get(path.suffix.lower())
    if read is None:
        raise ModelError(f"{path}: a head is a file in {', '.join(readers)}")
    try:
        arrays = read(content)
    except _ERRORS as error:
        said = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ModelError(f"{path}: no plain weights of that kind ({said}); get the file again") from None
    bad = [key for key, array in arrays.items() if array.dtype.kind == "f" and not np.isfinite(array).all()]
    if bad:
        raise ModelError(f"{path}: {bad[0]} holds values that are no finite numbers; get the file again")
    return arrays


_ERRORS = (
    ValueError,
    KeyError,
    IndexError,
    OSError,
    EOFError,
    AttributeError,
    RuntimeError,
    TypeError,
    MemoryError,
    zipfile.BadZipFile,
    zlib.error,
    struct.error,
    pickle.UnpicklingError,
)


def _torch_arrays(content: bytes) -> Arrays:
    import torch

    state = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)  # runs no code
    if not isinstance(state, dict) or not all(isinstance(value, torch.Tensor) for value in state.values()):
        raise ValueError("it holds more than tensors by name")
    return {str(key): value.to(torch.float32).numpy() for key, value in state.items()}


def _safe_arrays(content: bytes) -> Arrays:
    from safetensors import SafetensorError
    from safetensors.torch import load

    try:
        return {key: value.float().numpy() for key, value in load(content).items()}
    except SafetensorError as error:
        raise ValueError(str(error)) from None


def _npz_arrays(content: bytes) -> Arrays:
    with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
        return {key: arrays[key] for key in arrays.files}


def _npy_array(content: bytes) -> Arrays:
    """One array without a name."""
    return {"": np.lib.format.read_array(io.BytesIO(content), allow_pickle=False)}


def digits_of(content: bytes) -> str:
    """What a score adds to the name of its model, so that weights are told apart: 8 digits of SHA-256."""
    return hashlib.sha256(content).hexdigest()[:8]
