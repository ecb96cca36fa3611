"""What every captioner looks like from outside: pictures and a prompt in, texts and why they ended out."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from PIL import Image

from spine.prompts import Prompt

FinishReason = Literal["stop", "length"]


@dataclass(frozen=True, slots=True)
class Reply:
    """What a model said of one picture."""

    text: str
    """As the model gave it, not trimmed."""

    finish_reason: FinishReason
    """stop: the model ended by itself; length: it was cut off at max_new_tokens."""

    tokens: int
    """New tokens, the closing one not counted."""

    attempts: int = 1
    """How often the picture was put to the model."""


@dataclass(frozen=True, slots=True)
class CaptionFailure:
    """Why one picture got no caption."""

    reason: str
    """One of FAILURES, or of spine.images.REFUSALS: what the stage counts it under."""

    message: str
    """What a person needs to know."""

    attempts: int = 0
    """How often the picture was put to the model."""


FAILURES = ("not_fetched", "changed", "out_of_memory", "empty")
"""Reasons of this package: no fetched picture under this id; its bytes are no longer those that were fetched;
the model ran out of memory on this picture alone; the model said nothing. A picture that can't be opened has
one of spine.images.REFUSALS."""


class Engine(Protocol):
    """A captioner. One instance is used by one thread."""

    @property
    def name(self) -> str:
        """The model as a card names it: "llava-hf/llava-1.5-7b-hf@REVISION", "demo-llava"."""

    @property
    def family(self) -> str:
        """llava, cogvlm or other: which of LAION-POP's caption columns it fills."""

    @property
    def kind(self) -> str:
        """embedded or http."""

    @property
    def is_demo(self) -> bool:
        """Whether it is the small model that comes with popfactory."""

    @property
    def fingerprint(self) -> str:
        """Digest of what shapes a reply besides picture, prompt and length: weights, revision, dtype, preprocessing."""

    def describe(
        self, images: Sequence[Image.Image], prompt: Prompt, max_new_tokens: int
    ) -> list[Reply | CaptionFailure]:
        """Describe each picture.

        Args:
            images: RGB, upright.
            prompt: What is asked of each.
            max_new_tokens: Length of a reply at most.

        Returns:
            One for each picture, in order. A failure concerns its own picture alone.

        Raises:
            ConfigError: The prompt or the length doesn't fit the model.
        """
