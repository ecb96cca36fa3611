"""The side-by-side page of a preview: a row a picture, a column a captioner, and what differs marked."""

import base64
import html
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from captioner.engine import Wanted
from captioner.tally import tally
from spine.caption_flags import FLAGS, flags
from spine.errors import ImageError
from spine.filters import UNSAFE
from spine.html_page import framed_page
from spine.images import thumbnail
from spine.publish import publish_text
from spine.run import Run
from spine.sources import read_bytes
from spine.table_files import read_parts, read_table
from spine.tables import CAPTIONS

_SIDE_PX = 256
_WORD = re.compile(r"\w+|\W+")
_SCORED = pa.schema([("id", pa.int64()), ("unsafe", pa.float32())])
_STYLE = """
body { max-width: none; } table { border-collapse: collapse; margin-bottom: 2rem; } td.n { text-align: right; }
td, th { text-align: left; vertical-align: top; padding: .5rem 1rem .5rem 0; border-top: 1px solid var(--line); }
.text { white-space: pre-wrap; overflow-wrap: anywhere; } .about { color: var(--quiet); font-size: 13px; }
.from { display: none; font-size: 13px; font-weight: bold; } img { max-width: 256px; }
mark { background: var(--mark); color: inherit; } .failed { color: var(--bad); }
@media (min-width: 721px) { .text { min-width: 18rem; } }
@media (max-width: 720px) { .side, .side tbody, .side tr, .side td, .from { display: block; }
.side th { display: none; } .side td + td { border-top: none; padding-top: 0; } }
"""


def publish_page(
    run: Run, folder: Path, facts: Mapping[str, Any], pictures: Sequence[Wanted | None]
) -> dict[str, int]:
    """Publish folder/page.html of the parts that are there.

    Every text is escaped, nothing is loaded, and pictures that are probably unsafe or unscored are blurred.

    Args:
        run: Whose scores say what is unsafe.
        folder: The preview's.
        facts: `ids` and `captioners` of the preview.
        pictures: Where each of `ids` lies.

    Returns:
        Counts of the preview: pictures, and captions by outcome.
    """
    tables = [read_table(folder / each["part"], CAPTIONS) for each in facts["captioners"]]
    heads = [
        f"{html.escape(each['model'])}<br>prompt {html.escape(each['prompt_id'])}"
        for each in facts["captioners"]
    ]
    unsafe = _unsafe(run)
    by_id = [{row["id"]: row for row in _flagged(table)} for table in tables]
    rows = [
        f"<tr><td>{_figure(number, wanted, unsafe)}" + _cells(heads, [known[number] for known in by_id])
        for number, wanted in zip(facts["ids"], pictures, strict=True)
    ]
    marked = "Words that only one captioner uses of a picture are marked." if len(tables) > 1 else ""
    parts = [
        f"<p>{marked}</p>",
        _summary(heads, tables),
        "<table class='side'><tr><th>" + "".join(f"<th>{head}" for head in heads),
        *rows,
        "</table>",
    ]
    warning = "By a small model that knows drawn scenes alone." if facts["demo_models"] else ""
    heading = f"{len(rows):,} pictures, {len(tables)} captioners"
    publish_text(
        folder / "page.html", framed_page("Preview of captions", heading, _STYLE, parts, warning=warning)
    )
    outcomes = Counter(status for table in tables for status in table["status"].to_pylist())
    return {"pictures": len(rows), "captioned": outcomes["captioned"], "failed": outcomes["failed"]}


def _unsafe(run: Run) -> dict[int, float | None]:
    scores = read_parts(run.scores, _SCORED)
    return dict(zip(scores["id"].to_pylist(), scores["unsafe"].to_pylist(), strict=True))


def _flagged(table: pa.Table) -> list[dict[str, Any]]:
    """The rows, with a column for each of FLAGS."""
    for name, marks in flags(table).items():
        table = table.append_column(name, marks)
    rows: list[dict[str, Any]] = table.to_pylist()
    return rows


def _figure(number: int, wanted: Wanted | None, unsafe: Mapping[int, float | None]) -> str:
    score = unsafe.get(number)
    blurred = score is None or not score <= UNSAFE
    try:
        small = thumbnail(read_bytes(wanted.place), _SIDE_PX, blurred=blurred) if wanted else None
    except ImageError:
        small = None
    if small is None:
        return f"<p class='about'>{number}: no picture here</p>"
    data = base64.b64encode(small).decode()
    return f"<img alt='' src='data:image/webp;base64,{data}'><p class='about'>{number}</p>"


def _cells(heads: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> str:
    """One picture's captions, each word that no other of them has in a mark."""
    texts = [row["caption"] or "" for row in rows]
    words = [set(_WORD.findall(text.lower())) for text in texts]
    cells = []
    for place, (head, row, text) in enumerate(zip(heads, rows, texts, strict=True)):
        # For narrow screens, where columns stand below each other.
        whose = f"<div class='from'>{head.replace('<br>', ', ')}</div>"
        if row["status"] != "captioned":
            cells.append(
                f"<td class='failed'>{whose}{html.escape(row['reason'])}: {html.escape(row['message'] or '')}"
            )
            continue
        others = set().union(*(words[:place] + words[place + 1 :]))
        said = (
            f"<mark>{html.escape(part)}</mark>"
            if len(rows) > 1 and part[0].isalnum() and part.lower() not in others
            else html.escape(part)
            for part in _WORD.findall(text)
        )
        cells.append(
            f"<td>{whose}<div class='text'>{''.join(said)}</div><p class='about'>{', '.join(_about(row))}</p>"
        )
    return "".join(cells)


def _about(row: Mapping[str, Any]) -> list[str]:
    told = [f"{row['words']} words"] + ([f"{row['tokens']} tokens"] if row["tokens"] is not None else [])
    told += [f"{row[name]} words of {name}" for name in ("speculation", "interpretation") if row[name]]
    return told + [name.replace("_", " ") for name in FLAGS if row[name]]


def _summary(heads: Sequence[str], tables: Sequence[pa.Table]) -> str:
    counts = [tally(table) for table in tables]
    lines = ["<table><tr><th>" + "".join(f"<th>{head}" for head in heads)]
    lines += [
        f"<tr><th>{name.replace('_', ' ')}" + "".join(f"<td class='n'>{each[name]:,}" for each in counts)
        for name in ("captioned", "failed", *FLAGS)
    ]
    for name in ("words", "tokens"):
        means = [[value for value in table[name].to_pylist() if value is not None] for table in tables]
        lines.append(
            f"<tr><th>{name}, mean"
            + "".join(f"<td class='n'>{sum(each) / len(each):.1f}" if each else "<td>" for each in means)
        )
    return "\n".join([*lines, "</table>"])
