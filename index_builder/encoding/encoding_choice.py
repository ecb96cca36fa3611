"""How a model embeds pictures fastest here: how many a step, and in which precision.

A stage asks once and keeps the answer beside its files: another number of pictures a step, or another precision,
would change last bits, and what is resumed must equal what was never stopped.
"""

import contextlib
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from index_builder.encoding.clip import BATCH_SIZE, ClipEncoder, Precision, is_out_of_memory
from index_builder.encoding.preprocessing import Pixels
from spine.publish import publish_json
from spine.settings import ClipConfig

KEPT = ".encoding.json"
"""The choice beside a stage's files; hidden: how fast a machine is, is no part of what was made."""

_LARGEST = 1024  # pictures a step
_GAIN = 1.05  # by which a step of twice the size must be faster
_BF16_GAIN = 1.5  # by which bf16 must be cheaper on a CPU: its values are less exact
_TRIED = 8  # pictures that precisions are compared by
_ROUNDS = 3


@dataclass(frozen=True, slots=True)
class EncodingChoice:
    """How pictures are embedded."""

    batch_size: int
    precision: Precision


def kept_choice(folder: Path, encoder: ClipEncoder, config: ClipConfig) -> EncodingChoice:
    """The choice that was made when a stage's folder was begun, or else a new one, which is kept.

    Args:
        folder: The stage's folder; clearing it forgets the choice.
        encoder: The model; its steps and precision are set to the choice.
        config: What [clip] leaves open.
    """
    path = folder / KEPT
    try:
        kept = json.loads(path.read_text(encoding="utf-8"))
        choice = EncodingChoice(int(kept["batch_size"]), kept["precision"])
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        choice = choose(encoder, config)
        publish_json(path, asdict(choice))
    apply(choice, encoder)
    return choice


def apply(choice: EncodingChoice, encoder: ClipEncoder) -> None:
    """Let a model embed so."""
    encoder.batch_size, encoder.precision = choice.batch_size, choice.precision


def choose(encoder: ClipEncoder, config: ClipConfig) -> EncodingChoice:
    """Measure what [clip] leaves open.

    On a CPU the precision: bf16 where it is clearly cheaper, which takes cores that have instructions for it; more
    pictures a step bring nothing there. On a GPU, always fp16, the pictures a step: doubled while that is faster and
    memory lasts.
    """
    on_cpu = not encoder.device.startswith("cuda")
    precision = encoder.precision
    if on_cpu and config.precision == "auto":
        precision = "bf16" if _bf16_is_cheaper(encoder) else "fp32"
    elif on_cpu and config.precision == "bf16":
        precision = "bf16"
    if config.batch_size or on_cpu:
        return EncodingChoice(config.batch_size or BATCH_SIZE, precision)
    return EncodingChoice(
        best_size(lambda size: _rate(encoder, size, precision), BATCH_SIZE, _LARGEST), precision
    )


def best_size(rate: Callable[[int], float], first: int, largest: int) -> int:
    """The number of pictures a step from which twice as many are hardly faster.

    Args:
        rate: Pictures a second at a size; 0 where memory doesn't suffice.
        first: Size to begin with; where it doesn't fit, half of it is tried, and so on down to 1.
        largest: Size to end with.
    """
    size, best = first, rate(first)
    while best == 0 and size > 1:
        size //= 2
        best = rate(size)
    while size * 2 <= largest and best > 0:
        twice = rate(size * 2)
        if twice < _GAIN * best:
            break
        size, best = size * 2, twice
    return size


def _bf16_is_cheaper(encoder: ClipEncoder) -> bool:
    """By CPU seconds, in turns, the best of each: what others do on the machine should not decide this."""
    spent: dict[Precision, list[float]] = {"fp32": [], "bf16": []}
    for _ in range(_ROUNDS):
        for precision, seconds in spent.items():
            with _as(EncodingChoice(_TRIED, precision), encoder):
                pixels = _blank(encoder, _TRIED)
                started = time.process_time()
                encoder.encode_images(pixels)
                seconds.append(time.process_time() - started)
    return min(spent["fp32"]) > _BF16_GAIN * min(spent["bf16"])


def _rate(encoder: ClipEncoder, size: int, precision: Precision) -> float:
    """Pictures a second, the better of two steps behind a first one; 0 where memory doesn't suffice."""
    pixels = _blank(encoder, size)
    with _as(EncodingChoice(size, precision), encoder):
        try:
            seconds = []
            for _ in range(3):
                started = time.perf_counter()
                encoder.encode_images(pixels)
                seconds.append(time.perf_counter() - started)
        except RuntimeError as error:
            if is_out_of_memory(error):
                return 0.0
            raise
        return size / min(seconds[1:]) if encoder.batch_size == size else 0.0  # else it was halved


@contextlib.contextmanager
def _as(choice: EncodingChoice, encoder: ClipEncoder) -> Iterator[None]:
    before = EncodingChoice(encoder.batch_size, encoder.precision)
    apply(choice, encoder)
    try:
        yield
    finally:
        apply(before, encoder)


def _blank(encoder: ClipEncoder, size: int) -> Pixels:
    preprocess = encoder.preprocess
    return preprocess.normalise(np.zeros((size, preprocess.height, preprocess.width, 3), dtype=np.uint8))
