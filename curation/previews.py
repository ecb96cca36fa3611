"""Thumbnails of what a board shows, whether it was fetched or not: asked for here, made in a process beside.

    with Previews(run) as previews:
        future = previews.ask(Wanted(picture_id=row["id"], url=row["url"], place=row["image_path"]))
        preview = future.result()            # or: await asyncio.wrap_future(future)
        preview.clear or preview.reason

The lists are asked at every look, with all that is known of the picture (id, address, SHA-256, MD5, PDQ),
so that a change of a list is in effect at the next look. Wanted's values must come from the run's own
tables or a retrieval server's answer, never from a browser: a place is a file that will be read.
"""

import atexit
import contextlib
import json
import multiprocessing
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import asdict, dataclass

from curation.preview_cache import PreviewCache, PreviewRow, preview_key
from curation.preview_worker import OpenWeb, serve_previews
from spine.config import load_config
from spine.errors import DataError, FactoryError
from spine.lists import ON_LISTS, ListsInForce, file_state
from spine.polite_web import NOTHING_RESERVED, may_answer_later, public_web
from spine.run import Run
from spine.workers import interrupts_held

MAX_WAITING = 500
"""Pictures waited for at the same time; one more is refused as busy."""

BUSY = "busy"
"""Reason of a preview that nobody could be asked for now; ask again in a while."""

_ENDED = "the process that brings pictures in has ended; ask again"

_AGAIN_AFTER_S = {True: 120.0, False: 86_400.0}
"""Seconds for which a failure is remembered: one that may answer later, and others."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Wanted:
    """A picture to be shown: with its place where it is local or fetched, else with its address."""

    picture_id: int | None = None
    url: str | None = None
    place: str | None = None
    """As spine.places knows it; asked before the address."""
    sha256: str | None = None
    """Of its bytes, where that is known."""

    @property
    def key(self) -> str:
        """Its name in the cache; 64 hex digits."""
        return preview_key(self.place, self.url)


@dataclass(frozen=True, kw_only=True, slots=True)
class Preview:
    """A picture's thumbnail, or why there is none."""

    clear: bytes | None = None
    """WebP, 256 pixels on the longer side at most."""
    blurred: bytes | None = None
    """The same, with nothing but colours left to see."""
    reason: str | None = None
    """One of curation.fetched_images.REASONS (takedown and hash_block are the lists'), or BUSY."""
    message: str | None = None
    width: int | None = None
    """Pixels of the picture itself; None where that is not known."""
    height: int | None = None


class Previews:
    """Thumbnails of a run; safe to share between threads. Use as a context manager, or call `close`."""

    def __init__(self, run: Run, *, open_web: OpenWeb = public_web) -> None:
        """Start nothing yet: the process beside starts with the first picture that isn't in the cache.

        Args:
            run: Whose lists, limits and cache count.
            open_web: The way to the network; a top-level function, called in the process beside.
        """
        self._run, self._open_web = run, open_web
        self._lists, self._cache = ListsInForce(run), PreviewCache(run.previews)
        self._lock = threading.Lock()
        self._waiting: dict[str, list[tuple[Wanted, Future[Preview]]]] = {}
        self._worker: _Worker | None = None
        self._settings: tuple[tuple[int, int, int], bool] | None = None
        atexit.register(self.close)  # before multiprocessing waits for its children

    def __enter__(self) -> "Previews":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Stop the process beside; who still waits is told."""
        atexit.unregister(self.close)
        with self._lock:
            worker, self._worker = self._worker, None
        if worker is not None:
            worker.stop()
        self._cache.close()

    def ask(self, wanted: Wanted) -> "Future[Preview]":
        """The thumbnail of a picture, or why there is none; at once where the cache knows.

        Raises:
            ConfigError: A list can't be read: nothing may be shown.
            DataError: The cache can't be read.
        """
        answer: Future[Preview] = Future()
        known = self._known(wanted)
        if known is not None:
            answer.set_result(known)
            return answer
        with self._lock:
            waiting = self._waiting.get(wanted.key)
            if waiting is not None:
                waiting.append((wanted, answer))
                return answer
            if len(self._waiting) >= MAX_WAITING:
                answer.set_result(
                    Preview(reason=BUSY, message=f"{MAX_WAITING} pictures are waited for already")
                )
                return answer
            self._waiting[wanted.key] = [(wanted, answer)]
            worker = self._current_worker()
        worker.send(wanted)
        return answer

    def _known(self, wanted: Wanted) -> Preview | None:
        """What the lists and the cache say of a picture; None where it has to be brought in."""
        lists = self._lists.now()
        rule = lists.blocks(picture_id=wanted.picture_id, url=wanted.url, sha256=wanted.sha256)
        if rule is not None:
            return Preview(reason=rule, message="on a list")
        row = self._cache.find(wanted.key)
        if row is None:
            return None
        rule = lists.blocks(sha256=row.sha256, md5=row.md5, pdq=row.pdq)
        if rule is not None:
            return Preview(reason=rule, message="on a list")
        return _preview(row) if self._holds(row, wanted) else None

    def _holds(self, row: PreviewRow, wanted: Wanted) -> bool:
        """Whether a row still says what would be found now; the lists don't name it."""
        if row.reason in ON_LISTS:
            return False
        if (
            wanted.sha256 is not None
            and row.sha256 is not None
            and wanted.place
            and row.sha256 != wanted.sha256
        ):
            return False
        honoured = self._honoured()
        if row.reason == "opted_out" and not honoured:
            return False
        if row.clear is not None and honoured and row.http_status is not None:
            return row.opt_out == NOTHING_RESERVED
        lasts_s = _AGAIN_AFTER_S[may_answer_later(row.reason, row.http_status)]
        return row.reason is None or time.time() - row.asked < lasts_s

    def _honoured(self) -> bool:
        """[fetch] honour_opt_out, read anew where the file changed: reading it for every tile would take longer."""
        state = file_state(self._run.config)
        known = self._settings
        if known is None or known[0] != state:
            known = self._settings = (state, load_config(self._run.config).fetch.honour_opt_out)
        return known[1]

    def _current_worker(self) -> "_Worker":
        """The process beside, started anew where it ended or the settings changed."""
        settings = file_state(self._run.config)
        if self._worker is not None and self._worker.settings != settings:
            self._worker.leave()
        if self._worker is not None and not self._worker.takes:
            self._worker = None
        if self._worker is None:
            self._worker = _Worker(self._run, self._open_web, settings, self._answered)
        return self._worker

    def _answered(self, key: str, error: str | None) -> None:
        """Tell those who wait for a picture what became of it."""
        with self._lock:
            waiting = self._waiting.pop(key, [])
        for wanted, answer in waiting:
            try:
                if error is not None:
                    raise DataError(error)
                row = self._cache.find(key)
                # Asked this moment: what it says stands, unless a list speaks against it.
                answer.set_result(self._known(wanted) or (_preview(row) if row else Preview(reason=BUSY)))
            except FactoryError as failure:
                answer.set_exception(failure)


class _Worker:
    """The process beside, and a thread that hears its answers."""

    def __init__(
        self,
        run: Run,
        open_web: OpenWeb,
        settings: tuple[int, int, int],
        answered: Callable[[str, str | None], None],
    ) -> None:
        self.settings = settings
        self.takes = True
        """Whether it may be sent more."""
        self._answered = answered
        self._lock = threading.Lock()
        self._asked: set[str] = set()
        self._ended = False
        # spawn: a forked child would inherit the locks of the board's threads.
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        # No daemon: it has processes of its own. It ends when its parent does.
        self._process = context.Process(
            target=serve_previews, args=(theirs, run.folder, open_web), name="previews"
        )
        with interrupts_held():
            self._process.start()
        theirs.close()
        threading.Thread(target=self._hear, name="previews", daemon=True).start()

    def send(self, wanted: Wanted) -> None:
        """Ask for a picture; the answer comes to `answered`, also where the process ends before."""
        content = json.dumps(asdict(wanted) | {"key": wanted.key}).encode()
        with self._lock:
            ended = self._ended
            if not ended:
                self._asked.add(wanted.key)
                with contextlib.suppress(OSError):  # it ended this moment: _hear says so
                    self._pipe.send_bytes(content)
        if ended:
            self._answered(wanted.key, _ENDED)

    def leave(self) -> None:
        """Send nothing more; what it was asked for it still answers."""
        self.takes = False
        with self._lock, contextlib.suppress(OSError):
            self._pipe.send_bytes(b"")

    def stop(self) -> None:
        """End it, whatever it is doing."""
        self._process.kill()
        self._process.join()

    def _hear(self) -> None:
        try:
            while True:
                answer = json.loads(self._pipe.recv_bytes())
                with self._lock:
                    self._asked.discard(answer["key"])
                self._answered(answer["key"], answer["error"])
        except (EOFError, OSError):
            self.takes = False
        with self._lock:
            self._ended, left = True, sorted(self._asked)
            self._pipe.close()
        self._process.join()
        for key in left:
            self._answered(key, _ENDED)


def _preview(row: PreviewRow) -> Preview:
    return Preview(
        clear=row.clear,
        blurred=row.blurred,
        reason=row.reason,
        message=row.message,
        width=row.width,
        height=row.height,
    )
