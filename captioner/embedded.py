"""LLaVA-1.5 in this process, by transformers: the demo model, the 7B and the 13B through the same calls."""

import functools
import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from PIL import Image

from captioner.checkpoint import Checkpoint, find_checkpoint
from captioner.engine import CaptionFailure, Heard, Prepared, Reply, Sampling, Wanted
from captioner.loading import importing, load_model, token_set
from captioner.memory import give_back_memory, in_halves
from captioner.pictures import PREPROCESSING, load_picture
from spine.errors import ConfigError
from spine.prompts import Prompt
from spine.settings import CaptionConfig
from spine.torchvision_ops import declare_missing_operators

# Read once, when torch is first loaded: threads that spin while they wait for each other take the cores from those
# that decode pictures. Beside other work a captioner is five times slower so.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

_SMALL_BYTES = 1 << 30


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
        with importing("torch"):
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

    @property
    def overlap(self) -> int:
        """One: the model has one batch at a time."""
        return 1

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
        self._model, self._processor = load_model(setup.checkpoint, setup.device, setup.dtype)
        self._asked: dict[tuple[str, Any], Any] = {}
        self._closing = token_set(self._model.generation_config.eos_token_id)

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
        give_back_memory()

    def read(self, wanted: Wanted | None, mode: str) -> Prepared | CaptionFailure:
        """Read one picture and scale it for the model; see `captioner.engine.Engine.read`."""
        picture = load_picture(wanted, mode)
        return picture if isinstance(picture, CaptionFailure) else self._prepared(picture)

    def describe(
        self,
        images: Sequence[Image.Image | Prepared],
        prompt: Prompt,
        max_new_tokens: int,
        repetition_penalty: float = 1.0,
        sampling: Sampling | None = None,
        heard: Heard | None = None,
    ) -> list[Reply | CaptionFailure]:
        """Describe the pictures as one batch; see `captioner.engine.Engine.describe`.

        Out of memory, the batch is halved, down to single pictures; one that fails alone is a failure of its own.
        """
        text = self._rendered(prompt)
        if not images:
            return []
        pictures = [each if isinstance(each, Prepared) else self._prepared(each) for each in images]
        ask = functools.partial(self._ask, text, max_new_tokens, repetition_penalty, sampling)
        # Drawn words one by one: the draws of a batch depend on who else is in it.
        batches = [pictures] if sampling is None else [[picture] for picture in pictures]
        replies = [reply for batch in batches for reply in in_halves(batch, ask, self._out_of_memory)]
        for place, reply in enumerate(replies):
            if heard is not None and isinstance(reply, Reply):
                heard(place, reply)
        return replies

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

    def _prepared(self, image: Image.Image) -> Prepared:
        """The picture as the vision tower takes it, shape (1, 3, height, width), float32."""
        pixels = self._processor.image_processor(images=[image], return_tensors="pt")["pixel_values"]
        return Prepared(pixels, image.width, image.height)

    def _inputs(self, text: str, pictures: Sequence[Prepared]) -> dict[str, Any]:
        """What the model is given: as the processor gives it for all pictures together, but they are prepared already.

        All have the same question and, prepared, the same size, so that one row of tokens is right for all.
        """
        import torch

        pixels = torch.cat([picture.content for picture in pictures])
        key = (text, pixels.shape[1:])
        if key not in self._asked:
            blank = Image.new("RGB", (pixels.shape[3], pixels.shape[2]))
            self._asked[key] = self._processor(images=[blank], text=[text], return_tensors="pt")
        row = self._asked[key]
        tokens = {name: row[name].expand(len(pictures), -1) for name in ("input_ids", "attention_mask")}
        return tokens | {"pixel_values": pixels.to(getattr(torch, self.setup.dtype))}

    def _ask(
        self,
        text: str,
        max_new_tokens: int,
        repetition_penalty: float,
        sampling: Sampling | None,
        pictures: list[Prepared],
    ) -> list[Reply | CaptionFailure]:
        import torch

        inputs = self._inputs(text, pictures)
        asked = int(inputs["input_ids"].shape[1])
        room = int(self._model.config.get_text_config().max_position_embeddings)
        if asked + max_new_tokens > room:
            raise ConfigError(
                f"[caption] max_new_tokens = {max_new_tokens:,}: with {asked:,} tokens of picture and prompt more than "
                f"the {room:,} that {self.setup.name} can take; lower it to {max(room - asked, 0):,}"
            )
        inputs = {name: tensor.to(self.setup.device) for name, tensor in inputs.items()}
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
        return [self._reply(row, asked) for row in output[:, asked:].tolist()]

    def _reply(self, tokens: list[int], asked: int) -> Reply:
        """Decode one row of new tokens, which is padded behind its closing token."""
        end = next((at for at, token in enumerate(tokens) if token in self._closing), None)
        said = tokens if end is None else tokens[:end]
        text = self._processor.decode(said, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        return Reply(str(text), "length" if end is None else "stop", len(said), prompt_tokens=asked)

    def _out_of_memory(self, picture: Prepared) -> CaptionFailure:
        needed = (
            f"{picture.width} x {picture.height} pixels: {self.setup.device} ran out of memory on it alone"
        )
        return CaptionFailure("out_of_memory", needed, attempts=1)
