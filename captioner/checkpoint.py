"""Finds a captioner's checkpoint on this machine, and says what it is without loading it.

A checkpoint is a folder in transformers' form, whether it came with popfactory, lies somewhere on the disk or was
downloaded from the hub: only the name in [caption] model differs.
"""

import functools
import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from spine.config import DEMO
from spine.errors import ConfigError, ModelError

DEMO_FOLDER = Path(__file__).parent / "models" / "demo-llava"
"""The small model that comes with popfactory."""

_FILES = ["*.json", "*.jinja", "*.safetensors", "tokenizer.model"]
_WHOLE_BYTES = 64 << 20
_SAMPLES, _SAMPLE_BYTES = 64, 1 << 20


@dataclass(frozen=True, kw_only=True, slots=True)
class Checkpoint:
    """A model folder and what is known of it."""

    folder: Path

    name: str
    """As a card names it: "demo-llava", the folder's own name, or "NAME@REVISION" of the hub."""

    model_type: str
    """Of its config.json, such as "llava"."""

    size_bytes: int
    """Of its weights."""

    digest: str
    """Over every file that shapes a reply: weights, configuration, tokenizer, preprocessing, template."""

    @property
    def family(self) -> str:
        """llava, cogvlm or other."""
        kind = f"{self.model_type} {self.name}".lower()
        if self.model_type.startswith("llava"):
            return "llava"
        return "cogvlm" if "cogvlm" in kind else "other"

    @property
    def is_demo(self) -> bool:
        """Whether it is the one that comes with popfactory, under whatever name it was asked for."""
        return self.folder.resolve() == DEMO_FOLDER.resolve()


def find_checkpoint(model: str, revision: str) -> Checkpoint:
    """Find a checkpoint: the demo one, a folder, or one of the hub.

    A revision that is on this machine is taken from there without asking the network, so that a run keeps its
    model when the hub has a newer one.

    Args:
        model: "demo", a folder, or a name on the hub.
        revision: Of the hub's; empty is the one that is here, else the newest.

    Raises:
        ModelError: There is none, or it isn't complete; the message says how to get it.
    """
    if model == DEMO:
        if not DEMO_FOLDER.is_dir():
            raise ModelError(
                f"{DEMO_FOLDER}: the small model is not in this installation; install popfactory again"
            )
        return _described(DEMO_FOLDER, DEMO_FOLDER.name)
    path = Path(model).expanduser()
    if path.is_dir():
        return _described(path, path.resolve().name)
    if path.is_absolute() or model.startswith((".", "~")) or model.count("/") > 1:
        raise ModelError(f"[caption] model = {model!r}: no such folder")
    folder = _from_hub(model, revision)
    return _described(folder, f"{model}@{folder.name}")


def _from_hub(model: str, revision: str) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    # Without the weights in other forms, of which some are pickles.
    fetch = functools.partial(snapshot_download, model, revision=revision or None, allow_patterns=_FILES)
    try:
        try:
            return _complete(Path(fetch(local_files_only=True)))
        except LocalEntryNotFoundError:
            return _complete(Path(fetch(etag_timeout=10)))  # without network it gives what is there
    except HFValidationError:
        raise ConfigError(f"[caption] model = {model!r} is neither a folder nor a model's name") from None
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        command = f"hf download {model}" + (f" --revision {revision}" if revision else "")
        found = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ModelError(
            f"[caption] model = {model!r}: its weights are not on this machine and can't be fetched ({found}); "
            f"get them with `{command}` where there is a network, name a folder, or start a run on the small "
            "models with `popfactory init --demo-models`"
        ) from None


def _complete(folder: Path) -> Path:
    """The folder, if an earlier download was not cut off.

    Raises:
        LocalEntryNotFoundError: A file that the checkpoint names isn't there.
    """
    from huggingface_hub.errors import LocalEntryNotFoundError

    path = Path(folder)
    index = path / "model.safetensors.index.json"
    weights = (
        set(json.loads(index.read_text())["weight_map"].values()) if index.is_file() else {"*.safetensors"}
    )
    if (path / "config.json").is_file() and all(any(path.glob(name)) for name in weights):
        return folder
    raise LocalEntryNotFoundError(f"{path}: incomplete")


def _described(folder: Path, name: str) -> Checkpoint:
    weights = sorted(folder.glob("*.safetensors"))
    if not weights or not (folder / "config.json").is_file():
        needed = "config.json" if weights else "*.safetensors"
        raise ModelError(f"{folder}: no {needed} here; a checkpoint in transformers' form was needed")
    return Checkpoint(
        folder=folder,
        name=name,
        model_type=str(_read_json(folder / "config.json").get("model_type", "")),
        size_bytes=sum(path.stat().st_size for path in weights),
        digest=_folder_digest(folder),
    )


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(f"{path}: can't be read ({error}); get the checkpoint again") from None
    if not isinstance(content, dict):
        raise ModelError(f"{path}: no JSON object; get the checkpoint again")
    return content


def _folder_digest(folder: Path) -> str:
    total = hashlib.sha256()
    paths = {path for pattern in _FILES for path in folder.glob(pattern) if path.is_file()}
    for path in sorted(paths):
        total.update(f"{path.name}\0{path.stat().st_size}\0".encode())
        total.update(_file_digest(path))
    return total.hexdigest()


def _file_digest(path: Path) -> bytes:
    size = path.stat().st_size
    with path.open("rb") as file:
        if size <= _WHOLE_BYTES:
            return hashlib.file_digest(file, "sha256").digest()
        # 14 GB would take longer to read than a finished run takes to say that it is finished. Weights that were
        # trained further differ everywhere, so samples over the whole file tell them apart.
        digest = hashlib.sha256()
        for number in range(_SAMPLES):
            file.seek(number * (size - _SAMPLE_BYTES) // (_SAMPLES - 1))
            digest.update(file.read(_SAMPLE_BYTES))
        return digest.digest()
