"""CLIP by open_clip: pictures and words as unit embeddings.

Every model goes through the same two calls, `create_model_and_transforms(name, pretrained)` and
`get_tokenizer(name)`: the small demo model differs from ViT-L-14/openai in these strings alone.
"""

import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from index_builder.encoding.preprocessing import Pixels, Preprocessing
from spine.config import DEMO
from spine.errors import ModelError
from spine.settings import ClipConfig
from spine.tables import Vectors

Precision = Literal["fp32", "bf16", "fp16"]

BATCH_SIZE = 64
"""Pictures a step where nobody says or finds another number."""

DEMO_CLIP = Path(__file__).parents[1] / "models" / "demo-clip"
"""The small model that knows the drawn world."""

_LOCAL = "local-dir:"
_HUB = "hf-hub:"
_WEIGHT_FILES = (
    "open_clip_model.safetensors",
    "open_clip_pytorch_model.safetensors",
    "open_clip_pytorch_model.bin",
)
_HUB_TIMEOUT_S = 10.0
_HELP = (
    "with a connection they are fetched on first use; without one, name a file as [clip] pretrained or a folder as "
    '[clip] model = "local-dir:FOLDER"; `popfactory init --demo-models` uses the small models that come with popfactory'
)


def clip_strings(config: ClipConfig) -> tuple[str, str]:
    """open_clip's two strings for a model: its name and its weights. "demo" becomes its folder."""
    return (f"{_LOCAL}{DEMO_CLIP}", "") if config.model == DEMO else (config.model, config.pretrained)


def clip_name(config: ClipConfig) -> str:
    """What tables and cards call the model: "ViT-L-14/openai", "demo-clip", or the folder or file it is in."""
    if config.model == DEMO:
        return "demo-clip"
    if config.model.startswith(_LOCAL):
        return Path(config.model.removeprefix(_LOCAL)).name
    weights = Path(config.pretrained).stem if "/" in config.pretrained else config.pretrained
    return f"{config.model}/{weights}" if weights else config.model


def clip_parameters(config: ClipConfig) -> dict[str, str]:
    """What makes embeddings comparable, for a stage's parameters; loads nothing.

    Name, and for weights in a file of ours or the user's the SHA-256, so that a model trained anew under
    its old name makes what it embedded stale.
    """
    name, pretrained = clip_strings(config)
    digest = hashlib.sha256()
    if name.startswith(_LOCAL):
        folder = Path(name.removeprefix(_LOCAL)).expanduser()
        for path in sorted(path for path in folder.glob("*") if path.is_file()):
            _add_file(digest, path)
    elif Path(pretrained).is_file():
        _add_file(digest, Path(pretrained))
    else:
        return {"model": clip_name(config)}
    return {"model": clip_name(config), "weights": digest.hexdigest()}


def clip_dimension(config: ClipConfig) -> int:
    """The dimension of a model's embeddings, from its description alone: its weights need not be here.

    Raises:
        ModelError: The model is unknown, or its folder has no description.
    """
    name, _ = clip_strings(config)
    if name.startswith(_LOCAL):
        path = Path(name.removeprefix(_LOCAL)).expanduser() / "open_clip_config.json"
        try:
            return int(json.loads(path.read_text(encoding="utf-8"))["model_cfg"]["embed_dim"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ModelError(f"{path}: doesn't describe a CLIP model ({error}); {_HELP}") from None
    if name.startswith(_HUB):
        return ClipEncoder.load(config).d  # its description is on the hub as well
    from spine.torchvision_ops import declare_missing_operators

    declare_missing_operators()
    import open_clip

    described = open_clip.get_model_config(name.replace("/", "-"))
    if described is None:
        raise ModelError(f"[clip] model = {name!r} is none of open_clip's models, such as ViT-L-14; {_HELP}")
    return int(described["embed_dim"])


def devices_of(config: ClipConfig) -> list[str]:
    """Where models run, such as cpu, or cuda:0 and cuda:1.

    Raises:
        ModelError: There is no such CUDA device.
    """
    import torch

    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if config.device == "auto":
        return [f"cuda:{number}" for number in range(count)] or ["cpu"]
    devices = [name.strip() for name in config.device.split(",")]
    for name in devices:
        if name.startswith("cuda") and int(name.partition(":")[2] or 0) >= count:
            raise ModelError(
                f"[clip] device = {config.device!r}, but torch sees {count} CUDA devices; use auto or cpu"
            )
    return devices


def device_of(config: ClipConfig) -> str:
    """The first of devices_of."""
    return devices_of(config)[0]


class ClipEncoder:
    """A loaded CLIP model."""

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        preprocess: Preprocessing,
        name: str,
        *,
        device: str,
        batch_size: int,
    ) -> None:
        self._model = model
        self._tokenizer = tokenizer
        self.device = device
        self.batch_size = batch_size
        """Pictures a step; halved where memory runs out."""
        self.precision: Precision = "fp16" if device.startswith("cuda") else "fp32"
        """What pictures are embedded in; on a CPU it may be set to bf16."""
        self.name = name
        self.is_demo = name == "demo-clip"
        self.preprocess = preprocess
        self.d = len(self._encode_texts(["a"])[0])

    @classmethod
    def load(cls, config: ClipConfig, device: str | None = None) -> "ClipEncoder":
        """Load the model that [clip] names.

        Args:
            config: The [clip] table.
            device: Where it runs; None is the first of devices_of.

        Raises:
            ModelError: The weights aren't here and can't be fetched, the model is unknown, or there is
                no CUDA device where one was asked for.
        """
        from spine.torchvision_ops import declare_missing_operators

        # OpenMP reads this when torch loads it. Its threads spin while they wait for each other, and with the
        # decoding processes on the same cores they wait long: 39 pictures a second instead of 739 were
        # measured on 4 busy cores. Whoever has set it otherwise keeps it.
        os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
        declare_missing_operators()
        import open_clip

        device = device or device_of(config)
        name, pretrained = clip_strings(config)
        weights, extra = _find_weights(name, pretrained)
        try:
            model, _, _ = open_clip.create_model_and_transforms(
                name,
                weights,
                precision="fp16" if device.startswith("cuda") else "fp32",
                device=device,
                require_pretrained=True,  # or it would go on with random weights
                **extra,
            )
            tokenizer = open_clip.get_tokenizer(name)
        except (RuntimeError, ValueError, OSError, KeyError, TypeError) as error:
            said = " ".join(str(error).split())[:300]
            raise ModelError(f"CLIP model {clip_name(config)} can't be loaded ({said}); {_HELP}") from None
        model.eval()
        preprocess = Preprocessing.from_config(model.visual.preprocess_cfg)
        return cls(
            model,
            tokenizer,
            preprocess,
            clip_name(config),
            device=device,
            batch_size=config.batch_size or BATCH_SIZE,
        )

    @property
    def logit_scale(self) -> float:
        """What the model multiplies similarities with before it compares texts: 1 / its temperature."""
        return float(self._model.logit_scale.detach().exp())

    def encode_images(self, pixels: Pixels, *, steady: bool = False) -> Vectors:
        """Embed pictures.

        Args:
            pixels: Shape (n, 3, height, width), from `preprocess`.
            steady: Fill the last step up to the batch size, so that a picture's embedding doesn't depend
                on how many come with it: matrix products of another shape round differently in the last
                bit (1 and 7 rows instead of 64: up to 6e-8), which could show after rounding to float16.
                For stages, whose resumed runs must equal unbroken ones; single queries need not pay for it.

        Returns:
            Shape (n, d), float32, rows of L2 norm 1; NaN where the model gave no finite values.
        """
        n, start, found = len(pixels), 0, []
        while start < n:
            batch = pixels[start : start + self.batch_size]
            if steady and len(batch) < self.batch_size:
                filling = np.zeros((self.batch_size - len(batch), *batch.shape[1:]), dtype=np.float32)
                batch = np.concatenate([batch, filling])
            try:
                vectors = self._encode_images(batch)
            except RuntimeError as error:
                if not is_out_of_memory(error) or self.batch_size == 1:
                    raise
                self.batch_size //= 2
                continue
            found.append(vectors[: n - start])
            start += self.batch_size
        return _unit(np.concatenate(found) if found else np.empty((0, self.d), dtype=np.float32))

    def encode_texts(self, texts: Sequence[str]) -> Vectors:
        """Embed texts; longer ones than the model reads are cut.

        Returns:
            Shape (n, d), float32, rows of L2 norm 1.
        """
        found = [self._encode_texts(part) for part in _batches(texts, self.batch_size)]
        return _unit(np.concatenate(found) if found else np.empty((0, self.d), dtype=np.float32))

    def _encode_images(self, pixels: Pixels) -> Vectors:
        import torch

        batch = torch.from_numpy(np.ascontiguousarray(pixels)).to(self.device)
        mixed = torch.autocast("cpu", torch.bfloat16, enabled=self.precision == "bf16")
        with torch.inference_mode(), mixed:
            encoded = self._model.encode_image(batch.half() if self.precision == "fp16" else batch)
        vectors: Vectors = encoded.float().cpu().numpy()
        return vectors

    def _encode_texts(self, texts: Sequence[str]) -> Vectors:
        import torch

        tokens = self._tokenizer(list(texts)).to(self.device)
        with torch.inference_mode():
            vectors: Vectors = self._model.encode_text(tokens).float().cpu().numpy()
        return vectors


def _find_weights(name: str, pretrained: str) -> tuple[str, dict[str, Any]]:
    """What to give open_clip as `pretrained`, and what it must be told besides.

    Weights that the hub's cache holds are given as a file: asked for by tag, they would be looked up on
    the hub first, and without a connection that takes half a minute of retries.
    """
    import open_clip

    if name.startswith(_LOCAL):
        folder = Path(name.removeprefix(_LOCAL))
        if not (folder / "open_clip_config.json").is_file() or not _weights_in(folder):
            raise ModelError(f"{folder}: no open_clip_config.json with weights beside it; {_HELP}")
        return pretrained, {}
    if name.startswith(_HUB):
        if _cached(name.removeprefix(_HUB), _WEIGHT_FILES) is None:
            _ask_hub(name.removeprefix(_HUB), name)
        return pretrained, {}
    if open_clip.get_model_config(name.replace("/", "-")) is None:
        raise ModelError(f"[clip] model = {name!r} is none of open_clip's models, such as ViT-L-14; {_HELP}")
    settings = open_clip.get_pretrained_cfg(name.replace("/", "-"), pretrained) if pretrained else {}
    if not settings:
        if Path(pretrained).is_file():
            return pretrained, {}
        tags = ", ".join(open_clip.list_pretrained_tags_by_model(name.replace("/", "-")))
        raise ModelError(
            f"[clip] pretrained = {pretrained!r} is no file and none of {name}'s weights: {tags}"
        )
    # open_clip only warns where the weights want QuickGELU and the named architecture has another one, as
    # with ViT-L-14/openai; its embeddings would then not be those of LAION.
    extra: dict[str, Any] = {"force_quick_gelu": bool(settings.get("quick_gelu"))}
    repository, _, file = str(settings.get("hf_hub", "")).rpartition("/")
    if not repository:
        return pretrained, extra
    cached = _cached(repository, (file,) if file else _WEIGHT_FILES)
    if cached is None:
        _ask_hub(repository, f"{name}/{pretrained}")
        return pretrained, extra
    for ours, theirs in (
        ("image_mean", "mean"),
        ("image_std", "std"),
        ("image_interpolation", "interpolation"),
        ("image_resize_mode", "resize_mode"),
    ):
        extra[ours] = settings.get(theirs)
    return cached, extra


def _cached(repository: str, files: Sequence[str]) -> str | None:
    from huggingface_hub import try_to_load_from_cache

    found = (try_to_load_from_cache(repository, file) for file in files)
    return next((path for path in found if isinstance(path, str)), None)


def _ask_hub(repository: str, name: str) -> None:
    """Stop at once where the hub can't be reached: its own downloads retry for most of a minute."""
    import huggingface_hub

    try:
        huggingface_hub.model_info(repository, timeout=_HUB_TIMEOUT_S)
    except Exception as error:  # noqa: BLE001  # the hub's client changed its HTTP library, and errors, twice
        said = " ".join(str(error).split())[:200]
        raise ModelError(f"CLIP weights {name} are not here and can't be fetched ({said}); {_HELP}") from None


def _weights_in(folder: Path) -> bool:
    return any(path.suffix in (".safetensors", ".bin", ".pt", ".pth") for path in folder.iterdir())


def _add_file(digest: Any, path: Path) -> None:
    with path.open("rb") as file:
        digest.update(hashlib.file_digest(file, "sha256").digest())


def is_out_of_memory(error: RuntimeError) -> bool:
    """Whether torch failed for want of memory, on whatever device."""
    import torch

    return isinstance(error, torch.OutOfMemoryError) or "not enough memory" in str(error)


def _unit(vectors: Vectors) -> Vectors:
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    with np.errstate(invalid="ignore", divide="ignore"):
        unit: Vectors = (vectors / norms).astype(np.float32)
    return unit


def _batches(texts: Sequence[str], size: int) -> Iterator[Sequence[str]]:
    for start in range(0, len(texts), size):
        yield texts[start : start + size]
