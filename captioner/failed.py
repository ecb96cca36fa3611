"""The pictures that failed before, as a call for them alone takes them in hand."""

import json
from collections.abc import Sequence

import pyarrow as pa
import pyarrow.compute as pc

from captioner.worklist import Unit, kept_rows
from spine.publish import publish_json
from spine.run import Run

_RETRYING = ".retrying.json"  # what was taken in hand: a kill forgets none


def take_in_hand(run: Run, asked: Sequence[Unit]) -> list[Unit]:
    """The units that failed before, their rows removed; of a call that was killed, those it still had to do."""
    numbers = {number for unit in asked for number in unit.ids}
    rows = kept_rows(run, lambda part: [True] * part.num_rows)
    failed = rows.filter(pc.equal(rows["status"], "failed"))["id"].to_pylist()
    wanted = (set(failed) | _noted(run)) & numbers
    publish_json(run.captions / _RETRYING, sorted(wanted))

    def holds(part: pa.Table) -> list[bool]:
        pairs = zip(part["id"].to_pylist(), part["status"].to_pylist(), strict=True)
        return [status != "failed" or number not in wanted for number, status in pairs]

    kept_rows(run, holds)
    return [unit for unit in asked if wanted.intersection(unit.ids)]


def let_go(run: Run) -> None:
    """They have their rows."""
    (run.captions / _RETRYING).unlink(missing_ok=True)


def _noted(run: Run) -> set[int]:
    path = run.captions / _RETRYING
    return set(json.loads(path.read_text(encoding="utf-8"))) if path.is_file() else set()
