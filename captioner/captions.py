"""The stage `caption`: asks a captioner for a description of every selected picture.

Pictures are put to the model in batches of [caption] batch_size in the order of their ids, and published in parts of
whole batches. So a run that was stopped goes on with the very batches an unbroken one would have had: what a model
says of a picture can depend on its neighbours in the batch (docs/captioning.md).
"""

import time
from collections import Counter, deque
from collections.abc import Collection, Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import closing
from typing import Any, TypeVar

import pyarrow as pa
import pyarrow.compute as pc

from captioner.asked import Asked
from captioner.comparison import ask_blank
from captioner.cost import COLUMNS as SPENT_COLUMNS
from captioner.cost import Spent, spent_on, told
from captioner.engine import CaptionFailure, Engine, Prepared
from captioner.failed import let_go, take_in_hand
from captioner.figures import NO_YARDSTICKS, Yardsticks, figures_of
from captioner.languages import load_languages
from captioner.listed import rows_unless_listed, to_be_read
from captioner.replies import KeptReplies
from captioner.report_page import publish_report
from captioner.rows import Row
from captioner.shelves import bring_forward
from captioner.tally import COUNTED, tally
from captioner.worklist import Unit, narrowed, read_done, read_units
from spine.listed import Listed
from spine.manifest import MANIFEST, Manifest, find_manifest, read_manifest
from spine.progress import SILENT, Progress
from spine.publish import publish_table
from spine.run import Run, part_path, part_paths
from spine.stage import Stage
from spine.table_files import read_parts
from spine.tables import CAPTIONS

Item = TypeVar("Item")

BATCHES_A_PART = 8
"""Batches that are published together; replies that came since the last part are kept beside (`captioner.replies`)."""

TELL_EVERY_S = 0.5
"""Seconds between two words of progress while a batch is under way."""

SAY_EVERY_S = 60.0
"""Seconds between two lines about what was spent."""

_REPLIES = ".replies.jsonl"


def caption(
    run: Run,
    *,
    ids: Collection[int] | None = None,
    limit: int | None = None,
    failed_only: bool = False,
    force: bool = False,
    yardsticks: Yardsticks = NO_YARDSTICKS,
    progress: Progress = SILENT,
) -> Manifest:
    """Describe the selected pictures.

    What other captioners (model, prompt or parameters) wrote before stays beside; see `captioner.shelves`.

    Args:
        run: With `selection` and `images` finished.
        ids: Only these of the selected pictures; None for all.
        limit: At most so many contents in this call, those of the lowest ids first; None for all.
        failed_only: Ask again for the pictures that failed before, and for no others.
        force: Throw away this captioner's captions.
        yardsticks: What the finished captions are held against, for the report.
        progress: Told of every batch.

    Returns:
        The manifest. Where selected pictures are left without a row, it is that of an unfinished stage:
        its rows are published, its counts have them and the `missing` ones, but no manifest.json is written, so
        that no later stage takes the part for the whole.

    Raises:
        ConfigError: A setting doesn't fit this machine or the model; or a list can't be read, also one that
            changed meanwhile: what is captioned stays.
        DataError: Nothing is selected, an id isn't selected, or a table is damaged.
        ModelError: The model is not here, damaged, or too large.
        ServiceError: The servers of the http engine can't be reached, or don't have the model.
    """
    who = Asked.of(run)
    inputs = {"selection": read_manifest(run.selection).digest, "images": read_manifest(run.images).digest}
    units = read_units(run, who.captioner)
    asked = narrowed(units, ids)
    if force or (failed_only and _has_failed(run)):
        (run.captions / MANIFEST).unlink(missing_ok=True)
    # Every parameter is part of each row's captioner, so none clears the folder: bring_forward sorts the parts.
    stage = Stage.open(
        "captions",
        run.captions,
        parameters=who.parameters,
        inputs=inputs,
        grows_with=(*who.parameters, *inputs),
    )
    if stage.published is not None:
        return stage.published
    bring_forward(run, who.captioner, discard=force)
    if force:
        (run.captions / _REPLIES).unlink(missing_ok=True)
    if failed_only:
        asked = take_in_hand(run, asked)
    work = _Work(run, who, progress)
    work.do(units, asked, limit)
    return _closed(stage, units, work, yardsticks)


def _has_failed(run: Run) -> bool:
    manifest = find_manifest(run.captions)
    return manifest is None or manifest.counts.get("failed", 0) > 0


class _Work:
    """One call's captioning: what was there, what is new."""

    def __init__(self, run: Run, who: Asked, progress: Progress) -> None:
        self.run, self.who, self.progress = run, who, progress
        self.here: set[int] = set()
        """Ids of the pictures that have their row."""
        self._spent, self._said = Spent(), time.monotonic()
        self._wanted: set[int] = set()
        """Ids of the pictures that will have their row when this call ends well."""
        self._listed = Listed(run)
        self._kept: KeptReplies | None = None
        self._early: dict[str, int] = {}
        """Pictures of each caption id that progress knows of though their batch is under way."""

    def do(self, units: Sequence[Unit], asked: Sequence[Unit], limit: int | None) -> None:
        """Caption what is asked for and not yet there."""
        done = read_done(self.run, units)
        self.here.update(done["id"].to_pylist())
        self._copy_known(asked, done)
        missing = [unit for unit in asked if unit.ids[0] not in self.here][:limit]
        self._wanted = {number for unit in missing for number in unit.ids}
        self._wanted |= {number for unit in asked for number in unit.ids if number in self.here}
        self._begin()
        if missing:
            self._introduce()
            engine = self.who.setup.load()
            try:
                ask_blank(self.run, self.who, engine)
                load_languages()
                self._kept = KeptReplies(self.run.captions / _REPLIES)
                self._early = {
                    unit.caption_id: len(unit.ids) for unit in missing if self._kept.find(unit.caption_id)
                }
                self._publish_all(self._batches(engine, missing))
            finally:
                engine.close()
                if self._kept is not None:
                    self._kept.close()
        let_go(self.run)
        self.progress.end()

    def _begin(self) -> None:
        here = len(self._wanted & self.here) + sum(self._early.values())
        self.progress.begin("caption", len(self._wanted), "pictures", done=here)

    def _introduce(self) -> None:
        setup, prompt = self.who.setup, self.who.prompt
        self.progress.say(f"captioner {self.who.captioner}: {setup.name}, prompt {prompt.prompt_id}")
        if setup.is_demo:
            self.progress.say(f"captions by {setup.name}, the small model that knows drawn scenes alone")

    def _publish_all(self, batches: Generator[list[Row], None, None]) -> None:
        """Publish batches as they come, in parts.

        A part is whole batches, so where it ends, a later start begins a batch. What is complete when the work is
        stopped, by the user or by a server that is gone, is published too.
        """
        part: list[list[Row]] = []
        try:
            for rows in batches:
                part.append(rows)
                self._tell_spent(rows)
                if len(part) == BATCHES_A_PART:
                    whole, part = part, []
                    self._publish([row for each in whole for row in each])
        finally:
            batches.close()
            if part:
                self._publish([row for each in part for row in each])

    def _copy_known(self, asked: Sequence[Unit], done: pa.Table) -> None:
        """Give a picture that joined others of the same content their caption."""
        new = {number: unit.caption_id for unit in asked for number in unit.ids if number not in self.here}
        names = pa.array(sorted(set(new.values())), pa.string())
        if not pc.any(pc.is_in(done["caption_id"], names)).as_py():
            return
        rows = read_parts(self.run.captions, CAPTIONS)
        known = {
            row["caption_id"]: row for row in rows.filter(pc.is_in(rows["caption_id"], names)).to_pylist()
        }
        self._publish([{**known[name], "id": number} for number, name in new.items() if name in known])

    def _batches(self, engine: Engine, missing: Sequence[Unit]) -> Generator[list[Row], None, None]:
        """The rows of one batch after the other."""
        size, overlap = self.who.setup.batch_size, self.who.setup.overlap
        batches = [missing[start : start + size] for start in range(0, len(missing), size)]
        with closing(self.who.read(engine, (to_be_read(self._listed, batch) for batch in batches))) as opened:
            read = self._counted(zip(batches, opened, strict=True))
            if overlap == 1:
                for batch, pictures in read:
                    yield self._told(self._rows(engine, batch, pictures))
            else:
                yield from self._overlapping(engine, read, overlap)

    def _overlapping(
        self,
        engine: Engine,
        read: Iterator[tuple[Sequence[Unit], Sequence[Prepared | CaptionFailure]]],
        overlap: int,
    ) -> Generator[list[Row], None, None]:
        """The same, with some batches put to the engine at once."""
        asking: deque[Future[list[Row]]] = deque()
        with ThreadPoolExecutor(overlap, thread_name_prefix="asking") as threads:
            try:
                for batch, pictures in read:
                    asking.append(threads.submit(self._rows, engine, batch, pictures))
                    if len(asking) == overlap:
                        yield self._awaited(asking.popleft())
                while asking:
                    yield self._awaited(asking.popleft())
            finally:
                engine.close()  # or what is still being asked would be waited for

    def _awaited(self, asked: Future[list[Row]]) -> list[Row]:
        """A batch's rows when they are there; meanwhile progress is told of what has come of it and of the next."""
        while not wait([asked], TELL_EVERY_S).done:
            if early := self._fresh():
                self._early |= early
                self.progress.advance(sum(early.values()))
        return self._told(asked.result())

    def _fresh(self) -> dict[str, int]:
        """How many pictures each reply is of that has come since this was last asked, by caption id."""
        return {unit.caption_id: len(unit.ids) for unit in self._kept.fresh()} if self._kept else {}

    def _rows(
        self, engine: Engine, batch: Sequence[Unit], pictures: Sequence[Prepared | CaptionFailure]
    ) -> list[Row]:
        """The rows of a batch; what a list names by now is not put to the engine, and fails by the list's rule."""
        return rows_unless_listed(self._listed, self.who, engine, batch, pictures, kept=self._kept)

    def _counted(self, read: Iterator[Item]) -> Iterator[Item]:
        """The same. The rate is counted from the first on, with what is known already: the time left is of the rest."""
        for number, item in enumerate(read):
            if number == 0:
                self._begin()
            yield item

    def _told(self, rows: list[Row]) -> list[Row]:
        """The same; progress is told of these rows, and of what else has come."""
        fresh, names = self._fresh(), {row["caption_id"] for row in rows}
        known = sum(self._early.pop(name, 0) for name in names)
        others = {name: pictures for name, pictures in fresh.items() if name not in names}
        self._early |= others
        failures = Counter(row["reason"] for row in rows if row["reason"])
        self.progress.advance(len(rows) - known + sum(others.values()), dict(failures))
        return rows

    def _publish(self, rows: list[Row]) -> None:
        numbers = [int(path.stem.removeprefix("part-")) for path in part_paths(self.run.captions)]
        path = part_path(self.run.captions, max(numbers, default=-1) + 1)
        publish_table(path, pa.Table.from_pylist(rows, CAPTIONS))
        self.here.update(row["id"] for row in rows)
        if self._kept is not None:
            self._kept.settle(row["caption_id"] for row in rows)

    def _tell_spent(self, rows: list[Row]) -> None:
        """Add a batch up; a part can take several minutes."""
        self._spent += spent_on(pa.Table.from_pylist(rows, SPENT_COLUMNS))
        if time.monotonic() - self._said >= SAY_EVERY_S:
            self.progress.say(f"so far {told(self._spent, self._spent.cost(self.who.config))}")
            self._said = time.monotonic()


def _closed(stage: Stage, units: Sequence[Unit], work: _Work, yardsticks: Yardsticks) -> Manifest:
    """Finish the stage if every selected picture has its row; else say what there is."""
    selected = sorted(number for unit in units for number in unit.ids)
    rows = read_parts(work.run.captions, CAPTIONS, [*COUNTED, "caption_id", "raw_caption", "prompt_tokens"])
    rows = rows.filter(pc.is_in(rows["id"], pa.array(selected, pa.int64()))).sort_by("id")
    counts = {"selected": len(selected), **tally(rows)}
    setup, spent = work.who.setup, spent_on(rows)
    facts: dict[str, Any] = {
        "tokens": spent.tokens,
        "prompt_tokens": spent.prompt_tokens,
        "cost": spent.cost(work.who.config),
        "model": setup.name,
        "family": setup.family,
        "prompt_id": work.who.prompt.prompt_id,
        "prompt_text": work.who.prompt.text,
        "captioner": work.who.captioner,
        "demo_models": setup.is_demo,
    }
    if rows.num_rows == len(selected):
        (work.run.captions / _REPLIES).unlink(missing_ok=True)
        sample = work.who.config.agreement_sample
        facts["figures"] = figures_of(work.run, rows, work.who.captioner, sample, yardsticks)
        publish_report(work.run, rows, counts, facts)
        return stage.finish(counts, facts)
    counts["missing"] = len(selected) - rows.num_rows
    return Manifest(
        stage=stage.name,
        parameters=stage.parameters,
        inputs=stage.inputs,
        counts=counts,
        facts=facts,
        files=[],
    )
