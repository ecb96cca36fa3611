"""Which of a picture's captions counts: that of the captioner asked now, unless a curator chose or wrote another.

A curator's choice names a caption by its id, so it stands whoever is asked later: a caption that was kept or edited
is found among those of earlier captioners too.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from curation.verdicts import Verdict
from spine.ids import caption_id
from spine.run import Run
from spine.table_files import read_parts, read_table
from spine.tables import CAPTIONS, IMAGES


@dataclass(frozen=True, slots=True)
class Choice:
    """The caption that counts for a picture."""

    text: str | None
    """None: there is none."""
    reason: str = ""
    """Why there is none."""
    row: Mapping[str, Any] | None = None
    """Of CAPTIONS: the one it is, or was written over."""
    edited_by: str | None = None
    """The curator who wrote it; None where the model's stands."""


NO_CAPTION = Choice(None, "missing")


def choose(
    own: Iterable[Mapping[str, Any]],
    others: Iterable[Mapping[str, Any]],
    verdicts: Mapping[str, Verdict],
) -> Choice:
    """The caption that counts for one picture: the one a curator kept last, else the first that none rejected.

    Args:
        own: Its rows of CAPTIONS by the captioner asked now.
        others: Its rows by any other; they count only where a curator kept one.
        verdicts: What curators decided, by caption id.
    """
    best, best_standing = NO_CAPTION, -2
    for row, is_own in [*((row, True) for row in own), *((row, False) for row in others)]:
        verdict = verdicts.get(row["caption_id"])
        is_kept = verdict is not None and verdict.action == "keep"
        if not is_own and not is_kept:
            continue
        choice = _judged(row, verdict)
        standing = -1 if choice.text is None else verdict.event if verdict is not None and is_kept else 0
        if standing > best_standing:
            best, best_standing = choice, standing
    return best


def chosen_captions(run: Run, verdicts: Mapping[str, Verdict], columns: Sequence[str]) -> dict[int, Choice]:
    """For each picture with a caption, or a reason why it has none, the one that counts.

    Args:
        run: With captions.
        verdicts: What curators decided, by caption id.
        columns: Of CAPTIONS, those the choices' rows need beside what choosing takes.

    Raises:
        DataError: A table is damaged.
    """
    needed = ("caption_id", "id", "status", "reason", "caption", "captioner", "take")
    names = list(dict.fromkeys((*needed, *columns)))
    own = _by_picture(read_parts(run.captions, CAPTIONS, names))
    others = _by_picture(_kept(run, verdicts, names))
    return {
        number: choose(own.get(number, ()), others.get(number, ()), verdicts)
        for number in own.keys() | others.keys()
    }


def captions_of_family(run: Run, family: str, verdicts: Mapping[str, Verdict]) -> dict[int, str]:
    """What captioners of one family said of each picture, whoever is asked now: LAION-POP has two side by side.

    The captioner asked now comes first, then those of captions/others/ by their ids. A caption that a curator rejected
    doesn't count.

    Args:
        run: With captions.
        family: llava or cogvlm.
        verdicts: What curators decided, by caption id.
    """
    names = ("caption_id", "id", "status", "caption", "family", "captioner", "take")
    schema = pa.schema([CAPTIONS.field(name) for name in names])
    own = read_parts(run.captions, schema)
    others = [read_table(path, schema) for path in sorted(run.other_captions.glob("*/part-*.parquet"))]
    others = [
        _of_this_content(run, table) for table in others if family in table["family"].unique().to_pylist()
    ]
    found: dict[int, str] = {}
    for table in [own, *others]:
        wanted = pc.and_(pc.equal(table["family"], family), pc.equal(table["status"], "captioned"))
        for row in table.filter(wanted).select(["id", "caption_id", "caption"]).to_pylist():
            verdict = verdicts.get(row["caption_id"])
            if verdict is None or verdict.action != "reject":
                found.setdefault(row["id"], row["caption"])
    return found


def shelved_parts(run: Run) -> list[Path]:
    """Parts of CAPTIONS beside those of the captioner asked now."""
    return sorted(run.captions.glob("*/part-*.parquet")) + sorted(run.captions.glob("*/*/part-*.parquet"))


def _kept(run: Run, verdicts: Mapping[str, Verdict], names: Sequence[str]) -> pa.Table:
    """The shelved rows that curators kept, of pictures that are still what they were."""
    schema = pa.schema([CAPTIONS.field(name) for name in names])
    wanted = pa.array([name for name, verdict in verdicts.items() if verdict.action == "keep"], pa.string())
    if not len(wanted):
        return schema.empty_table()
    tables = [read_table(path, schema) for path in shelved_parts(run)]
    kept = [table.filter(pc.is_in(table["caption_id"], wanted)) for table in tables]
    return _of_this_content(run, pa.concat_tables([schema.empty_table(), *kept]))


def _of_this_content(run: Run, rows: pa.Table) -> pa.Table:
    """The rows whose caption was written of the bytes that the picture has now.

    The stage takes such rows out of its own parts; shelves it leaves as they are.
    """
    if not rows.num_rows:
        return rows
    images = read_parts(run.images, IMAGES, ["id", "sha256"])
    known = dict(zip(images["id"].to_pylist(), images["sha256"].to_pylist(), strict=True))
    columns = (rows[name].to_pylist() for name in ("caption_id", "id", "captioner", "take"))
    holds = [
        captioner is None or name == caption_id(known.get(number) or "", captioner, take or 0)
        for name, number, captioner, take in zip(*columns, strict=True)
    ]
    return rows.filter(pa.array(holds, pa.bool_()))


def _by_picture(rows: pa.Table) -> dict[int, list[Mapping[str, Any]]]:
    found: dict[int, list[Mapping[str, Any]]] = {}
    for row in rows.to_pylist():
        found.setdefault(row["id"], []).append(row)
    return found


def _judged(row: Mapping[str, Any], verdict: Verdict | None) -> Choice:
    if verdict is not None and verdict.action == "reject":
        return Choice(None, "rejected", row)
    if verdict is not None and verdict.text:
        return Choice(verdict.text, "", row, verdict.curator)
    if row["status"] != "captioned":
        return Choice(None, row["reason"] or "failed", row)
    return Choice(row["caption"], "", row)
