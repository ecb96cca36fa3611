"""Fetch: every candidate's picture, brought in or referenced where it lies, measured; or why not.

A local picture stays where it is and is opened there; one with an address only is downloaded and stored
by the hash of its content. Each picture has one row with one final status. A deeper fetch keeps what an
earlier one brought in.
"""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from curation.candidates import column
from curation.fetch_plan import WANTED, Plan
from curation.fetchers import Task, fetch_divided, processes_for
from curation.host_queue import Row
from curation.intake import Sizes
from curation.ledger import Ledger, Validity
from curation.passed_over import listed, rows_of_passed_over
from spine import images as pictures
from spine import web as web_access
from spine.config import load_config
from spine.filters import RULES
from spine.lists import ON_LISTS, BlockLists, ListsInForce
from spine.manifest import MANIFEST, Manifest, read_manifest
from spine.progress import SILENT, Progress
from spine.run import Run
from spine.settings import Config
from spine.stage import Stage
from spine.web import Web

REASONS: dict[str, str] = {
    **web_access.REFUSALS,
    **pictures.REFUSALS,
    "changed": "its bytes are not those that were embedded",
    "unstable": "asked for its full size, its address gave other bytes than for its small copy",
    "opted_out": "its host reserves it",
    "robots_unknown": "its host's robots.txt or tdmrep.json could not be read, so nobody knows whether it may be taken",
    "placeholder": "its host gives the very same picture for other addresses too",
    **{rule: RULES[rule] for rule in ON_LISTS},
}
"""Why a picture was not brought in: reason to meaning."""

PART_ROWS = 512
"""Pictures in one part: what a stopped fetch loses at most, beside those at work."""


def fetch(
    run: Run,
    *,
    depths: Sequence[int] | None = None,
    full_size: Sequence[int] | None = None,
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
        full_size: With [fetch] mode "two-step" the ids of the pictures to be had in full size, all others as small
            copies; None goes on with those of an earlier start, at first none.
        force: Start over.
        retry_failed: Ask those addresses again that gave nothing but may another time.
        progress: Told of pictures done.
        web: The way to the network; None is the public web within the limits of [fetch].

    Raises:
        DataError: The neighbours aren't finished, or the disk budget is used up.
        ConfigError: A setting is wrong, or a list can't be read, also one that changed meanwhile; what is fetched
            stays. Of several processes it is a DataError.
    """
    config = load_config(run.config)
    neighbours = read_manifest(run.neighbours)
    in_force = ListsInForce(run)
    lists = in_force.now()
    plan = Plan.make(run, config, neighbours, depths=depths, full_size=full_size, force=force)
    stage = _opened(run, config, plan, lists, force)
    if stage.published is not None and not retry_failed:
        return stage.published
    ledger = _brought_in(run, Validity(config, lists, retry_failed), plan, web, progress)
    while (now := in_force.now()) is not lists:
        # Written meanwhile, they held for what came after. By them all is judged as at a new start.
        progress.say("the lists were written meanwhile: what was fetched before is held to them too")
        lists = now
        stage = _opened(run, config, plan, lists, force=False)
        ledger = _brought_in(run, Validity(config, lists), plan, web, progress)
    facts = {"demo_models": neighbours.facts.get("demo_models", False)}
    counts = ledger.counts(column(plan.pictures, "id"))
    notes = [path.name for path in (run.asked_table,) if path.is_file()]
    manifest = stage.finish(counts, facts, notes=notes, named_by_hash=[run.originals.name])
    progress.end()
    return manifest


def _brought_in(run: Run, validity: Validity, plan: Plan, web: Web | None, progress: Progress) -> Ledger:
    """Bring in what the plan names and isn't there, or holds no more; the ledger with a row for each."""
    config = validity.config
    # A retry takes rows out: from here on until it is done the folder is unfinished.
    (run.images / MANIFEST).unlink(missing_ok=True)
    plan.begin(run)
    ledger = Ledger(run)
    done = ledger.keep_valid(plan.pictures, validity)
    small = {} if plan.full_size is None else ledger.small_copies(plan.full_size)
    if small:
        done = done[~np.isin(done, list(small))]
    ids = column(plan.pictures, "id")
    # Arrow's look-up: NumPy's would sort both a second time.
    there = pc.is_in(plan.pictures.column("id"), value_set=pa.array(done, pa.int64()))
    pending = plan.pictures.filter(pc.invert(there))
    progress.begin("fetch", len(ids), "pictures", len(ids) - pending.num_rows)
    pending = _pass_over(ledger, pending, validity.lists, progress)
    sizes = None if plan.full_size is None else Sizes(frozenset(plan.full_size.tolist()), small)
    _work_off(ledger, Task(run.folder, config, web, sizes), pending.to_pylist(), progress)
    if small:  # the rows of before they were had in full size
        ledger.keep_valid(plan.pictures, validity)
    ledger.finish(config.fetch.placeholder_repeats, plan.full_size)
    return ledger


def _opened(run: Run, config: Config, plan: Plan, lists: BlockLists, force: bool) -> Stage:
    settings = config.fetch
    grows_with = {
        *("depths", "kept", "found", "passed_over", "full_size", "neighbours"),
        *("honour_opt_out", "placeholder_repeats", "same_bytes"),
    }
    # A scaled picture has another hash than the one a list may name: with new lists it is fetched anew.
    if not settings.max_side_px:
        grows_with.add("lists")
    return Stage.open(
        "images",
        run.images,
        parameters={
            **plan.parameters(),
            "max_side_px": settings.max_side_px,
            "max_bytes": settings.max_bytes,
            "honour_opt_out": settings.honour_opt_out,
            "placeholder_repeats": settings.placeholder_repeats,
            **({"same_bytes": True} if settings.same_bytes else {}),
        },
        inputs={"neighbours": plan.neighbours, "lists": lists.digest},
        grows_with=grows_with,
        force=force,
    )


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
    return pending.filter(pa.array(~skipped)).select(list(WANTED))


def _work_off(ledger: Ledger, task: Task, pending: list[Row], progress: Progress) -> None:
    """Fetch all that is pending; as soon as PART_ROWS are there, whichever came first, they are published."""
    rows: list[Row] = []
    for row in fetch_divided(task, pending, processes_for(task.config, pending)):
        rows.append(row)
        progress.advance(1, {row["reason"]: 1} if row["reason"] else None)
        if len(rows) >= PART_ROWS:
            ledger.add(rows)
            rows = []
    if rows:
        ledger.add(rows)
