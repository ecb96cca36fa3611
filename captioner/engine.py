"""What every captioner looks like from outside: pictures and a prompt in, texts and why they ended out."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from PIL import Image

from spine.prompts import Prompt

FinishReason = Literal["stop", "length"]


@dataclass(frozen=True, slots=True)
class Wanted:
    """A picture to be read."""

    place: str
    """Where its bytes are; see spine.sources."""

    sha256: str
    """Of the bytes that were fetched, in hex."""


@dataclass(frozen=True, slots=True)
class Prepared:
    """A picture as its engine takes it."""

    content: Any
    width: int
    """Pixels, before its preparation."""

    height: int


@dataclass(frozen=True, slots=True)
class Reply:
    """What a model said of one picture."""

    text: str
    """As the model gave it, not trimmed."""

    finish_reason: FinishReason
    """stop: the model ended by itself; length: it was cut off at max_new_tokens."""

    tokens: int | None
    """New tokens, the closing one not counted; of a server as it counts them, None where it doesn't say."""

    attempts: int = 1
    """How often the picture was put to the model."""

    prompt_tokens: int | None = None
    """Of picture and prompt, each time they were put to the model; None where a server doesn't say."""


Heard = Callable[[int, Reply], None]
"""Told of a reply as soon as it has come, with the place of its picture among those asked of; from any thread."""


@dataclass(frozen=True, slots=True)
class Sampling:
    """How words are drawn where a caption is asked again; without it the likeliest word is taken each time."""

    seed: int
    """The same seed, picture and model give the same words in one engine; no two engines agree."""

    temperature: float = 0.7
    top_p: float = 0.9


@dataclass(frozen=True, slots=True)
class CaptionFailure:
    """Why one picture got no caption."""

    reason: str
    """One of FAILURES, or of spine.images.REFUSALS: what the stage counts it under."""

    message: str
    """What a person needs to know."""

    attempts: int = 0
    """How often the picture was put to the model."""


FAILURES: dict[str, str] = {
    "takedown": "on a takedown list",
    "hash_block": "its hash is on a block list",
    "not_fetched": "there is no fetched picture under this id",
    "changed": "its bytes are no longer those that were fetched",
    "out_of_memory": "the model ran out of memory on it alone",
    "empty": "the model said nothing of it",
    "refused": "the server refused it, or ended its answer for a reason of its own",
    "timeout": "the server didn't answer in time, time and again",
    "server_error": "the server failed on it, or broke off, time and again",
    "bad_reply": "the server's answer was none, time and again",
}
"""Why a picture that can be opened has no caption: reason to meaning. The others are in spine.images.REFUSALS."""


class Setup(Protocol):
    """A captioner as far as it is known without loading or calling it."""

    @property
    def kind(self) -> str:
        """embedded or http."""

    @property
    def name(self) -> str:
        """The model as a card names it: "llava-hf/llava-1.5-7b-hf@REVISION", "demo-llava"."""

    @property
    def family(self) -> str:
        """llava, cogvlm or other: which of LAION-POP's caption columns it fills."""

    @property
    def is_demo(self) -> bool:
        """Whether it is the small model that comes with popfactory."""

    @property
    def fingerprint(self) -> str:
        """Digest of what shapes a reply besides picture, prompt and length: weights, revision, dtype, preprocessing."""

    @property
    def batch_size(self) -> int:
        """Pictures that are put to `Engine.describe` at once."""

    @property
    def overlap(self) -> int:
        """Calls of `Engine.describe` that go on at the same time: while one waits for its last, the next begins."""

    def load(self) -> "Engine":
        """The engine, ready to be asked.

        Raises:
            ModelError: The checkpoint is damaged, or too large for the device.
            ServiceError: A server doesn't answer, or doesn't have the model.
        """


class Engine(Protocol):
    """A captioner, ready. As many threads as its set-up's `overlap` ask it, any number let it read."""

    def read(self, wanted: Wanted | None, mode: str) -> Prepared | CaptionFailure:
        """Read one picture and make of it what `describe` takes, ahead of the model.

        Args:
            wanted: None where the picture was not fetched.
            mode: One of captioner.pictures.PREPROCESSING.
        """

    def describe(
        self,
        images: Sequence[Image.Image | Prepared],
        prompt: Prompt,
        max_new_tokens: int,
        repetition_penalty: float = 1.0,
        sampling: Sampling | None = None,
        heard: Heard | None = None,
    ) -> list[Reply | CaptionFailure]:
        """Describe each picture.

        Args:
            images: As `read` gives them, or RGB and upright.
            prompt: What is asked of each.
            max_new_tokens: Length of a reply at most.
            repetition_penalty: What the likelihood of words that are there already is divided by; 1 is off.
            sampling: None for greedy.
            heard: Told of each reply, also where the call then fails.

        Returns:
            One for each picture, in order. A failure concerns its own picture alone.

        Raises:
            ConfigError: The prompt or the length doesn't fit the model.
            ServiceError: The servers can no longer be reached, or refuse every request.
        """

    def close(self) -> None:
        """Let go of memory and connections."""
