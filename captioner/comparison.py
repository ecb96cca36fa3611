"""Captions held against captions: those of another captioner, and the one a captioner gives of a blank picture."""

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from captioner.asked import Asked
from captioner.engine import Engine, Reply
from captioner.pictures import blank_picture
from captioner.trimming import trim_prefix
from spine.publish import publish_json
from spine.run import Run, part_paths
from spine.table_files import read_parts
from spine.tables import CAPTIONS

LIKE_BLANK = 0.9
"""From this share of words in common with the blank picture's caption on, a caption may be of no picture at all."""

_WORD = re.compile(r"\w+(?:['’]\w+)*")
_DIGITS = 4


def words_in_common(one: str, other: str) -> float:
    """The share of two captions' distinct words, whatever their case, that both have: twice those over the sum of each.

    Returns:
        0 to 1; 0 where neither has words. Source: Dice's coefficient.
    """
    first, second = (set(_WORD.findall(text.lower())) for text in (one, other))
    whole = len(first) + len(second)
    return 2 * len(first & second) / whole if whole else 0.0


def ask_blank(run: Run, who: Asked, engine: Engine) -> None:
    """Ask a captioner once of a picture that shows nothing, and keep what it says in captions/blank.json.

    A caption that says the same was written without looking. What fails is asked again by the next run.
    """
    known = blank_captions(run)
    if who.captioner in known:
        return
    [reply] = engine.describe([blank_picture()], who.prompt, who.config.max_new_tokens)
    if isinstance(reply, Reply):
        text, _ = trim_prefix(reply.text, who.prompt.prefix)
        publish_json(run.blank_captions, known | {who.captioner: text})


def blank_captions(run: Run) -> dict[str, str]:
    """What each captioner said of the blank picture, by its id."""
    if not run.blank_captions.is_file():
        return {}
    found: dict[str, str] = json.loads(run.blank_captions.read_text(encoding="utf-8"))
    return found


def like_blank(captions: Sequence[str], blank: str) -> int:
    """How many captions have LIKE_BLANK of their words in common with the blank picture's."""
    return sum(words_in_common(caption, blank) >= LIKE_BLANK for caption in captions)


def compare_captioners(run: Run, rows: pa.Table) -> list[dict[str, Any]]:
    """How far the captions agree with those of each captioner that was asked before.

    Args:
        run: Whose captions/others/ are compared with.
        rows: Captioned rows of the captioner asked now: id and caption.

    Returns:
        For each, by its id: captioner, model, prompt_id, pictures that both described, words_in_common on average,
        and shuffled: the same with what the other said of the next picture.
    """
    ours = dict(zip(rows["id"].to_pylist(), rows["caption"].to_pylist(), strict=True))
    folders = sorted(path for path in run.other_captions.glob("*") if part_paths(path))
    return [_compared(folder.name, ours, folder) for folder in folders]


def _compared(captioner: str, ours: Mapping[int, str], folder: Path) -> dict[str, Any]:
    columns = ["id", "status", "caption", "model", "prompt_id"]
    rows = read_parts(folder, CAPTIONS, columns)
    rows = rows.filter(pc.equal(rows["status"], "captioned"))
    theirs = dict(zip(rows["id"].to_pylist(), rows["caption"].to_pylist(), strict=True))
    both = sorted(ours.keys() & theirs.keys())
    following = [*both[1:], *both[:1]]
    found = {
        "captioner": captioner,
        "model": rows["model"][0].as_py() if rows.num_rows else "",
        "prompt_id": rows["prompt_id"][0].as_py() if rows.num_rows else "",
        "pictures": len(both),
    }
    if not both:
        return found
    same = np.mean([words_in_common(ours[number], theirs[number]) for number in both])
    shuffled = np.mean(
        [words_in_common(ours[one], theirs[other]) for one, other in zip(both, following, strict=True)]
    )
    return found | {
        "words_in_common": round(float(same), _DIGITS),
        "shuffled": round(float(shuffled), _DIGITS),
    }
