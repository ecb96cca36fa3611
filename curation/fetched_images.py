"""Fetch: every candidate's picture, brought in or referenced where it lies, measured; or why not.

A local picture stays where it is and is opened there; one with an address only is downloaded and stored
by the hash of its content. Each picture has one row with one final status. A deeper fetch keeps what an
earlier one brought in.
"""

import json
from collections.abc import Sequence
from contextlib import ExitStack

import numpy as np
import pyarrow as pa

from curation.candidates import Reach, available, column, distinct, read_candidates
from curation.decisions import read_verdicts
from curation.intake import Intake, Row
from curation.ledger import ON_LISTS, Ledger, Validity
from curation.refill import asked_depths, first_depths
from spine import images as pictures
from spine import web as web_access
from spine.config import load_config
from spine.filters import RULES
from spine.lists import BlockLists
from spine.progress import SILENT, Progress
from spine.publish import publish_json
from spine.run import Run
from spine.settings import Config
from spine.stage import MANIFEST, Manifest, Stage, read_manifest
from spine.web import Web

REASONS: dict[str, str] = {
    **web_access.REFUSALS,
    **pictures.REFUSALS,
    "changed": "its bytes are not those that were embedded",
    "opted_out": "its host reserves it",
    "robots_unknown": "its host's robots.txt or tdmrep.json could not be read, so nobody knows whether it may be taken",
    "placeholder": "its host gives the very same picture for other addresses too",
    **{rule: RULES[rule] for rule in ON_LISTS},
}
"""Why a picture was not brought in: reason to meaning."""

PART_ROWS = 512
"""Pictures in one part: what a stopped fetch loses at most, beside those at work."""

_WANTED = ("id", "url", "image_path", "sha256")


def fetch(
    run: Run,
    *,
    depths: Sequence[int] | None = None,
    force: bool = False,
    retry_failed: bool = False,
    progress: Progress = SILENT,
    web: Web | None = None,
) -> Manifest:
    """Bring in every neighbour within depth.

    Args:
        run: With finished neighbours.
        depths: For each centroid id how many of its neighbours; None goes on with those of an earlier
            start on the same neighbours, else takes the first ones (`curation.refill.first_depths`).
        force: Start over.
        retry_failed: Ask those addresses again that gave nothing but may another time.
        progress: Told of pictures done.
        web: The way to the network; None is the public web within the limits of [fetch].

    Raises:
        DataError: The neighbours aren't finished, or the disk budget is used up.
        ConfigError: A setting is wrong or a list can't be read.
    """
    config = load_config(run.config)
    neighbours = read_manifest(run.neighbours)
    lists = BlockLists.load(config.lists, run.folder)
    reach = _reach(run, config, neighbours, depths, force)
    # A scaled picture has another hash than the one a list may name: with new lists it is fetched anew.
    grows_with = {"depths", "kept", "neighbours", "honour_opt_out", "placeholder_repeats", "same_bytes"} | (
        set() if config.fetch.max_side_px else {"lists"}
    )
    stage = Stage.open(
        "images",
        run.images,
        parameters={
            "depths": reach.depths,
            "kept": reach.kept,
            "max_side_px": config.fetch.max_side_px,
            "max_bytes": config.fetch.max_bytes,
            "honour_opt_out": config.fetch.honour_opt_out,
            "placeholder_repeats": config.fetch.placeholder_repeats,
            **({"same_bytes": True} if config.fetch.same_bytes else {}),
        },
        inputs={"neighbours": neighbours.digest, "lists": lists.digest},
        grows_with=grows_with,
        force=force,
    )
    if stage.published is not None and not retry_failed:
        return stage.published
    # A retry takes rows out: from here on until it is done the folder is unfinished.
    (run.images / MANIFEST).unlink(missing_ok=True)
    publish_json(run.depths, {"neighbours": neighbours.digest, "depths": reach.depths})
    candidates = _candidates(run, reach)
    ledger, repeats = Ledger(run), config.fetch.placeholder_repeats
    done = ledger.keep_valid(candidates, Validity(config, lists, retry_failed), repeats)
    ids = column(candidates, "id")
    pending = candidates.filter(pa.array(~np.isin(ids, done))).to_pylist()
    progress.begin("fetch", len(ids), "pictures", len(ids) - len(pending))
    with ExitStack() as stack:
        _work_off(ledger, Intake(run, config, lists, web, stack), pending, progress)
    ledger.finish(repeats)
    facts = {"demo_models": neighbours.facts.get("demo_models", False)}
    manifest = stage.finish(ledger.counts(ids), facts, named_by_hash=[run.originals.name])
    progress.end()
    return manifest


def _reach(
    run: Run, config: Config, neighbours: Manifest, depths: Sequence[int] | None, force: bool
) -> Reach:
    """The neighbours to bring in: within depth, deeper where curators ask, and what they keep beyond it."""
    verdicts = read_verdicts(run)
    if depths is None:
        depths = (None if force else _begun_depths(run, neighbours)) or first_depths(run, config, verdicts)
    table = read_candidates(run, columns=("id",))
    wanted = asked_depths(depths, available(table), verdicts)
    kept = {number for number, verdict in verdicts.images.items() if verdict.action == "keep"}
    if not kept:
        return Reach(wanted)
    named = column(table, "id")
    within = column(table, "rank") < np.asarray(wanted, dtype=np.int64)[column(table, "centroid_id")]
    beyond = np.isin(named, sorted(kept)) & ~np.isin(named, named[within])
    return Reach(wanted, np.unique(named[beyond]).tolist())


def _begun_depths(run: Run, neighbours: Manifest) -> list[int] | None:
    """The depths of an earlier start on the same neighbours."""
    try:
        begun = json.loads(run.depths.read_text(encoding="utf-8"))
        if begun["neighbours"] == neighbours.digest:
            return [int(depth) for depth in begun["depths"]]
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        pass  # nothing begun on these neighbours
    return None


def _candidates(run: Run, reach: Reach) -> pa.Table:
    """The distinct pictures within reach, in the order in which centroids name them first."""
    table = read_candidates(run, reach, _WANTED)
    first = np.sort(distinct(table).first_row)
    return table.select(list(_WANTED)).take(pa.array(first, pa.int64()))


def _work_off(ledger: Ledger, intake: Intake, pending: list[Row], progress: Progress) -> None:
    """Fetch all that is pending; as soon as PART_ROWS are there, whichever came first, they are published."""
    rows: list[Row] = []
    for row in intake.bring(pending):
        rows.append(row)
        progress.advance(1, {row["reason"]: 1} if row["reason"] else None)
        if len(rows) >= PART_ROWS:
            ledger.add(rows)
            rows = []
    if rows:
        ledger.add(rows)
