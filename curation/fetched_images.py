"""Fetch: every candidate's picture, brought in or referenced where it lies, measured; or why not.

A local picture stays where it is and is opened there; one with an address only is downloaded and stored
by the hash of its content. Each picture has one row with one final status. A deeper fetch keeps what an
earlier one brought in.
"""

import json
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from curation.candidates import Reach, available, column, distinct, read_candidates, rows_of
from curation.decisions import read_verdicts
from curation.downloads import Downloader
from curation.ledger import ON_LISTS, Validity, mark_placeholders
from curation.opening import Openers
from curation.refill import asked_depths, first_depths
from spine import images as pictures
from spine import web as web_access
from spine.config import load_config
from spine.errors import DataError
from spine.filters import RULES
from spine.lists import BlockLists
from spine.places import place_of
from spine.polite_web import public_web
from spine.progress import SILENT, Progress
from spine.publish import publish_json, publish_table
from spine.refused import Refused
from spine.run import Run, part_path, part_paths
from spine.settings import Config
from spine.stage import MANIFEST, Manifest, Stage, read_manifest
from spine.tables import IMAGES, read_parts, read_table
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
"""Pictures in one part: what a stopped fetch loses at most."""

_HASHES = ("sha256", "md5", "pdq")
_MEASURED = ("width", "height", "original_width", "original_height", "format", "size_bytes", "exif")
_WANTED = ("id", "url", "image_path", "sha256")

Row = dict[str, Any]


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
    grows_with = {"depths", "kept", "neighbours", "honour_opt_out", "placeholder_repeats"} | (
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
    done = _keep_valid_rows(run, candidates, Validity.of(run, config, lists, retry_failed))
    pending = [row for row in candidates if row["id"] not in done]
    progress.begin("fetch", len(candidates), "pictures", len(candidates) - len(pending))
    with ExitStack() as stack:
        _work_off(_Sources(run, config, lists, web, stack), pending, progress)
    mark_placeholders(run, config.fetch.placeholder_repeats)
    _remove_unreferenced(run)
    manifest = stage.finish(
        _counts(run, candidates), {"demo_models": neighbours.facts.get("demo_models", False)}
    )
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


def _candidates(run: Run, reach: Reach) -> list[Row]:
    """The distinct pictures within reach, in the order in which centroids name them first."""
    table = read_candidates(run, reach, _WANTED)
    first = sorted(distinct(table).first_row.tolist())
    rows: list[Row] = table.select(list(_WANTED)).take(pa.array(first, pa.int64())).to_pylist()
    return rows


def _keep_valid_rows(run: Run, candidates: list[Row], validity: Validity) -> set[int]:
    """Drop the rows of earlier starts that no longer hold: another place, another address, another list.

    Returns:
        Ids that have their row.
    """
    now = {row["id"]: (row["image_path"], row["url"]) for row in candidates}
    done: set[int] = set()
    for path in part_paths(run.images):
        table = read_table(path, IMAGES)
        rows = table.select(list(validity.COLUMNS)).to_pylist()
        holds = [validity.holds(row, now.get(row["id"])) for row in rows]
        done.update(row["id"] for row, valid in zip(rows, holds, strict=True) if valid)
        if not all(holds):
            publish_table(path, table.filter(pa.array(holds, pa.bool_())))
    return done


@dataclass(slots=True)
class _Sources:
    """Where pictures come from; workers and connections start when the first picture needs them."""

    run: Run
    config: Config
    lists: BlockLists
    web: Web | None
    stack: ExitStack
    openers: Openers | None = None
    downloader: Downloader | None = None

    def start(self, chunk: Sequence[Row]) -> None:
        """Have ready what a chunk needs."""
        if self.openers is None:
            self.openers = self.stack.enter_context(Openers(self.config.fetch.workers))
        if self.downloader is None and any(row["image_path"] is None for row in chunk):
            settings = self.config.fetch
            access = self.web or self.stack.enter_context(public_web(settings))
            self.downloader = Downloader(self.run, settings, self.lists, access, self.openers)

    def fetch_one(self, candidate: Row) -> Row:
        """The row of one picture."""
        row: Row = dict.fromkeys(IMAGES.names) | {
            "id": candidate["id"],
            "url": candidate["url"],
            "image_path": candidate["image_path"],
            "sha256": candidate["sha256"],
            "attempts": 0,
        }
        rule = self.lists.blocks(picture_id=candidate["id"], url=candidate["url"], sha256=candidate["sha256"])
        if rule is not None:
            return row | {"status": "failed", "reason": rule, "message": "on a list"}
        if candidate["image_path"] is not None:
            return row | self._local(candidate)
        if candidate["url"] is not None:
            return row | self._from_web(candidate)
        return row | {
            "status": "failed",
            "reason": "missing",
            "message": "the pool names no place or address",
        }

    def _local(self, candidate: Row) -> Row:
        if self.openers is None:
            raise RuntimeError("start comes first")
        outcome = self.openers.place(
            candidate["image_path"], self.config.fetch.max_bytes, candidate["sha256"]
        )
        # Where the pool doesn't know the hash it is known only now.
        rule = self.lists.blocks(sha256=outcome.sha256, md5=outcome.md5, pdq=outcome.pdq)
        if rule is not None:
            outcome = Refused(rule, "on a list", outcome.sha256, outcome.md5, outcome.pdq)
        return {"attempts": 1} | _measured(outcome)

    def _from_web(self, candidate: Row) -> Row:
        if self.downloader is None:
            raise RuntimeError("start comes first")
        download = self.downloader.download(candidate["url"])
        place = None if download.path is None else place_of(str(Path(download.path).absolute()))
        return _measured(download.outcome) | {
            "image_path": place,
            "http_status": download.http_status,
            "attempts": download.attempts,
            "opt_out": download.opt_out,
        }


def _measured(outcome: Any) -> Row:
    if isinstance(outcome, Refused):
        known = {name: getattr(outcome, name) for name in _HASHES if getattr(outcome, name) is not None}
        return {"status": "failed", "reason": outcome.reason, "message": outcome.message} | known
    return {"status": "fetched"} | {name: getattr(outcome, name) for name in (*_HASHES, *_MEASURED)}


def _work_off(sources: _Sources, pending: Sequence[Row], progress: Progress) -> None:
    """Fetch in parts; each is published whole, in the order of the candidates."""
    if not pending:
        return
    run = sources.run
    number = max((int(path.stem.removeprefix("part-")) for path in part_paths(run.images)), default=-1) + 1
    threads = ThreadPoolExecutor(sources.config.fetch.concurrency, thread_name_prefix="fetch")
    try:
        for start in range(0, len(pending), PART_ROWS):
            chunk = pending[start : start + PART_ROWS]
            sources.start(chunk)
            rows = []
            for row in threads.map(sources.fetch_one, chunk):
                rows.append(row)
                progress.advance(1, {row["reason"]: 1} if row["reason"] else None)
            publish_table(part_path(run.images, number), pa.Table.from_pylist(rows, IMAGES))
            number += 1
    finally:
        threads.shutdown(cancel_futures=True)


def _remove_unreferenced(run: Run) -> None:
    """Stored pictures that no row names: left by a kill, or of rows that a new list took out."""
    table = read_parts(run.images, IMAGES, ["status", "image_path"])
    fetched = table.filter(pc.equal(table.column("status"), "fetched"))
    named = set(fetched.column("image_path").to_pylist())
    for path in run.originals.rglob("*"):
        if path.is_file() and place_of(str(path.absolute())) not in named:
            path.unlink()


def _counts(run: Run, candidates: list[Row]) -> dict[str, int]:
    """Of the pictures within depth; each has one status."""
    ids = pa.array([row["id"] for row in candidates], pa.int64())
    table = read_parts(run.images, IMAGES, ["id", "status", "reason"])
    if pc.count_distinct(table.column("id")).as_py() != table.num_rows:
        raise DataError(f"{run.images}: a picture has two rows; run `popfactory fetch` with --force")
    rows = rows_of(table, ids)
    status = Counter(rows.column("status").to_pylist())
    reasons = Counter(reason for reason in rows.column("reason").to_pylist() if reason is not None)
    return {
        "candidates": len(candidates),
        "fetched": status["fetched"],
        "failed": status["failed"],
        **{f"failed_{reason}": count for reason, count in sorted(reasons.items())},
    }
