"""What fetch is to bring in: which pictures, how deep, which of them in full size, and which it passes over."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from curation.candidates import Ints, Reach, available, column, distinct, read_candidates
from curation.decisions import read_verdicts
from curation.found import digest_of, found_table
from curation.passed_over import KNOWN, PassedOver, passed_over
from curation.refill import asked_depths, first_depths
from curation.verdicts import Verdicts
from spine.added_centroids import read_centroids
from spine.config import load_config
from spine.manifest import Manifest
from spine.publish import publish_json, publish_table
from spine.run import Run
from spine.settings import TWO_STEP, Config
from spine.table_files import read_table
from spine.tables import FULL_SIZE, SELECTION

WANTED = ("id", "url", "image_path", "sha256")
"""What fetch needs to know of a picture."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What is to be there once fetch is done."""

    neighbours: str
    """Digest of their manifest."""
    reach: Reach
    pictures: pa.Table
    """The distinct pictures within reach, in the order in which centroids name them first: WANTED, and rule and
    message of those that are passed over."""
    passed_over: PassedOver
    full_size: Ints | None
    """Ids of the pictures to be had in full size, ascending; None for all of them."""

    @classmethod
    def make(
        cls,
        run: Run,
        config: Config,
        neighbours: Manifest,
        *,
        depths: Sequence[int] | None,
        full_size: Sequence[int] | None,
        force: bool,
    ) -> "Plan":
        """What is to be fetched by now; arguments as those of `curation.fetched_images.fetch`."""
        verdicts = read_verdicts(run)
        if depths is None and not force:
            depths = _begun_depths(run, neighbours)
        if depths is None:
            depths = first_depths(run, config, verdicts)
        reach = _reach(run, verdicts, depths)
        table = read_candidates(run, reach, (*WANTED, *KNOWN))
        skipped = passed_over(table, config, verdicts)
        first = np.sort(distinct(table).first_row)
        pictures = table.select(list(WANTED)).take(pa.array(first, pa.int64()))
        for name, said in zip(("rule", "message"), skipped.said_of(column(pictures, "id")), strict=True):
            pictures = pictures.append_column(name, said)
        full: Ints | None = None
        if config.fetch.mode == TWO_STEP:
            begun = np.empty(0, dtype=np.int64) if force else _begun_full_size(run)
            full = begun if full_size is None else np.unique(np.asarray(full_size, dtype=np.int64))
        return cls(neighbours.digest, reach, pictures, skipped, full)

    def parameters(self) -> dict[str, object]:
        """Of the stage, as JSON values; what isn't used is left out."""
        parameters: dict[str, object] = {"depths": self.reach.depths, "kept": self.reach.kept}
        if self.reach.found is not None:
            parameters["found"] = digest_of(self.reach.found)
        if len(self.passed_over.ids):
            parameters["passed_over"] = self.passed_over.digest
        if self.full_size is not None:
            parameters["full_size"] = hashlib.sha256(self.full_size.tobytes()).hexdigest()
        return parameters

    def begin(self, run: Run) -> None:
        """Write down what a start after this one goes on with."""
        publish_json(run.depths, {"neighbours": self.neighbours, "depths": self.reach.depths})
        if self.reach.found is None:
            run.found_table.unlink(missing_ok=True)
        else:
            publish_table(run.found_table, self.reach.found)
        if self.full_size is not None:
            publish_table(run.full_size, pa.table({"id": self.full_size}, schema=FULL_SIZE))


def wanting_full_size(run: Run) -> list[int] | None:
    """The pictures that fetch is to bring in full size by now; None where it did, or always does.

    Args:
        run: With a finished selection.
    """
    if load_config(run.config).fetch.mode != TWO_STEP:
        return None
    selected = selected_ids(run)
    return None if np.array_equal(selected, _begun_full_size(run)) else selected.tolist()


def selected_ids(run: Run) -> Ints:
    """Ids of the selected pictures, ascending."""
    table = read_table(run.selection_table, SELECTION)
    return np.unique(column(table.filter(pa.compute.equal(table.column("verdict"), "selected")), "id"))


def _reach(run: Run, verdicts: Verdicts, depths: Sequence[int]) -> Reach:
    """The neighbours to bring in: within depth, deeper where curators ask, and what they keep beyond it."""
    table = read_candidates(run, columns=("id",))
    there = available(table)
    wanted = asked_depths(depths, there, verdicts)
    kept = {number for number, verdict in verdicts.images.items() if verdict.action == "keep"}
    if not kept:
        return Reach(wanted)
    named = column(table, "id")
    within = column(table, "rank") < np.asarray(wanted, dtype=np.int64)[column(table, "centroid_id")]
    beyond = np.isin(named, sorted(kept)) & ~np.isin(named, named[within])
    return Reach(wanted, np.unique(named[beyond]).tolist(), _found(run, verdicts, named, there))


def _found(run: Run, verdicts: Verdicts, neighbours: Ints, there: Ints) -> pa.Table | None:
    """What searches found and people keep, that is no centroid's neighbour; None where there is none."""
    kept = verdicts.found()
    if not kept:
        return None
    centroids = read_centroids(run, ["centroid_id"]).num_rows
    table = found_table(kept, neighbours, there.tolist(), centroids)
    return table if table.num_rows else None


def _begun_depths(run: Run, neighbours: Manifest) -> list[int] | None:
    """The depths of an earlier start on the same neighbours."""
    try:
        begun = json.loads(run.depths.read_text(encoding="utf-8"))
        if begun["neighbours"] == neighbours.digest:
            return [int(depth) for depth in begun["depths"]]
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        pass  # nothing begun on these neighbours
    return None


def _begun_full_size(run: Run) -> Ints:
    """The pictures that an earlier start was to bring in full size."""
    if not run.full_size.is_file():
        return np.empty(0, dtype=np.int64)
    return column(read_table(run.full_size, FULL_SIZE), "id")
