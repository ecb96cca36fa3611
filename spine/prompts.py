"""The prompts captions are asked with, by id. A caption names the id, so that it can be asked again.

A prompt never changes under its id: another wording is another id.
"""

import hashlib
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from spine.errors import ConfigError
from spine.run import Run

CAPTION_PREFIX = "This image showcases"
"""The words LAION-POP's prompt asks a caption to start with; trimmed from the published caption."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Prompt:
    """One wording, put to the captioner after the image."""

    prompt_id: str
    """Name and version, such as "laion-pop"."""

    text: str
    """What the captioner is asked."""

    prefix: str
    """Words the reply is asked to begin with, cut from the published caption; empty for none."""

    @property
    def digest(self) -> str:
        """SHA-256 of the text, in hex: part of every caption's id."""
        return hashlib.sha256(self.text.encode()).hexdigest()


# The wording of the 2023 post, quotes included: straight ones inside, a typographic pair at the end.
_LAION_POP = (
    "Can you please describe this image in up to two paragraphs? Please specify any objects "
    "within the image, backgrounds, scenery, interactions, and gestures or poses. If they are "
    "multiple of any object, please specify how many. Is there text in the image, and if so, what"
    " does it say? If there is any lighting in the image, can you identify where it is and what "
    "it looks like? What style is the image? If there are people or characters in the image, what"
    " emotions are they conveying? Please keep your descriptions factual and terse but complete. "
    "DO NOT add any unnecessary speculation about the things that are not part of the image such "
    'as "the image is inspiring to viewers" or "seeing this makes you feel joy". DO NOT add '
    'things such as "creates a unique and entertaining visual", as these descriptions are '
    "interpretations and not a part of the image itself. The description should be purely "
    "factual, with no subjective speculation. Make sure to include the style of the image, for "
    "example cartoon, photograph, 3d render etc. Start with the words ‘This image showcases’:"
)

_PROMPTS = (
    Prompt(prompt_id="laion-pop", text=_LAION_POP, prefix=CAPTION_PREFIX),
    Prompt(prompt_id="detail", text="Describe this image in detail.", prefix=CAPTION_PREFIX),
    Prompt(prompt_id="short", text="Describe this image in one sentence.", prefix=CAPTION_PREFIX),
)

PROMPTS: dict[str, Prompt] = {prompt.prompt_id: prompt for prompt in _PROMPTS}
"""The prompts that come with popfactory, by id."""

_ID = re.compile(r"[a-z0-9][a-z0-9-]{0,39}")
_LONGEST = 8_000
_PICTURE = "<image>"  # where LLaVA's template puts the picture; in a prompt it would stand for a second one


def prompts_of(run: Run) -> dict[str, Prompt]:
    """Every prompt a run can ask with, by id: the ones above, and those of its own prompts.toml.

    Args:
        run: In its prompts.toml a table a prompt, named by its id: `text`, and `prefix` where the reply is to begin
            with certain words.

    Raises:
        ConfigError: prompts.toml is wrong.
    """
    path = run.prompts
    if not path.is_file():
        return dict(PROMPTS)
    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: can't be read: {error}") from None
    return PROMPTS | {name: _own(f"{path}: [{name}]", name, table) for name, table in tables.items()}


def _own(place: str, name: str, table: Any) -> Prompt:
    if name in PROMPTS:
        raise ConfigError(f"{place}: this prompt never changes; give yours an id of its own")
    if not _ID.fullmatch(name):
        raise ConfigError(f"{place}: small letters, digits and - were needed, 40 at most")
    values = table if isinstance(table, dict) else {}
    text, prefix = values.get("text", ""), values.get("prefix", "")
    if set(values) - {"text", "prefix"} or not isinstance(text, str) or not isinstance(prefix, str):
        raise ConfigError(f"{place}: text and prefix in quotes were needed, and nothing else")
    if not text.strip() or len(text) > _LONGEST:
        raise ConfigError(f"{place} text: 1 to {_LONGEST:,} signs were needed")
    if _PICTURE in text:
        raise ConfigError(
            f"{place} text: {_PICTURE} stands for the picture, which comes first anyway; take it out"
        )
    return Prompt(prompt_id=name, text=text, prefix=prefix)


def prompt_by_id(prompt_id: str, prompts: Mapping[str, Prompt] = PROMPTS) -> Prompt:
    """Look a prompt up.

    Args:
        prompt_id: Its id.
        prompts: Those there are, as prompts_of gives them.

    Raises:
        ConfigError: No prompt has this id; the message lists those there are.
    """
    try:
        return prompts[prompt_id]
    except KeyError:
        raise ConfigError(f"prompt {prompt_id!r} is unknown; there are: {', '.join(prompts)}") from None
