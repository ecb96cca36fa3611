"""Fetch: every candidate's picture, brought in or referenced where it lies, measured; or why not.

A local picture stays where it is and is opened there; one with an address only is downloaded and stored
by the hash of its content. Each picture has one row with one final status. A deeper fetch keeps what an
earlier one brought in.
"""

import json
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from curation.candidates import Reach, available, column, distinct, read_candidates
from curation.decisions import read_verdicts
from curation.intake import Intake, Row
from curation.ledger import ON_LISTS, Ledger, Validity
from curation.passed_over import KNOWN, PassedOver, listed, passed_over, rows_of_passed_over
from curation.refill import asked_depths, first_depths
from curation.verdicts import Verdicts
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
    """Bring in every neighbour within depth, but those that the filters reject by what the pool says of them.

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
    work = _work(run, config, neighbours, depths, force)
    stage = _opened(run, config, work, {"neighbours": neighbours.digest, "lists": lists.digest}, force)
    if stage.published is not None and not retry_failed:
        return stage.published
    # A retry takes rows out: from here on until it is done the folder is unfinished.
    (run.images / MANIFEST).unlink(missing_ok=True)
    publish_json(run.depths, {"neighbours": neighbours.digest, "depths": work.reach.depths})
    ledger, repeats = Ledger(run), config.fetch.placeholder_repeats
    done = ledger.keep_valid(work.pictures, Validity(config, lists, retry_failed), repeats)
    ids = column(work.pictures, "id")
    pending = work.pictures.filter(pa.array(~np.isin(ids, done)))
    progress.begin("fetch", len(ids), "pictures", len(ids) - pending.num_rows)
    pending = _pass_over(ledger, pending, lists, progress)
    with ExitStack() as stack:
        _work_off(ledger, Intake(run, config, lists, web, stack), pending.to_pylist(), progress)
    ledger.finish(repeats)
    facts = {"demo_models": neighbours.facts.get("demo_models", False)}
    manifest = stage.finish(ledger.counts(ids), facts, named_by_hash=[run.originals.name])
    progress.end()
    return manifest


@dataclass(frozen=True, slots=True)
class _Work:
    """What is to be there once fetch is done."""

    reach: Reach
    pictures: pa.Table
    """The distinct pictures within reach, in the order in which centroids name them first: _WANTED, and rule and
    message of those that are passed over."""
    passed_over: PassedOver


def _work(run: Run, config: Config, neighbours: Manifest, depths: Sequence[int] | None, force: bool) -> _Work:
    verdicts = read_verdicts(run)
    reach = _reach(run, config, verdicts, neighbours, depths, force)
    table = read_candidates(run, reach, (*_WANTED, *KNOWN))
    skipped = passed_over(table, config, verdicts)
    first = np.sort(distinct(table).first_row)
    pictures = table.select(list(_WANTED)).take(pa.array(first, pa.int64()))
    for name, said in zip(("rule", "message"), skipped.said_of(column(pictures, "id")), strict=True):
        pictures = pictures.append_column(name, said)
    return _Work(reach, pictures, skipped)


def _opened(run: Run, config: Config, work: _Work, inputs: dict[str, str], force: bool) -> Stage:
    grows_with = {
        *("depths", "kept", "passed_over", "neighbours"),
        *("honour_opt_out", "placeholder_repeats", "same_bytes"),
    }
    # A scaled picture has another hash than the one a list may name: with new lists it is fetched anew.
    if not config.fetch.max_side_px:
        grows_with.add("lists")
    return Stage.open(
        "images",
        run.images,
        parameters={
            "depths": work.reach.depths,
            "kept": work.reach.kept,
            "max_side_px": config.fetch.max_side_px,
            "max_bytes": config.fetch.max_bytes,
            "honour_opt_out": config.fetch.honour_opt_out,
            "placeholder_repeats": config.fetch.placeholder_repeats,
            **({"same_bytes": True} if config.fetch.same_bytes else {}),
            **({"passed_over": work.passed_over.digest} if len(work.passed_over.ids) else {}),
        },
        inputs=inputs,
        grows_with=grows_with,
        force=force,
    )


def _reach(
    run: Run,
    config: Config,
    verdicts: Verdicts,
    neighbours: Manifest,
    depths: Sequence[int] | None,
    force: bool,
) -> Reach:
    """The neighbours to bring in: within depth, deeper where curators ask, and what they keep beyond it."""
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


def _pass_over(ledger: Ledger, pending: pa.Table, lists: BlockLists, progress: Progress) -> pa.Table:
    """Write down which of the pending pictures are passed over.

    Returns:
        The others, with those that a list names: the list's rule is what they are refused by.
    """
    skipped = pending.column("rule").is_valid().to_numpy()
    skipped[skipped] = ~listed(pending.filter(pa.array(skipped)), lists)
    rows = pending.filter(pa.array(skipped))
    if rows.num_rows:
        ledger.add_table(rows_of_passed_over(rows))
        reasons = rows.column("rule").value_counts().to_pylist()
        progress.advance(rows.num_rows, {each["values"]: each["counts"] for each in reasons})
    return pending.filter(pa.array(~skipped)).select(list(_WANTED))


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
