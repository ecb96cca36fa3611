"""The stage `caption`: asks a captioner for a description of every selected picture.

Pictures are put to the model in batches of [caption] batch_size in the order of their ids, and published in parts of
whole batches. So a run that was stopped goes on with the very batches an unbroken one would have had: what a model
says of a picture can depend on its neighbours in the batch (docs/captioning.md).
"""

from collections import Counter
from collections.abc import Collection, Generator, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from PIL import Image

from captioner.embedded import EmbeddedSetup
from captioner.engine import CaptionFailure, Engine, Reply, Setup
from captioner.http import HttpSetup
from captioner.pictures import read_ahead
from captioner.quality import word_count
from captioner.trimming import trim_prefix
from captioner.worklist import Unit, narrowed, read_done, read_units
from spine.config import load_config
from spine.progress import SILENT, Progress
from spine.prompts import Prompt, prompt_by_id
from spine.publish import publish_table
from spine.run import Run, part_path, part_paths
from spine.settings import CaptionConfig
from spine.stage import Manifest, Stage, read_manifest
from spine.tables import CAPTIONS

BATCHES_A_PART = 8
"""A killed run has lost what it did since its last part: the work of this many batches at most."""

Row = dict[str, Any]

_COUNTED = ["id", "status", "reason", "prefix_found", "finish_reason"]


def caption(
    run: Run,
    *,
    ids: Collection[int] | None = None,
    limit: int | None = None,
    force: bool = False,
    progress: Progress = SILENT,
) -> Manifest:
    """Describe the selected pictures.

    Args:
        run: With `selection` and `images` finished.
        ids: Only these of the selected pictures; None for all.
        limit: At most so many contents in this call, those of the lowest ids first; None for all.
        force: Throw away the captions that are there.
        progress: Told of every batch.

    Returns:
        The manifest. Where `ids` or `limit` left selected pictures without a row, it is that of an unfinished stage:
        its rows are published, its counts have them and the `missing` ones, but no manifest.json is written, so
        that no later stage takes the part for the whole.

    Raises:
        ConfigError: A setting doesn't fit this machine or the model.
        DataError: Nothing is selected, an id isn't selected, or a table is damaged.
        ModelError: The model is not here, damaged, or too large.
        ServiceError: The servers of the http engine can't be reached, or don't have the model.
    """
    config = load_config(run.require().config).caption
    prompt = prompt_by_id(config.prompt)
    setup: Setup = HttpSetup.of(config) if config.engine == "http" else EmbeddedSetup.of(config)
    inputs = {
        "selection": read_manifest(run.selection).digest,
        "images": read_manifest(run.images).digest,
    }
    units = read_units(run, prompt, setup.fingerprint, config.max_new_tokens)
    asked = narrowed(units, ids)
    stage = Stage.open(
        "captions",
        run.captions,
        parameters=_parameters(config, prompt, setup),
        inputs=inputs,
        grows_with=("selection", "images", "batch_size"),
        force=force,
    )
    if stage.published is not None:
        return stage.published
    work = _Work(run, config, prompt, setup, progress)
    work.do(units, asked, limit)
    return _closed(stage, units, work)


def _parameters(config: CaptionConfig, prompt: Prompt, setup: Setup) -> dict[str, Any]:
    return {
        "engine": config.engine,
        "fingerprint": setup.fingerprint,
        "prompt_id": prompt.prompt_id,
        "prompt_digest": prompt.digest,
        "max_new_tokens": config.max_new_tokens,
        "batch_size": setup.batch_size,
    }


class _Work:
    """One call's captioning: what was there, what is new."""

    def __init__(
        self, run: Run, config: CaptionConfig, prompt: Prompt, setup: Setup, progress: Progress
    ) -> None:
        self.run, self.config, self.prompt, self.setup = run, config, prompt, setup
        self.progress = progress
        self.outcomes: dict[int, Row] = {}
        """By picture id, what the counts need of its row."""

    def do(self, units: Sequence[Unit], asked: Sequence[Unit], limit: int | None) -> None:
        """Caption what is asked for and not yet there."""
        done = read_done(self.run, units)
        self._keep(done.select(_COUNTED).to_pylist())
        self._copy_known(asked, done)
        pictures = {number for unit in asked for number in unit.ids}
        self.progress.begin("caption", len(pictures), "pictures", done=len(pictures & self.outcomes.keys()))
        missing = [unit for unit in asked if unit.ids[0] not in self.outcomes][:limit]
        if missing:
            if self.setup.is_demo:
                self.progress.say(
                    f"captions by {self.setup.name}, the small model that knows drawn scenes alone"
                )
            engine = self.setup.load()
            try:
                self._publish_all(self._batches(engine, missing))
            finally:
                engine.close()
        self.progress.end()

    def _publish_all(self, batches: Generator[list[Row], None, None]) -> None:
        """Publish batches as they come, in parts.

        A part is whole batches, so where it ends, a later start begins a batch. What is complete when the work is
        stopped, by the user or by a server that is gone, is published too.
        """
        part: list[list[Row]] = []
        try:
            for rows in batches:
                part.append(rows)
                if len(part) == BATCHES_A_PART:
                    whole, part = part, []
                    self._publish([row for each in whole for row in each])
        finally:
            batches.close()
            if part:
                self._publish([row for each in part for row in each])

    def _copy_known(self, asked: Sequence[Unit], done: pa.Table) -> None:
        """Give a picture that joined others of the same content their caption."""
        new = {
            number: unit.caption_id for unit in asked for number in unit.ids if number not in self.outcomes
        }
        same = done.filter(pc.is_in(done["caption_id"], pa.array(sorted(set(new.values())), pa.string())))
        known = {row["caption_id"]: row for row in same.to_pylist()}
        copies = [{**known[name], "id": number} for number, name in new.items() if name in known]
        if copies:
            self._publish(copies)

    def _batches(self, engine: Engine, missing: Sequence[Unit]) -> Generator[list[Row], None, None]:
        """The rows of one batch after the other."""
        size = self.setup.batch_size
        batches = [missing[start : start + size] for start in range(0, len(missing), size)]
        for batch, pictures in zip(
            batches, read_ahead([unit.wanted for unit in each] for each in batches), strict=True
        ):
            good = [picture for picture in pictures if isinstance(picture, Image.Image)]
            replies = iter(engine.describe(good, self.prompt, self.config.max_new_tokens))
            outcomes = [next(replies) if isinstance(one, Image.Image) else one for one in pictures]
            described = [
                caption_row(unit.caption_id, outcome, self.prompt, self.setup)
                for unit, outcome in zip(batch, outcomes, strict=True)
            ]
            rows = [{**row, "id": n} for unit, row in zip(batch, described, strict=True) for n in unit.ids]
            self.progress.advance(len(rows), dict(Counter(row["reason"] for row in rows if row["reason"])))
            yield rows

    def _publish(self, rows: list[Row]) -> None:
        numbers = [int(path.stem.removeprefix("part-")) for path in part_paths(self.run.captions)]
        path = part_path(self.run.captions, max(numbers, default=-1) + 1)
        publish_table(path, pa.Table.from_pylist(rows, CAPTIONS))
        self._keep(rows)

    def _keep(self, rows: list[Row]) -> None:
        self.outcomes.update((row["id"], {name: row[name] for name in _COUNTED}) for row in rows)


def caption_row(name: str, outcome: Reply | CaptionFailure, prompt: Prompt, setup: Setup) -> Row:
    """The row of one caption, without its picture's id.

    Args:
        name: The caption id.
        outcome: What the engine, or the reading of the picture, gave.
        prompt: What was asked.
        setup: Who was asked.

    Returns:
        Columns of CAPTIONS. An answer that says nothing is a failure, `empty`, and keeps its raw text.
    """
    row: Row = dict.fromkeys(CAPTIONS.names) | {
        "caption_id": name,
        "prompt_id": prompt.prompt_id,
        "engine": setup.kind,
        "model": setup.name,
        "family": setup.family,
        "attempts": outcome.attempts,
    }
    if isinstance(outcome, CaptionFailure):
        return row | {"status": "failed", "reason": outcome.reason, "message": outcome.message}
    text, found = trim_prefix(outcome.text, prompt.prefix)
    row |= {
        "raw_caption": outcome.text,
        "prefix_found": found if prompt.prefix else None,
        "finish_reason": outcome.finish_reason,
        "tokens": outcome.tokens,
    }
    if not text:
        return row | {"status": "failed", "reason": "empty", "message": f"{setup.name} said nothing of it"}
    return row | {"status": "captioned", "caption": text, "words": word_count(text)}


def _closed(stage: Stage, units: Sequence[Unit], work: _Work) -> Manifest:
    """Finish the stage if every selected picture has its row; else say what there is."""
    selected = [number for unit in units for number in unit.ids]
    rows = [work.outcomes[number] for number in selected if number in work.outcomes]
    failed = Counter(row["reason"] for row in rows if row["status"] == "failed")
    counts = {
        "selected": len(selected),
        "captioned": sum(row["status"] == "captioned" for row in rows),
        "failed": failed.total(),
        **{f"failed_{reason}": n for reason, n in sorted(failed.items())},
        "prefix_missing": sum(row["status"] == "captioned" and row["prefix_found"] is False for row in rows),
        "truncated": sum(row["status"] == "captioned" and row["finish_reason"] == "length" for row in rows),
    }
    facts = {
        "model": work.setup.name,
        "family": work.setup.family,
        "prompt_id": work.prompt.prompt_id,
        "demo_models": work.setup.is_demo,
    }
    if len(rows) == len(selected):
        return stage.finish(counts, facts)
    counts["missing"] = len(selected) - len(rows)
    return Manifest(
        stage=stage.name,
        parameters=stage.parameters,
        inputs=stage.inputs,
        counts=counts,
        facts=facts,
        files=[],
    )
