"""LLaVA-1.5 in this process, by transformers: the demo model, the 7B and the 13B through the same calls."""

import functools
import hashlib
import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from PIL import Image
from safetensors import SafetensorError

from captioner.checkpoint import Checkpoint, find_checkpoint
from captioner.engine import CaptionFailure, Reply, Sampling
from captioner.pictures import PREPROCESSING
from spine.errors import ConfigError, ModelError
from spine.prompts import Prompt
from spine.settings import CaptionConfig
from spine.torchvision_ops import declare_missing_operators

# Read once, when torch is first loaded: threads that spin while they wait for each other take the cores from those
# that decode pictures. Beside other work a captioner is five times slower so.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

Item = TypeVar("Item")
Done = TypeVar("Done")

_SMALL_BYTES = 1 << 30

# LLaVA-1.5's own, for a checkpoint that brings none. Without the Vicuna system sentence, as the checkpoints in
# transformers' form have it.
_LLAVA_TEMPLATE = (
    "{% for message in messages %}USER: "
    "{% for part in message['content'] if part['type'] == 'image' %}<image>\n{% endfor %}"
    "{% for part in message['content'] if part['type'] == 'text' %}{{ part['text'] }}{% endfor %}"
    "{% endfor %}{% if add_generation_prompt %} ASSISTANT:{% endif %}"
)


@dataclass(frozen=True, slots=True)
class EmbeddedSetup:
    """A checkpoint and how it will run. See `captioner.engine.Setup`."""

    checkpoint: Checkpoint
    device: str
    """cpu or cuda."""
    dtype: str
    """float32, bfloat16 or float16."""
    batch_size: int = 16
    image_mode: str = "crop"

    @classmethod
    def of(cls, config: CaptionConfig) -> "EmbeddedSetup":
        """The set-up these settings ask for on this machine.

        Raises:
            ConfigError: A CUDA device is asked for and there is none.
            ModelError: The checkpoint isn't here and can't be fetched.
        """
        checkpoint = find_checkpoint(config.model, config.revision)
        declare_missing_operators()
        import torch

        present = torch.cuda.is_available()
        if config.device == "cuda" and not present:
            raise ConfigError(
                '[caption] device = "cuda": this machine has no CUDA device; use "auto" or "cpu"'
            )
        if config.device != "cpu" and present:
            dtype = "bfloat16" if torch.cuda.is_bf16_supported() else "float16"
            return cls(checkpoint, "cuda", dtype, config.batch_size, config.image_mode)
        dtype = _cpu_dtype(checkpoint.size_bytes)
        return cls(checkpoint, "cpu", dtype, config.batch_size, config.image_mode)

    @property
    def kind(self) -> str:
        """Embedded."""
        return "embedded"

    @property
    def name(self) -> str:
        """The checkpoint's."""
        return self.checkpoint.name

    @property
    def family(self) -> str:
        """The checkpoint's."""
        return self.checkpoint.family

    @property
    def is_demo(self) -> bool:
        """Whether the checkpoint is the one that comes with popfactory."""
        return self.checkpoint.is_demo

    @property
    def fingerprint(self) -> str:
        """Digest of what shapes a reply: weights, tokenizer, template, dtype, preprocessing."""
        content = [self.checkpoint.digest, self.dtype, PREPROCESSING[self.image_mode]]
        return hashlib.sha256(json.dumps(content).encode()).hexdigest()

    def load(self) -> "EmbeddedEngine":
        """Load the checkpoint; see the constructor of EmbeddedEngine."""
        return EmbeddedEngine(self)


def _cpu_dtype(size_bytes: int) -> str:
    """On a CPU: float32 for small models, bfloat16 for those that would need twice the memory."""
    # Of demo-llava, bfloat16 writes no more captions a second (50 against 48 a core, Zen 5 with AVX-512 bf16), and
    # processors without such instructions emulate it. Float32 rounds a thousand times finer, so that neighbours in
    # a batch don't tip a caption over.
    return "float32" if size_bytes <= _SMALL_BYTES else "bfloat16"


class EmbeddedEngine:
    """A checkpoint, loaded. See `captioner.engine.Engine`."""

    def __init__(self, setup: EmbeddedSetup) -> None:
        """Load the set-up's checkpoint.

        Raises:
            ModelError: A file is damaged or missing, the model is of another kind, or too large for the device.
        """
        self.setup = setup
        self._model, self._processor = _load(setup)
        self._closing = _token_set(self._model.generation_config.eos_token_id)

    @classmethod
    def load(cls, config: CaptionConfig) -> "EmbeddedEngine":
        """Find and load the checkpoint that [caption] names.

        Raises:
            ConfigError, ModelError: As EmbeddedSetup.of and the constructor.
        """
        return cls(EmbeddedSetup.of(config))

    def close(self) -> None:
        """Let go of the model's memory."""
        self._model = self._processor = None
        _give_back_memory()

    def describe(
        self,
        images: Sequence[Image.Image],
        prompt: Prompt,
        max_new_tokens: int,
        repetition_penalty: float = 1.0,
        sampling: Sampling | None = None,
    ) -> list[Reply | CaptionFailure]:
        """Describe the pictures as one batch; see `captioner.engine.Engine.describe`.

        Out of memory, the batch is halved, down to single pictures; one that fails alone is a failure of its own.
        """
        text = self._rendered(prompt)
        if not images:
            return []
        ask = functools.partial(self._ask, text, max_new_tokens, repetition_penalty, sampling)
        if sampling is None:
            return in_halves(list(images), ask, self._out_of_memory)
        # One by one: the draws of a batch depend on who else is in it.
        return [in_halves([image], ask, self._out_of_memory)[0] for image in images]

    def _rendered(self, prompt: Prompt) -> str:
        mark = str(self._processor.image_token)
        if mark in prompt.text:
            raise ConfigError(
                f"prompt {prompt.prompt_id!r} has {mark} in its text, which stands for the picture; take it out"
            )
        parts = [{"type": "image"}, {"type": "text", "text": prompt.text}]
        conversation = [{"role": "user", "content": parts}]
        return str(
            self._processor.apply_chat_template(conversation, add_generation_prompt=True, tokenize=False)
        )

    def _ask(
        self,
        text: str,
        max_new_tokens: int,
        repetition_penalty: float,
        sampling: Sampling | None,
        images: list[Image.Image],
    ) -> list[Reply | CaptionFailure]:
        import torch

        inputs = self._processor(images=images, text=[text] * len(images), padding=True, return_tensors="pt")
        asked = int(inputs["input_ids"].shape[1])
        room = int(self._model.config.get_text_config().max_position_embeddings)
        if asked + max_new_tokens > room:
            raise ConfigError(
                f"[caption] max_new_tokens = {max_new_tokens:,}: with {asked:,} tokens of picture and prompt more than "
                f"the {room:,} that {self.setup.name} can take; lower it to {max(room - asked, 0):,}"
            )
        inputs = inputs.to(self.setup.device, dtype=getattr(torch, self.setup.dtype))
        drawing: dict[str, Any] = {}
        with torch.inference_mode(), torch.random.fork_rng(enabled=sampling is not None):
            if sampling is not None:
                torch.manual_seed(sampling.seed)
                drawing = {
                    "do_sample": True,
                    "temperature": sampling.temperature,
                    "top_p": sampling.top_p,
                    "top_k": 0,
                }
            output = self._model.generate(
                **inputs, max_new_tokens=max_new_tokens, repetition_penalty=repetition_penalty, **drawing
            )
        return [self._reply(row) for row in output[:, asked:].tolist()]

    def _reply(self, tokens: list[int]) -> Reply:
        """Decode one row of new tokens, which is padded behind its closing token."""
        end = next((at for at, token in enumerate(tokens) if token in self._closing), None)
        said = tokens if end is None else tokens[:end]
        text = self._processor.decode(said, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        return Reply(str(text), "length" if end is None else "stop", len(said))

    def _out_of_memory(self, image: Image.Image) -> CaptionFailure:
        needed = f"{image.width} x {image.height} pixels: {self.setup.device} ran out of memory on it alone"
        return CaptionFailure("out_of_memory", needed, attempts=1)


def in_halves(
    items: list[Item], work: Callable[[list[Item]], list[Done]], failed: Callable[[Item], Done]
) -> list[Done]:
    """Do `work` on all items at once; where memory runs out, on each half, down to single items.

    Args:
        items: In order.
        work: Gives one result an item.
        failed: Gives the result of an item that is too much by itself.

    Returns:
        One result an item, in order.
    """
    try:
        return work(items)
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
    # Not inside the except block: the error's traceback would keep the batch's tensors.
    _give_back_memory()
    if len(items) == 1:
        return [failed(items[0])]
    middle = len(items) // 2
    return in_halves(items[:middle], work, failed) + in_halves(items[middle:], work, failed)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether this is torch, on whatever device, or Python running out of memory."""
    import torch

    # On a CPU torch raises a plain RuntimeError that only its text tells from others.
    plain = isinstance(error, RuntimeError) and "can't allocate memory" in str(error)
    return plain or isinstance(error, (MemoryError, torch.OutOfMemoryError))


def _give_back_memory() -> None:
    import gc

    import torch

    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def _load(setup: EmbeddedSetup) -> tuple[Any, Any]:
    """The model, greedy and ready to be asked, and the processor that suits it."""
    declare_missing_operators()
    import torch
    from transformers import AutoModelForImageTextToText, AutoProcessor, GenerationConfig
    from transformers.utils import logging

    logging.disable_progress_bar()
    logging.set_verbosity_error()
    folder = setup.checkpoint.folder
    try:
        processor: Any = AutoProcessor.from_pretrained(folder, local_files_only=True)
        loaded: Any = AutoModelForImageTextToText.from_pretrained(
            folder,
            dtype=getattr(torch, setup.dtype),
            local_files_only=True,
            use_safetensors=True,  # the other form is a pickle
            output_loading_info=True,
        )
        model, report = loaded[0].to(setup.device).eval(), loaded[1]
    except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
        raise ModelError(
            f"{folder}: can't be loaded: {_first_line(error)}; get the checkpoint again"
        ) from None
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise ModelError(
                f"{folder}: can't be loaded: {_first_line(error)}; get the checkpoint again"
            ) from None
        raise ModelError(
            f"{folder}: {setup.checkpoint.size_bytes:,} bytes of weights don't fit in the memory of {setup.device}; "
            "name a smaller model, or a machine with more"
        ) from None
    # Weights that a file lacks are drawn at random, with a warning alone: such a model talks nonsense.
    lacking = sorted(report["missing_keys"]) + sorted(str(key) for key in report["mismatched_keys"])
    if lacking:
        raise ModelError(
            f"{folder}: {len(lacking)} weights missing or of another shape, {lacking[0]} for one; "
            "get the checkpoint again"
        )
    processor = _suited(processor, model.config)
    closing = model.generation_config.eos_token_id
    if closing is None:
        closing = processor.tokenizer.eos_token_id
    # A checkpoint's own settings may sample: these replace them. Greedy is what can be asked again.
    model.generation_config = GenerationConfig(
        do_sample=False,
        num_beams=1,
        bos_token_id=processor.tokenizer.bos_token_id,
        eos_token_id=closing,
        pad_token_id=processor.tokenizer.pad_token_id,
    )
    return model, processor


def _suited(processor: Any, config: Any) -> Any:
    """The processor with what older checkpoints leave to the model's configuration.

    Without these it can't count the places that a picture takes in the text.
    """
    if not hasattr(processor, "image_token") or not hasattr(processor, "image_processor"):
        raise ModelError(
            f"a model of kind {config.model_type!r} takes no pictures; name a LLaVA-1.5 checkpoint"
        )
    if config.model_type == "llava":
        if processor.patch_size is None:
            processor.patch_size = config.vision_config.patch_size
        if processor.vision_feature_select_strategy is None:
            processor.vision_feature_select_strategy = config.vision_feature_select_strategy
        if (
            not processor.num_additional_image_tokens
            and config.vision_config.model_type == "clip_vision_model"
        ):
            processor.num_additional_image_tokens = 1  # CLIP's class token
        if processor.chat_template is None:
            processor.chat_template = _LLAVA_TEMPLATE
    if processor.tokenizer.pad_token_id is None:
        processor.tokenizer.pad_token = processor.tokenizer.eos_token
    # Prompts of several lengths in a batch: padded on the right, a reply would begin behind the padding.
    processor.tokenizer.padding_side = "left"
    return processor


def _token_set(closing: int | list[int] | None) -> frozenset[int]:
    if closing is None:
        return frozenset()
    return frozenset(closing if isinstance(closing, list) else [closing])


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
