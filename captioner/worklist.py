"""What a captioning run has to do: the selected pictures, each content once, and what an earlier start left."""

import hashlib
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from captioner.engine import Wanted
from spine.errors import DataError
from spine.ids import caption_id
from spine.lists import ON_LISTS
from spine.prompts import Prompt
from spine.publish import publish_table
from spine.run import Run, part_paths
from spine.table_files import read_parts, read_table
from spine.tables import CAPTIONS, IMAGES, SELECTION

_NO_PICTURE = "not_fetched"
_BRIEF = pa.schema([CAPTIONS.field(name) for name in ("id", "caption_id", "status", "reason")])


@dataclass(frozen=True, slots=True)
class Unit:
    """One content to be described, for all the pictures that have it."""

    caption_id: str
    """32 hex digits over content and captioner."""

    ids: tuple[int, ...]
    """Selected pictures with this content, in rising order."""

    wanted: Wanted | None
    """Where the first of them is; None where it was not fetched."""


def captioner_id(prompt: Prompt, fingerprint: str, max_new_tokens: int, second_try: bool) -> str:
    """The name of a captioner: the same for the same model, question and parameters, on any machine.

    Args:
        prompt: What is asked.
        fingerprint: The engine's.
        max_new_tokens: Length of the reply at most.
        second_try: Whether a loop or a reply that was cut off is asked again.

    Returns:
        16 hex digits.
    """
    parts = "\0".join((prompt.digest, fingerprint, str(max_new_tokens), str(second_try)))
    return hashlib.sha256(parts.encode()).hexdigest()[:16]


def read_units(run: Run, captioner: str) -> list[Unit]:
    """Every selected picture in one unit, by rising lowest id, with the ids of this captioner's captions.

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
        Unit(caption_id(content, captioner), tuple(ids), fetched.get(ids[0]))
        for content, ids in by_content.items()
    ]


def kept_in(run: Run, centroid: int) -> list[int]:
    """Ids of the pictures that are selected for a centroid because a person keeps them, in order of rank.

    Raises:
        DataError: There is none, or the table is damaged.
    """
    selection = read_table(run.selection_table, SELECTION)
    by_person = pc.and_(pc.equal(selection["verdict"], "selected"), pc.equal(selection["rule"], "person"))
    here = selection.filter(pc.and_(by_person, pc.equal(selection["centroid_id"], centroid)))
    if not here.num_rows:
        raise DataError(
            f"{run.selection_table}: nothing that people keep is selected for centroid {centroid}; keep something "
            f"there and run `popfactory select {run.folder}`"
        )
    found: list[int] = here["id"].to_pylist()
    return found


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

    A row is void when its picture has other content now, or failed by a list: the lists are asked anew. Rows of
    pictures that are no longer selected stay: selected again, they need no new caption.

    Returns:
        Columns `id`, `caption_id`, `status` and `reason`.
    """
    now = {number: unit.caption_id for unit in units for number in unit.ids}

    def holds(rows: pa.Table) -> list[bool]:
        known = (rows[column].to_pylist() for column in ("id", "caption_id", "reason"))
        return [
            now.get(number, name) == name and reason not in ON_LISTS
            for number, name, reason in zip(*known, strict=True)
        ]

    return kept_rows(run, holds)


def kept_rows(run: Run, holds: Callable[[pa.Table], list[bool]]) -> pa.Table:
    """The rows of the captioner asked now, after removing from its parts those that don't hold.

    Args:
        run: Its captions are those meant.
        holds: Given `id`, `caption_id`, `status` and `reason` of a part, says of each row whether it holds.

    Returns:
        The same columns.
    """
    tables = [_BRIEF.empty_table()]
    for path in part_paths(run.captions):
        rows = read_table(path, _BRIEF)
        judged = holds(rows)
        if not any(judged):
            path.unlink()
            continue
        if not all(judged):
            mask = pa.array(judged, pa.bool_())
            publish_table(path, read_table(path, CAPTIONS).filter(mask))
            rows = rows.filter(mask)
        tables.append(rows)
    return pa.concat_tables(tables)
