"""Further captions of chosen pictures, each kept beside what is there: captions/takes/.

A picture is asked of again by the captioner of [caption], or by another prompt or model. What a captioner has not said
of it before is its likeliest words; asked once more, it draws them, with the number of the take as seed. Which of a
picture's captions is released, curators decide; without a decision it is the one of the captioner that [caption] names.
"""

import itertools
from collections import Counter, defaultdict
from collections.abc import Collection, Sequence
from contextlib import closing

import pyarrow as pa

from captioner.asked import Asked
from captioner.engine import Engine
from captioner.listed import refused_where_listed, rows_unless_listed, to_be_read
from captioner.rows import Row
from captioner.worklist import Unit, narrowed, read_units
from spine.errors import DataError
from spine.ids import caption_id
from spine.listed import Listed
from spine.manifest import MANIFEST, Manifest, find_manifest
from spine.progress import SILENT, Progress
from spine.publish import publish_table
from spine.run import Run, part_path, part_paths
from spine.stage import Stage
from spine.table_files import read_table
from spine.tables import CAPTIONS

_IDS = pa.schema([CAPTIONS.field("caption_id")])


def retake(
    run: Run,
    ids: Collection[int],
    *,
    prompt: str | None = None,
    model: str | None = None,
    progress: Progress = SILENT,
) -> Manifest:
    """Ask again of these pictures; what was there stays.

    Args:
        run: With captions, finished or not.
        ids: Selected pictures.
        prompt: Id of another prompt than that of [caption].
        model: Another model, asked for by the engine of [caption].
        progress: Told of every batch.

    Returns:
        Counts of this call: asked, captioned, and failed_REASON; its facts have the captioner and `captions`, the new
        caption ids. A picture that fails again gets no new row.

    Raises:
        ConfigError, DataError, ModelError, ServiceError: As `captioner.captions.caption`; there are no captions yet.
    """
    who = Asked.of(run, prompt=prompt, model=model)
    units = narrowed(read_units(run, who.captioner), ids)
    if not part_paths(run.captions):
        raise DataError(
            f"{run.captions}: no captions yet, so there is none to ask for again; `popfactory caption {run.folder}`"
        )
    progress.begin("caption again", sum(len(unit.ids) for unit in units), "pictures")
    progress.say(f"captioner {who.captioner}: {who.setup.name}, prompt {who.prompt.prompt_id}")
    listed = Listed(run)
    engine = who.setup.load()
    try:
        rows = [
            row
            for take, asked in sorted(_by_take(run, who, units).items())
            for row in _rows(engine, who, asked, take, listed, progress)
        ]
    finally:
        engine.close()
    rows = refused_where_listed(listed, who, rows)  # also one that a list names only since it was captioned
    captioned = [row for row in rows if row["status"] == "captioned"]
    if captioned:
        _add(run, captioned)
    progress.end()
    return _counted(who, rows, captioned)


def _counted(who: Asked, rows: Sequence[Row], captioned: Sequence[Row]) -> Manifest:
    failed = Counter(row["reason"] for row in rows if row["status"] == "failed")
    return Manifest(
        stage="takes",
        parameters=who.parameters,
        inputs={},
        counts={"asked": len(rows), "captioned": len(captioned)}
        | {f"failed_{reason}": n for reason, n in sorted(failed.items())},
        facts={
            "model": who.setup.name,
            "prompt_id": who.prompt.prompt_id,
            "captioner": who.captioner,
            "captions": [row["caption_id"] for row in captioned],
        },
        files=[],
    )


def _by_take(run: Run, who: Asked, units: Sequence[Unit]) -> dict[int, list[Unit]]:
    """The units by the number of the take that comes next of each, under the caption id of that take."""
    paths = [*run.captions.rglob("part-*.parquet")]
    known = {name for path in paths for name in read_table(path, _IDS)["caption_id"].to_pylist()}
    found: defaultdict[int, list[Unit]] = defaultdict(list)
    for unit in units:
        content = unit.wanted.sha256 if unit.wanted else ""
        for take in itertools.count():
            name = caption_id(content, who.captioner, take)
            if name not in known:
                found[take].append(Unit(name, unit.ids, unit.wanted))
                break
    return found


def _rows(
    engine: Engine, who: Asked, units: Sequence[Unit], take: int, listed: Listed, progress: Progress
) -> list[Row]:
    size = who.setup.batch_size
    batches = [units[start : start + size] for start in range(0, len(units), size)]
    rows = []
    with closing(who.read(engine, (to_be_read(listed, batch) for batch in batches))) as read:
        for batch, pictures in zip(batches, read, strict=True):
            told = rows_unless_listed(listed, who, engine, batch, pictures, take)
            progress.advance(len(told), dict(Counter(row["reason"] for row in told if row["reason"])))
            rows += told
    return rows


def _add(run: Run, rows: list[Row]) -> None:
    """Publish a part of takes; a finished stage's manifest is made anew, so that it names the part."""
    finished = find_manifest(run.captions)
    (run.captions / MANIFEST).unlink(missing_ok=True)
    numbers = [int(path.stem.removeprefix("part-")) for path in part_paths(run.caption_takes)]
    path = part_path(run.caption_takes, max(numbers, default=-1) + 1)
    publish_table(path, pa.Table.from_pylist(rows, CAPTIONS))
    if finished is not None:
        stage = Stage(finished.stage, run.captions, finished.parameters, finished.inputs, None)
        stage.finish(finished.counts, finished.facts)
