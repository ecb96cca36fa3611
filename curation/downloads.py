"""One picture from the web: asked for, opened, stored by the hash of its content."""

import hashlib
import multiprocessing
import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.sharedctypes import Synchronized
from pathlib import Path

from curation.opening import SUFFIXES, Opened, Openers
from spine.errors import DataError
from spine.lists import ListsInForce
from spine.polite_web import PoliteWeb, listed_look
from spine.publish import publish_bytes
from spine.refused import Refused, md5_of
from spine.run import Run
from spine.settings import FetchConfig
from spine.sizes import format_size, parse_size
from spine.web import Web


@dataclass(frozen=True, kw_only=True, slots=True)
class Download:
    """What became of one address."""

    outcome: Opened | Refused
    path: Path | None = None
    """Where it is stored; or its small copy, where only that is."""
    small_path: Path | None = None
    """Where its small copy is stored; itself where it is as small."""
    http_status: int | None = None
    attempts: int
    opt_out: str | None = None
    """As in `spine.polite_web.Reply`."""


class DiskBudget:
    """Bytes that may still be stored; safe to share between threads and, with their count, between processes."""

    def __init__(self, config: FetchConfig, folder: Path, used: "Synchronized[int] | None" = None) -> None:
        """Count what is stored.

        Args:
            config: With the budget.
            folder: What is in it counts.
            used: The count that processes share; None begins one.
        """
        self._budget, self._folder = parse_size(config.disk_budget), folder
        self._used = used or multiprocessing.get_context("spawn").Value("q", self.used_in(folder))

    @staticmethod
    def used_in(folder: Path) -> int:
        """Bytes of all files in a folder and below."""
        return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())

    def take(self, size_bytes: int) -> None:
        """Count bytes about to be stored.

        Raises:
            DataError: They would go over the budget; what is stored stays, and fetch can go on.
        """
        with self._used.get_lock():
            if self._used.value + size_bytes > self._budget:
                raise DataError(
                    f"{self._folder}: {format_size(self._used.value)} stored, [fetch] disk_budget is "
                    f"{format_size(self._budget)}; raise it, or set [fetch] max_side_px, and fetch again"
                )
            self._used.value += size_bytes


class Downloader:
    """Brings in pictures by their addresses; may be asked from many threads."""

    def __init__(
        self,
        run: Run,
        config: FetchConfig,
        lists: ListsInForce,
        web: Web,
        openers: Openers,
        used: "Synchronized[int] | None" = None,
        wait: Callable[[float], None] = time.sleep,
    ) -> None:
        self._run, self._config, self._lists = run, config, lists
        self._web, self._openers = PoliteWeb(config, web, wait=wait), openers
        self._budget = DiskBudget(config, run.images, used)

    def download(self, url: str, known_sha256: str | None = None, sizes: "Stored | None" = None) -> Download:
        """Fetch, check, open and store one picture.

        Args:
            url: Its address.
            known_sha256: What its bytes had when the pool was made, None if nobody knows.
            sizes: What of it is stored; None is the picture itself.
        """
        reply = self._web.ask(url, self._lists.now)
        content = reply.content
        if isinstance(content, bytes) and self._config.same_bytes and known_sha256 is not None:
            sha256 = hashlib.sha256(content).hexdigest()
            if sha256 != known_sha256:
                content = Refused(
                    "changed", "not the bytes that the pool was made from", sha256, md5_of(content)
                )
        outcome = content if isinstance(content, Refused) else self._opened(url, content, sizes)
        path = small_path = None
        if not isinstance(outcome, Refused) and not isinstance(content, Refused):
            path, small_path = self._store(outcome, content, sizes)
        return Download(
            outcome=outcome,
            path=path,
            small_path=small_path,
            http_status=reply.http_status,
            attempts=reply.attempts,
            opt_out=reply.opt_out,
        )

    def _opened(self, url: str, content: bytes, sizes: "Stored | None") -> Opened | Refused:
        outcome = self._openers.content(url, content, self._config.max_side_px, sizes is not None)
        if isinstance(outcome, Refused):
            return outcome
        if self._lists.now().blocks(pdq=outcome.pdq) is not None:
            return listed_look(content, outcome.pdq)
        if sizes is not None and sizes.same_as not in (None, outcome.sha256):
            said = "not the bytes that its small copy was made from"
            return Refused("unstable", said, outcome.sha256, outcome.md5)
        return outcome

    def _store(self, opened: Opened, content: bytes, sizes: "Stored | None") -> tuple[Path, Path | None]:
        """Where the picture is now, and its small copy."""
        full = content if opened.content is None else opened.content
        if sizes is None:
            return self._kept(opened.sha256, SUFFIXES[opened.format], full), None
        if opened.small is None:
            path = self._kept(opened.sha256, SUFFIXES[opened.format], full)
            return path, path
        small = self._kept(hashlib.sha256(opened.small).hexdigest(), SUFFIXES["JPEG"], opened.small)
        return self._kept(opened.sha256, SUFFIXES[opened.format], full) if sizes.full else small, small

    def _kept(self, sha256: str, suffix: str, content: bytes) -> Path:
        path = self._run.original(sha256, suffix)
        if not path.is_file():
            self._budget.take(len(content))
            publish_bytes(path, content)
        return path


@dataclass(frozen=True, slots=True)
class Stored:
    """What is stored of a picture where small copies are made."""

    full: bool
    """Whether its full size is, beside the small copy."""
    same_as: str | None = None
    """SHA-256 of the full size that a small copy was made from: anything else is refused."""
