"""Captions for a planted run: one a selected picture, faults at known numbers; and some of an earlier captioner."""

from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from spine.ids import caption_id
from spine.manifest import read_manifest
from spine.publish import publish_table
from spine.run import part_path
from spine.stage import Stage
from spine.table_files import read_table
from spine.tables import CAPTIONS, SELECTION
from tests.unit.ui.planted import HOSTILE, Planted

NOW, BEFORE = "a" * 16, "b" * 16
"""The captioner asked now, and one asked earlier."""

PART = 10
"""Rows of a part."""


def fault_of(number: int) -> dict[str, Any]:
    """What is wrong with picture number's caption."""
    if number % 10 == 3:
        return {"repetition": 0.4, "caption": "a word a word a word a word a word a word"}
    if number % 10 == 6:
        plain = "a plain colour with a white corner."
        return {"speculation": 2, "caption": f"{plain} It might be a wall, possibly.", "clean_caption": plain}
    if number % 10 == 7:
        return {"truncated": True, "finish_reason": "length"}
    if number == 10:
        failed = dict.fromkeys(("caption", "raw_caption", "words", "tokens", "repetition"))
        return failed | {"status": "failed", "reason": "empty", "message": "nothing was said"}
    return {"caption": HOSTILE} if number == 1 else {}


def selected(planted: Planted) -> list[int]:
    """Numbers of the selected pictures, in order of centroid and rank."""
    table = read_table(planted.run.selection_table, SELECTION)
    chosen = table.filter(pc.equal(table["verdict"], "selected"))["id"].to_pylist()
    return [planted.ids.index(each) for each in chosen]


def row_of(planted: Planted, number: int, captioner: str = NOW) -> dict[str, Any]:
    """A row of CAPTIONS."""
    words = f"a plain colour of number {number}" if captioner == NOW else f"the same before, number {number}"
    fault = fault_of(number) if captioner == NOW else {}
    return (
        dict.fromkeys(CAPTIONS.names)
        | {"id": planted.ids[number], "caption_id": caption_id(planted.hashes[number], captioner)}
        | {"status": "captioned", "caption": words, "raw_caption": f"This image showcases {words}"}
        | {"prefix_found": True, "finish_reason": "stop", "tokens": 9, "words": len(words.split())}
        | {"prompt_id": "laion-pop" if captioner == NOW else "short", "engine": "embedded"}
        | {"model": "planted-llava", "family": "llava", "attempts": 1, "truncated": False}
        | {"repetition": 0.0, "speculation": 0, "interpretation": 0, "refusal": False, "language": "en"}
        | {"captioner": captioner, "take": 0}
        | fault
    )


def plant_captions(planted: Planted, *, finished: bool = True) -> list[int]:
    """Write captions of all selected pictures, unless unfinished: then of the first PART of them.

    Returns:
        Numbers of the selected pictures, in order of centroid and rank.
    """
    run, numbers = planted.run, selected(planted)
    inputs = {"selection": read_manifest(run.selection).digest}
    stage = Stage.open("captions", run.captions, {}, inputs)
    by_id = sorted(numbers, key=lambda number: planted.ids[number])
    parts = [by_id[start : start + PART] for start in range(0, len(by_id), PART)]
    for place, part in enumerate(parts if finished else parts[:1]):
        rows = [row_of(planted, number) for number in part]
        publish_table(part_path(run.captions, place), pa.Table.from_pylist(rows, CAPTIONS))
    earlier = [row_of(planted, number, BEFORE) for number in numbers[:4]]
    publish_table(part_path(run.other_captions / BEFORE, 0), pa.Table.from_pylist(earlier, CAPTIONS))
    if finished:
        failed = sum(row_of(planted, number)["status"] == "failed" for number in numbers)
        counts = {"selected": len(numbers), "captioned": len(numbers) - failed, "failed": failed}
        stage.finish(counts, {"model": "planted-llava", "prompt_id": "laion-pop", "demo_models": True})
    return numbers
