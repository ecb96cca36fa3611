"""What a captioning run has to do: the selected pictures, each content once, and what an earlier start left."""

import hashlib
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from captioner.pictures import Wanted
from spine.errors import DataError
from spine.prompts import Prompt
from spine.publish import publish_table
from spine.run import Run, part_paths
from spine.tables import CAPTIONS, IMAGES, SELECTION, read_parts, read_table

_NO_PICTURE = "not_fetched"


@dataclass(frozen=True, slots=True)
class Unit:
    """One content to be described, for all the pictures that have it."""

    caption_id: str
    """32 hex digits over content, prompt, engine and length."""

    ids: tuple[int, ...]
    """Selected pictures with this content, in rising order."""

    wanted: Wanted | None
    """Where the first of them is; None where it was not fetched."""


def caption_id(content: str, prompt: Prompt, fingerprint: str, max_new_tokens: int) -> str:
    """The name of a caption: the same for the same picture, question and captioner, on any machine.

    Args:
        content: SHA-256 of the picture's bytes, in hex.
        prompt: What is asked.
        fingerprint: The engine's.
        max_new_tokens: Length of the reply at most.

    Returns:
        32 hex digits.
    """
    parts = "\0".join((content, prompt.digest, fingerprint, str(max_new_tokens)))
    return hashlib.sha256(parts.encode()).hexdigest()[:32]


def read_units(run: Run, prompt: Prompt, fingerprint: str, max_new_tokens: int) -> list[Unit]:
    """Every selected picture in one unit, by rising lowest id.

    Raises:
        DataError: Nothing is selected, or a table is damaged.
    """
    selection = read_table(
        run.selection_table, pa.schema([SELECTION.field("id"), SELECTION.field("verdict")])
    )
    chosen = selection.filter(pc.equal(selection["verdict"], "selected"))
    selected = sorted(set(chosen["id"].to_pylist()))
    if not selected:
        raise DataError(
            f"{run.selection_table}: none of {selection.num_rows:,} candidates is selected, so there is nothing to "
            "caption; `popfactory status` shows which rule took them"
        )
    images = read_parts(run.images, IMAGES, ["id", "status", "image_path", "sha256"])
    here = pc.and_(pc.equal(images["status"], "fetched"), pc.is_valid(images["image_path"]))
    fetched = {row["id"]: Wanted(row["image_path"], row["sha256"]) for row in images.filter(here).to_pylist()}
    by_content: dict[str, list[int]] = {}
    for number in selected:
        wanted = fetched.get(number)
        by_content.setdefault(wanted.sha256 if wanted else f"{_NO_PICTURE} {number}", []).append(number)
    return [
        Unit(caption_id(content, prompt, fingerprint, max_new_tokens), tuple(ids), fetched.get(ids[0]))
        for content, ids in by_content.items()
    ]


def narrowed(units: Sequence[Unit], ids: Collection[int] | None) -> list[Unit]:
    """The units that hold one of `ids`, in order; all of them for None.

    Raises:
        DataError: An id isn't selected.
    """
    if ids is None:
        return list(units)
    wanted = set(ids)
    unknown = sorted(wanted.difference(*(unit.ids for unit in units)))
    if unknown:
        raise DataError(f"{len(unknown):,} of the pictures asked for are not selected, {unknown[0]} for one")
    return [unit for unit in units if wanted.intersection(unit.ids)]


def read_done(run: Run, units: Iterable[Unit]) -> pa.Table:
    """The rows that earlier starts left, after removing those that no longer hold.

    A row is void when its picture has other content now. Rows of pictures that are no longer selected stay: selected
    again, they need no new caption.

    Returns:
        Columns of CAPTIONS.
    """
    now = {number: unit.caption_id for unit in units for number in unit.ids}
    tables = [CAPTIONS.empty_table()]
    for path in part_paths(run.captions):
        rows = read_table(path, CAPTIONS)
        pairs = zip(rows["id"].to_pylist(), rows["caption_id"].to_pylist(), strict=True)
        holds = [now.get(number, name) == name for number, name in pairs]
        if not all(holds):
            rows = rows.filter(pa.array(holds, pa.bool_()))
            publish_table(path, rows)
        tables.append(rows)
    return pa.concat_tables(tables)
