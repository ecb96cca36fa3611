"""The process that brings in pictures for the board that nobody has fetched yet: the only one of its sockets outward.

It asks like fetch does: the same reservations, lists, limits and decoders. Of a picture it keeps a
thumbnail, and what lists know it by; the picture itself is left to fetch.
"""

import contextlib
import json
import logging
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from curation.opening import Opened, Openers, measured
from curation.preview_cache import PreviewCache, PreviewRow, fresh_row
from spine.config import load_config
from spine.errors import FactoryError, ImageError
from spine.images import thumbnail_of
from spine.lists import BlockLists, ListsInForce
from spine.places import read_bytes
from spine.polite_web import PoliteWeb, listed_content, listed_look
from spine.refused import Refused
from spine.run import Run
from spine.settings import FetchConfig
from spine.web import Web
from spine.workers import follow_parent

SIDE_PX = 256
"""Longer side of a thumbnail."""

THREADS = 32
"""Pictures asked for at the same time."""

OPENERS = 2
"""Processes that open them."""

OPEN_S = 20
"""Seconds for opening one; somebody waits for it."""

_logger = logging.getLogger(__name__)

OpenWeb = Callable[[FetchConfig], Web]


def serve_previews(pipe: Connection, folder: Path, open_web: OpenWeb) -> None:
    """Work off requests until the other side is gone; in a process of its own.

    Args:
        pipe: Gives JSON objects with key, picture_id, url, place and sha256, at the end nothing; is told each
            key that is done, with an error where the run can't be worked with.
        folder: The run's.
        open_web: The way to the network within the limits of [fetch].
    """
    follow_parent()
    run = Run(folder)
    telling = threading.Lock()

    def tell(key: str, error: str | None) -> None:
        with telling, contextlib.suppress(OSError):  # nobody waits any more
            pipe.send_bytes(json.dumps({"key": key, "error": error}).encode())

    config = load_config(run.config).fetch
    with open_web(config) as web, Openers(OPENERS, OPEN_S) as openers:
        work = _Work(run, config, PoliteWeb(config, web, attempts=1), openers)
        threads = ThreadPoolExecutor(THREADS, thread_name_prefix="previews")
        with contextlib.suppress(EOFError):
            while request := pipe.recv_bytes():
                threads.submit(work.answer, json.loads(request), tell)
        threads.shutdown()


class _Work:
    """What the threads share."""

    def __init__(self, run: Run, config: FetchConfig, web: PoliteWeb, openers: Openers) -> None:
        self._config, self._web, self._openers = config, web, openers
        self._lists, self._cache = ListsInForce(run), PreviewCache(run.previews)

    def answer(self, request: dict[str, Any], tell: Callable[[str, str | None], None]) -> None:
        """Bring in one picture, keep what became of it, and say so."""
        try:
            self._cache.put(self._row(request, self._lists.now()))
            tell(request["key"], None)
        except FactoryError as error:
            tell(request["key"], str(error))
        except BaseException:  # a bug: whoever waits is told, and its traceback stands in the log
            _logger.exception("no preview of %s", request["place"] or request["url"])
            tell(request["key"], "the worker failed; its log says why")

    def _row(self, request: dict[str, Any], lists: BlockLists) -> PreviewRow:
        key, place, url = request["key"], request["place"], request["url"]
        rule = lists.blocks(picture_id=request["picture_id"], url=url, sha256=request["sha256"])
        if rule is not None:
            return _refused(key, Refused(rule, "on a list", request["sha256"]))
        if place is not None:
            return self._from_place(key, place, lists)
        if url is not None:
            return self._from_web(key, url, lists)
        return _refused(key, Refused("missing", "neither its place nor its address is known"))

    def _from_place(self, key: str, place: str, lists: BlockLists) -> PreviewRow:
        try:
            content = read_bytes(place, max_bytes=self._config.max_bytes)
        except ImageError as error:
            return _refused(key, Refused(error.reason, str(error)))
        refused = listed_content(content, lists)
        return _refused(key, refused) if refused is not None else self._opened(key, place, content, lists)

    def _from_web(self, key: str, url: str, lists: BlockLists) -> PreviewRow:
        reply = self._web.ask(url, self._lists.now)
        about = {"http_status": reply.http_status, "opt_out": reply.opt_out}
        if isinstance(reply.content, Refused):
            return _refused(key, reply.content, **about)
        return self._opened(key, url, reply.content, lists, **about)

    def _opened(self, key: str, name: str, content: bytes, lists: BlockLists, **about: object) -> PreviewRow:
        outcome = self._openers.ask(name, open_thumbnails, content)
        if isinstance(outcome, Refused):
            return _refused(key, outcome, **about)
        opened, clear, blurred = outcome
        if lists.blocks(pdq=opened.pdq) is not None:
            return _refused(key, listed_look(content, opened.pdq), **about)
        return fresh_row(
            key,
            **_known_by(opened),
            width=opened.width,
            height=opened.height,
            clear=clear,
            blurred=blurred,
            **about,
        )


def open_thumbnails(content: bytes) -> tuple[Opened, bytes, bytes] | Refused:
    """Measure a picture and make its thumbnail, clear and blurred; in a worker."""
    found = measured(content)
    if isinstance(found, Refused):
        return found
    opened, picture = found
    clear = thumbnail_of(picture.image, SIDE_PX)
    return opened, clear, thumbnail_of(picture.image, SIDE_PX, blurred=True)


def _refused(key: str, refused: Refused, **about: object) -> PreviewRow:
    return fresh_row(
        key,
        reason=refused.reason,
        message=refused.message,
        **_known_by(refused),
        **about,
    )


def _known_by(outcome: Opened | Refused) -> dict[str, str | None]:
    """What lists know it by."""
    return {"sha256": outcome.sha256, "md5": outcome.md5, "pdq": outcome.pdq}
