"""A few pictures described by several captioners side by side, to choose a prompt or a model before a run.

RUN/previews/NAME/ has a part of the table CAPTIONS for each captioner, in the order they were asked for, page.html, and
a manifest that names them. Nothing of it goes into captions/ or a release.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa

from captioner.asked import Asked
from captioner.engine import Engine
from captioner.listed import refused_where_listed, rows_unless_listed, to_be_read
from captioner.preview_page import publish_page
from captioner.worklist import Unit, narrowed, read_units
from spine.config import load_config
from spine.listed import Listed
from spine.manifest import Manifest
from spine.progress import SILENT, Progress
from spine.publish import publish_table
from spine.run import Run, part_path
from spine.stage import Stage
from spine.tables import CAPTIONS


def preview(
    run: Run,
    n: int,
    *,
    prompts: Sequence[str] = (),
    models: Sequence[str] = (),
    ids: Collection[int] | None = None,
    force: bool = False,
    progress: Progress = SILENT,
) -> Manifest:
    """Describe some of the selected pictures with each of these prompts and models.

    The same n pictures are taken each time, as if drawn at random: those whose ids have the lowest SHA-256. What is
    there from an earlier call with the same arguments is not asked again.

    Args:
        run: With `selection` and `images` finished.
        n: Pictures at most.
        prompts: Ids of prompts; none for the one of [caption].
        models: As [caption] model, asked for by its engine; none for the one there.
        ids: Taken from these of the selected pictures; None for all.
        force: Ask again.
        progress: Told of every batch.

    Returns:
        Its facts: `folder` and `page` in the run, `ids` of the pictures, and `captioners`, each with `captioner`,
        `model`, `prompt_id`, `asked` as [caption] names the model, and `part`, the file with its rows.

    Raises:
        ConfigError, DataError, ModelError, ServiceError: As `captioner.captions.caption`.
    """
    config = load_config(run.require().config).caption
    whose = [
        Asked.of(run, prompt=prompt, model=model)
        for model in dict.fromkeys(models or (config.model,))
        for prompt in dict.fromkeys(prompts or (config.prompt,))
    ]
    units = [_drawn(run, who, n, ids) for who in whose]
    folder = run.caption_previews / _name(whose, units[0])
    stage = Stage.open(
        "preview",
        folder,
        parameters={
            "captioners": [who.captioner for who in whose],
            "captions": [unit.caption_id for unit in units[0]],
        },
        inputs={},
        force=force,
    )
    if stage.published is not None:
        return stage.published
    listed = Listed(run)
    _ask_all(folder, whose, units, listed, progress)
    facts = _facts(run, folder, whose, units[0])
    counts = publish_page(run, folder, facts, [unit.wanted for unit in to_be_read(listed, units[0])])
    return stage.finish(counts, facts)


def _facts(run: Run, folder: Path, whose: Sequence[Asked], units: Sequence[Unit]) -> dict[str, Any]:
    """Of the manifest: where the preview lies, of which pictures, and whose part is which."""
    return {
        "folder": folder.relative_to(run.folder).as_posix(),
        "page": (folder / "page.html").relative_to(run.folder).as_posix(),
        "ids": [unit.ids[0] for unit in units],
        "captioners": [
            {
                "captioner": who.captioner,
                "model": who.setup.name,
                "prompt_id": who.prompt.prompt_id,
                "asked": who.config.model,
                "part": part_path(folder, place).name,
            }
            for place, who in enumerate(whose)
        ],
        "demo_models": any(who.setup.is_demo for who in whose),
    }


def _drawn(run: Run, who: Asked, n: int, ids: Collection[int] | None) -> list[Unit]:
    units = narrowed(read_units(run, who.captioner), ids)
    return sorted(units, key=lambda unit: hashlib.sha256(str(unit.ids[0]).encode()).digest())[:n]


def _name(whose: Sequence[Asked], units: Sequence[Unit]) -> str:
    content = [[who.captioner for who in whose], [unit.caption_id for unit in units]]
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:12]


def _ask_all(
    folder: Path, whose: Sequence[Asked], units: Sequence[list[Unit]], listed: Listed, progress: Progress
) -> None:
    """Publish each captioner's part, with one load of a model for all its prompts."""
    missing = [place for place in range(len(whose)) if not part_path(folder, place).is_file()]
    total, left = (sum(len(units[place]) for place in places) for places in (range(len(whose)), missing))
    progress.begin("preview", total, "captions", done=total - left)
    with _loaded() as engine_of:
        for place in missing:
            who = whose[place]
            progress.say(f"captioner {who.captioner}: {who.setup.name}, prompt {who.prompt.prompt_id}")
            rows, size = [], who.setup.batch_size
            asked = [_first(unit) for unit in units[place]]
            batches = [asked[start : start + size] for start in range(0, len(asked), size)]
            engine = engine_of(who)
            to_read = (to_be_read(listed, batch) for batch in batches)
            with closing(who.read(engine, to_read)) as read:
                for batch, pictures in zip(batches, read, strict=True):
                    told = rows_unless_listed(listed, who, engine, batch, pictures)
                    reasons = Counter(row["reason"] for row in told if row["reason"])
                    progress.advance(len(batch), dict(reasons))
                    rows += told
            rows = refused_where_listed(listed, who, rows)
            publish_table(part_path(folder, place), pa.Table.from_pylist(rows, CAPTIONS))
    progress.end()


def _first(unit: Unit) -> Unit:
    return Unit(unit.caption_id, unit.ids[:1], unit.wanted)


@contextmanager
def _loaded() -> Iterator[Callable[[Asked], Engine]]:
    """Loads captioners' engines, one at a time, since two models might not fit; the one that is loaded is kept."""
    kept: list[tuple[str, Engine]] = []

    def engine_of(who: Asked) -> Engine:
        if not kept or kept[0][0] != who.setup.fingerprint:
            if kept:
                kept.pop()[1].close()
            kept.append((who.setup.fingerprint, who.setup.load()))
        return kept[0][1]

    try:
        yield engine_of
    finally:
        if kept:
            kept[0][1].close()
