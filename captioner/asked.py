"""Who is asked what: a captioner with its prompt and parameters, and the rows it gives of a batch."""

from collections.abc import Generator, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from captioner.embedded import EmbeddedSetup
from captioner.engine import CaptionFailure, Engine, Prepared, Reply, Sampling, Setup
from captioner.http import HttpSetup
from captioner.pictures import read_ahead
from captioner.replies import KeptReplies
from captioner.rows import Row, caption_row
from captioner.second_try import Answer, asked_twice
from captioner.worklist import Unit, captioner_id
from spine.config import load_config
from spine.prompts import Prompt, prompt_by_id, prompts_of
from spine.run import Run
from spine.settings import CaptionConfig


@dataclass(frozen=True, slots=True)
class Asked:
    """Who is asked what."""

    config: CaptionConfig
    prompt: Prompt
    setup: Setup
    captioner: str
    """Id over all that shapes a caption besides its picture."""

    @classmethod
    def of(cls, run: Run, *, prompt: str | None = None, model: str | None = None) -> "Asked":
        """What a run's settings ask for.

        Args:
            run: With popfactory.toml, and prompts.toml where it has prompts of its own.
            prompt: Id of another prompt than theirs.
            model: Another model than theirs, in its newest revision.

        Raises:
            ConfigError, DataError, ModelError: A setting is wrong, there are none, or the model is not here.
        """
        config = load_config(run.require().config).caption
        if prompt is not None:
            config = replace(config, prompt=prompt)
        if model is not None and model != config.model:
            config = replace(config, model=model, revision="")
        wording = prompt_by_id(config.prompt, prompts_of(run))
        setup: Setup = HttpSetup.of(config) if config.engine == "http" else EmbeddedSetup.of(config)
        name = captioner_id(wording, setup.fingerprint, config.max_new_tokens, config.second_try)
        return cls(config, wording, setup, name)

    @property
    def parameters(self) -> dict[str, Any]:
        """For the manifest."""
        return {
            "engine": self.config.engine,
            "fingerprint": self.setup.fingerprint,
            "prompt_id": self.prompt.prompt_id,
            "prompt_digest": self.prompt.digest,
            "max_new_tokens": self.config.max_new_tokens,
            "second_try": self.config.second_try,
            "image_mode": self.config.image_mode,
            "captioner": self.captioner,
            "batch_size": self.setup.batch_size,
            "agreement_sample": self.config.agreement_sample,
        }

    def read(
        self, engine: Engine, batches: Iterable[Sequence[Unit]]
    ) -> Generator[list[Prepared | CaptionFailure], None, None]:
        """Read the pictures of each batch for an engine of this captioner, some batches ahead; to be closed."""
        wanted = ([unit.wanted for unit in batch] for batch in batches)
        return read_ahead(wanted, lambda each: engine.read(each, self.config.image_mode))

    def rows(
        self,
        engine: Engine,
        batch: Sequence[Unit],
        pictures: Sequence[Prepared | CaptionFailure],
        take: int = 0,
        kept: KeptReplies | None = None,
    ) -> list[Row]:
        """Ask an engine of this captioner about a batch.

        Args:
            engine: Loaded from `setup`.
            batch: What the pictures are of.
            pictures: One a unit, as that engine has read it, or why it can't be used.
            take: 0 for the likeliest words; else the seed of those that are drawn.
            kept: Has replies that need not be asked for again, and is given those that come.

        Returns:
            One row for each picture of each unit, in order.
        """
        good = [
            (unit, each) for unit, each in zip(batch, pictures, strict=True) if isinstance(each, Prepared)
        ]
        answers = iter(self._answers(engine, good, Sampling(take) if take else None, kept))
        outcomes = [next(answers) if isinstance(one, Prepared) else one for one in pictures]
        rows = []
        for unit, outcome in zip(batch, outcomes, strict=True):
            row = caption_row(unit.caption_id, outcome, self.prompt, self.setup, self.captioner, take)
            rows += [{**row, "id": number} for number in unit.ids]
        return rows

    def _answers(
        self,
        engine: Engine,
        good: Sequence[tuple[Unit, Prepared]],
        sampling: Sampling | None,
        kept: KeptReplies | None,
    ) -> list[Answer | CaptionFailure]:
        length = self.config.max_new_tokens
        replies = self._replies(engine, good, sampling, kept)
        if self.config.second_try and sampling is None:
            return asked_twice(engine, [picture for _, picture in good], replies, self.prompt, length)
        return [reply if isinstance(reply, CaptionFailure) else Answer(reply) for reply in replies]

    def _replies(
        self,
        engine: Engine,
        good: Sequence[tuple[Unit, Prepared]],
        sampling: Sampling | None,
        kept: KeptReplies | None,
    ) -> list[Reply | CaptionFailure]:
        """The first replies, those that are kept without asking."""
        known = [kept.find(unit.caption_id) if kept is not None else None for unit, _ in good]
        missing = [each for each, reply in zip(good, known, strict=True) if reply is None]

        def heard(place: int, reply: Reply) -> None:
            if kept is not None:
                kept.keep(missing[place][0], reply)

        pictures = [picture for _, picture in missing]
        length = self.config.max_new_tokens
        asked = iter(engine.describe(pictures, self.prompt, length, sampling=sampling, heard=heard))
        return [next(asked) if reply is None else reply for reply in known]
