"""How fast the embedded engine captions with LLaVA-1.5-7B on a GPU, beside what the GPU's figures allow.

The weights are random, in the true size and shape: a step costs the same whatever it says. All captions have the same
length, since nothing tells such a model where to end.
"""

import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from benchmarks.llava_shape import LLAVA_7B, Shape, make_checkpoint
from benchmarks.report import report
from captioner.embedded import EmbeddedEngine, EmbeddedSetup
from captioner.engine import Reply
from spine.prompts import PROMPTS
from spine.settings import CaptionConfig

OUT = 110
"""Tokens of a caption: LLaVA-1.5's with LAION-POP's prompt take about so many."""

_PREFILL, _DECODE = 0.55, 0.8
"""Shares of the greatest arithmetic and of the memory's bandwidth that a well-run engine reaches."""


@dataclass(frozen=True, slots=True)
class Gpu:
    """What its maker says of a GPU."""

    name: str
    """Part of what the driver calls it."""

    tflops: float
    """Dense bfloat16."""

    tb_s: float
    """Of its memory."""


GPUS = (
    Gpu("H200", 989, 4.8),
    Gpu("H100 PCIe", 756, 2.0),
    Gpu("H100", 989, 3.35),
    Gpu("A100-SXM4-80GB", 312, 2.04),
    Gpu("A100", 312, 1.56),
    Gpu("L40S", 362, 0.864),
    Gpu("RTX 4090", 165, 1.008),
)


def roof(gpu: Gpu, shape: Shape, asked: int, out: int, batch: int) -> float:
    """Captions a second where all prompts are read first and then all words written, without overlap.

    Args:
        gpu: Bounds reading by its arithmetic, writing by its memory.
        shape: Weights and keys and values in bfloat16.
        asked: Tokens of picture and prompt.
        out: Tokens of a caption.
        batch: Captions that are written at the same time.
    """
    text, vision = shape.text, shape.vision
    weights = text.layers * (4 * text.width**2 + 3 * text.width * text.mlp) + text.width * shape.vocabulary
    seen = vision.layers * (4 * vision.width**2 + 2 * vision.width * vision.mlp)
    reading = 2 * weights * asked + 2 * seen * (shape.image_tokens + 1)
    kept = 2 * 2 * text.layers * text.width * (asked + out / 2)  # bytes of keys and values, half way
    writing = out * (kept + 2 * weights / batch)
    return 1 / (reading / (_PREFILL * gpu.tflops * 1e12) + writing / (_DECODE * gpu.tb_s * 1e12))


@dataclass(frozen=True, slots=True)
class Rate:
    """What was measured."""

    captions_s: float
    asked: int
    """Tokens of picture and prompt."""

    written: float
    """Tokens of a caption, on average."""


def rate_of(engine: EmbeddedEngine, images: Sequence[Image.Image], batch: int, out: int) -> Rate:
    """Captions a second after one batch to get warm, pictures scaled and batches put together as in a run."""
    prompt = PROMPTS["laion-pop"]
    engine.describe(images[:batch], prompt, out)
    started, replies = time.perf_counter(), list[Reply]()
    for start in range(0, len(images), batch):
        said = engine.describe(images[start : start + batch], prompt, out)
        replies += [reply for reply in said if isinstance(reply, Reply)]
    wall = time.perf_counter() - started
    assert len(replies) == len(images), "the GPU ran out of memory on a single picture"
    tokens = sum(reply.tokens or 0 for reply in replies) / len(replies)
    return Rate(len(replies) / wall, replies[0].prompt_tokens or 0, tokens)


def captions_on_gpu(images: Sequence[Image.Image], batches: Sequence[int]) -> None:
    """Measure on the CUDA device that is here, each of these batch sizes on at least four batches."""
    import torch

    name = torch.cuda.get_device_name()
    gpu = next((each for each in GPUS if each.name in name), None)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "random-llava-7b"
        make_checkpoint(folder, LLAVA_7B, "cuda")
        engine = EmbeddedEngine(EmbeddedSetup.of(CaptionConfig(model=str(folder), device="cuda")))
        for batch in batches:
            found = rate_of(engine, [images[n % len(images)] for n in range(4 * batch)], batch, OUT)
            conditions = {
                "model": f"{LLAVA_7B.name}, random weights of its size",
                "gpu": name,
                "dtype": engine.setup.dtype,
                "batch_size": batch,
                "n": 4 * batch,
                "prompt_tokens": found.asked,
                "tokens": round(found.written, 1),
            }
            report("captioner_gpu_rate", found.captions_s, "captions/s", **conditions)
            if gpu is not None:
                most = roof(gpu, LLAVA_7B, found.asked, round(found.written), batch)
                share = found.captions_s / most
                report("captioner_gpu_share", share, "x reading and writing in turn", **conditions)
        engine.close()
