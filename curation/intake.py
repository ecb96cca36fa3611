"""Bringing pictures in: opened where they lie, or downloaded; each gives one row, whatever happens."""

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from multiprocessing.sharedctypes import Synchronized
from pathlib import Path
from typing import Any

from curation.downloads import Downloader, Stored
from curation.host_queue import Row, asked_in_turn
from curation.opening import Openers
from spine.lists import ListsInForce
from spine.places import place_of
from spine.polite_web import public_web
from spine.refused import Refused
from spine.run import Run
from spine.settings import Config
from spine.tables import IMAGES
from spine.web import Web

_HASHES = ("sha256", "md5", "pdq")
_MEASURED = ("width", "height", "original_width", "original_height", "format", "size_bytes", "exif")


@dataclass(frozen=True, slots=True)
class Sizes:
    """What is stored of downloaded pictures where small copies are made."""

    full: frozenset[int]
    """Ids of those to be had in full size."""
    small: Mapping[int, str]
    """Those of them that have a small copy already: id to the SHA-256 of the full size it was made from."""

    def of(self, picture_id: int) -> Stored:
        """What is stored of this one."""
        return Stored(picture_id in self.full, self.small.get(picture_id))


@dataclass(slots=True)
class Intake:
    """Where pictures come from; workers and connections start when the first picture needs them."""

    run: Run
    config: Config
    lists: ListsInForce
    web: Web | None
    stack: ExitStack
    sizes: Sizes | None = None
    """None where no small copies are made."""
    used: "Synchronized[int] | None" = None
    """Bytes stored, where several processes count them."""
    openers: Openers | None = None
    downloader: Downloader | None = None

    def bring(self, candidates: Sequence[Row]) -> Iterator[Row]:
        """The row of each picture, as they come.

        Args:
            candidates: With id, url, image_path and sha256.

        Raises:
            DataError: The disk budget is used up.
            ConfigError: A list can't be read any more.
        """
        if not candidates:
            return
        self.start(candidates)
        settings = self.config.fetch
        yield from asked_in_turn(candidates, settings.per_host, settings.concurrency, self.fetch_one)

    def start(self, chunk: Sequence[Row]) -> None:
        """Have ready what these need."""
        if self.openers is None:
            self.openers = self.stack.enter_context(Openers(self.config.fetch.workers, listed_by=self.run))
        if self.downloader is None and any(row["image_path"] is None for row in chunk):
            settings = self.config.fetch
            access = self.web or self.stack.enter_context(public_web(settings))
            self.downloader = Downloader(self.run, settings, self.lists, access, self.openers, self.used)

    def fetch_one(self, candidate: Row) -> Row:
        """The row of one picture."""
        row: Row = dict.fromkeys(IMAGES.names) | {
            "id": candidate["id"],
            "url": candidate["url"],
            "image_path": candidate["image_path"],
            "sha256": candidate["sha256"],
            "attempts": 0,
        }
        rule = self.lists.now().blocks(
            picture_id=candidate["id"], url=candidate["url"], sha256=candidate["sha256"]
        )
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
        if not isinstance(outcome, Refused) and self.lists.now().blocks(pdq=outcome.pdq) is not None:
            outcome = Refused("hash_block", "on a list by its look", outcome.sha256, outcome.md5, outcome.pdq)
        return {"attempts": 1} | _measured(outcome)

    def _from_web(self, candidate: Row) -> Row:
        if self.downloader is None:
            raise RuntimeError("start comes first")
        sizes = None if self.sizes is None else self.sizes.of(candidate["id"])
        asked = time.time()
        download = self.downloader.download(candidate["url"], candidate["sha256"], sizes)
        return _measured(download.outcome) | {
            "image_path": _place(download.path),
            "small_path": _place(download.small_path),
            "http_status": download.http_status,
            "attempts": download.attempts,
            "opt_out": download.opt_out,
            "asked": asked,
        }


def _place(path: Path | None) -> str | None:
    return None if path is None else place_of(str(path.absolute()))


def _measured(outcome: Any) -> Row:
    if isinstance(outcome, Refused):
        known = {name: getattr(outcome, name) for name in _HASHES if getattr(outcome, name) is not None}
        return {"status": "failed", "reason": outcome.reason, "message": outcome.message} | known
    return {"status": "fetched"} | {name: getattr(outcome, name) for name in (*_HASHES, *_MEASURED)}
