"""Links: the addresses of downloaded pictures asked once more, since what a dataset names on the web dies and changes.

Nothing that was fetched is touched: what the addresses give now is compared with it and forgotten. Reservations, lists,
limits and retries are those of fetch.
"""

import hashlib
from collections.abc import Sequence
from contextlib import ExitStack
from datetime import UTC, datetime

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from curation.host_queue import Row, asked_in_turn
from curation.opening import Openers
from spine.config import load_config
from spine.lists import LOOK_EVERY_S, ListsInForce
from spine.looks import PDQ_DISTANCE, words
from spine.manifest import Manifest, find_manifest, read_manifest
from spine.polite_web import PoliteWeb, public_web
from spine.progress import SILENT, Progress
from spine.publish import publish_table
from spine.refused import Refused
from spine.run import Run, part_path, part_paths
from spine.stage import Stage
from spine.table_files import read_parts
from spine.tables import IMAGES, LINKS
from spine.web import Web

STATUSES: dict[str, str] = {
    "alive": "the very bytes that were fetched",
    "alike": "other bytes, a picture that looks the same: saved anew, or scaled when it was fetched",
    "changed": "another picture",
    "failed": "none that may be used; the reason as fetch's",
}
"""What an address gives by now: status to meaning."""

PART_ROWS = 512
"""Addresses in one part: what a stopped check asks again at most."""

_READ = ("id", "url", "sha256", "pdq", "status", "http_status")
_HASH_DIGITS = 64


def check_links(run: Run, *, progress: Progress = SILENT, web: Web | None = None) -> Manifest:
    """Ask the address of every downloaded picture again; one that was stopped goes on, a finished one begins anew.

    Args:
        run: With fetched images.
        progress: Told of addresses done.
        web: The way to the network; None is the public web within the limits of [fetch].

    Raises:
        DataError: Fetch isn't finished.
        ConfigError: A setting is wrong, or a list can't be read.
    """
    config = load_config(run.config)
    images = read_manifest(run.images)
    lists = ListsInForce(run, LOOK_EVERY_S)
    lists.now()
    finished = find_manifest(run.links) is not None
    stage = Stage.open("links", run.links, parameters={}, inputs={"images": images.digest}, force=finished)
    downloads = _downloads(run)
    done = read_parts(run.links, LINKS, ["id"]).column("id")
    there = pc.is_in(downloads.column("id"), value_set=done.combine_chunks())
    pending = downloads.filter(pc.invert(there)).to_pylist()
    progress.begin("links", downloads.num_rows, "addresses", downloads.num_rows - len(pending))
    with ExitStack() as stack:
        settings = config.fetch
        access = web or stack.enter_context(public_web(settings))
        openers = stack.enter_context(Openers(settings.workers))
        asker = _Asker(PoliteWeb(settings, access), openers, lists)
        rows = []
        for row in asked_in_turn(pending, settings.per_host, settings.concurrency, asker.ask):
            rows.append(row)
            lost = row.get("reason") or (row["status"] if row["status"] == "changed" else None)
            progress.advance(1, {lost: 1} if lost else None)
            if len(rows) == PART_ROWS:
                _publish(run, rows)
                rows = []
        if rows:
            _publish(run, rows)
    manifest = stage.finish(_counts(run))
    progress.end()
    return manifest


def _downloads(run: Run) -> pa.Table:
    """What came over the web, with the hash of its look as it stands, and with no place, as before it was fetched."""
    images = read_parts(run.images, IMAGES, _READ)
    from_web = pc.and_(pc.equal(images.column("status"), "fetched"), images.column("http_status").is_valid())
    rows = images.filter(from_web)
    as_it_stands = pc.utf8_slice_codeunits(rows.column("pdq"), 0, _HASH_DIGITS)
    return (
        rows.select(["id", "url", "sha256"])
        .add_column(3, "pdq", as_it_stands)
        .add_column(4, "image_path", pa.nulls(rows.num_rows, pa.string()))
    )


def _publish(run: Run, rows: Sequence[Row]) -> None:
    publish_table(part_path(run.links, len(part_paths(run.links))), pa.Table.from_pylist(rows, LINKS))


def _counts(run: Run) -> dict[str, int]:
    """Addresses by status, and those that failed by reason too."""
    rows = read_parts(run.links, LINKS, ["status", "reason"])
    found = {each["values"]: each["counts"] for each in rows.column("status").value_counts().to_pylist()}
    reasons = rows.column("reason").drop_null().value_counts().to_pylist()
    return {
        "addresses": rows.num_rows,
        **{status: found.get(status, 0) for status in STATUSES},
        **{f"failed_{each['values']}": each["counts"] for each in reasons},
    }


class _Asker:
    """Asks one address at a time; may be used from many threads."""

    def __init__(self, web: PoliteWeb, openers: Openers, lists: ListsInForce) -> None:
        self._web, self._openers, self._lists = web, openers, lists

    def ask(self, picture: Row) -> Row:
        """The row of one picture."""
        row: Row = {"id": picture["id"], "url": picture["url"], "asked": datetime.now(UTC), "attempts": 0}
        rule = self._lists.now().blocks(
            picture_id=picture["id"], url=picture["url"], sha256=picture["sha256"], pdq=picture["pdq"]
        )
        if rule is not None:
            return row | {"status": "failed", "reason": rule, "message": "on a list"}
        reply = self._web.ask(picture["url"], self._lists.now)
        row |= {"http_status": reply.http_status, "attempts": reply.attempts, "opt_out": reply.opt_out}
        return row | self._compared(picture, reply.content)

    def _compared(self, picture: Row, content: bytes | Refused) -> Row:
        if isinstance(content, bytes) and hashlib.sha256(content).hexdigest() == picture["sha256"]:
            return {"status": "alive"}
        opened = (
            content if isinstance(content, Refused) else self._openers.content(picture["url"], content, 0)
        )
        if isinstance(opened, Refused):
            return {"status": "failed", "reason": opened.reason, "message": opened.message}
        if self._lists.now().blocks(pdq=opened.pdq) is not None:
            return {"status": "failed", "reason": "hash_block", "message": "on a list by its look"}
        if picture["pdq"] is None or opened.pdq is None:
            return {"status": "changed", "message": "other bytes, and one of the two is too flat to compare"}
        before, now = words([picture["pdq"]]), words([opened.pdq[:_HASH_DIGITS]])
        alike = int(np.bitwise_count(before ^ now).sum()) <= PDQ_DISTANCE
        return {"status": "alike" if alike else "changed"}
