"""The takedown and hash lists in force: what no answer may hold, read again as soon as one changes."""

import hashlib
import logging
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from index_builder.metadata.foreign_columns import as_our_metadata, our_columns
from index_builder.metadata.metadata_rows import MetadataRows
from retrieval_server.refusals import Refusal
from spine.config import load_config
from spine.errors import ConfigError
from spine.lists import BlockLists
from spine.settings import ListsConfig

_log = logging.getLogger("popfactory.server")

LOOK_S = 2.0
"""Seconds until the lists' files are looked at again."""

_ID_NAMES = ("id", "hash")
_PLACE_NAMES = ("url", "image_url", "image_path")
_CONTENT_NAMES = ("sha256", "md5")

Mask = npt.NDArray[np.bool_]


class Takedowns:
    """The lists of a server. Threads may share them."""

    def __init__(self, config: ListsConfig, folder: Path, settings_file: Path | None = None) -> None:
        """Read every list.

        Args:
            config: The lists, where no settings file names them.
            folder: What relative paths start from.
            settings_file: A popfactory.toml whose [lists] count instead; it is read again when it changes.

        Raises:
            ConfigError: A list or the settings can't be read.
        """
        self._config, self._folder, self._settings_file = config, folder, settings_file
        self._lock = threading.Lock()
        self._looked_s = time.monotonic()
        self._failure = ""
        self._files: tuple[object, ...] = ()
        self._lists = self._load()

    def current(self) -> BlockLists:
        """The lists as they are, at most LOOK_S old.

        Raises:
            Refusal: One can't be read. Going on without it could show what must not be shown.
        """
        with self._lock:
            if time.monotonic() - self._looked_s >= LOOK_S:
                self._look()
                self._looked_s = time.monotonic()
            if self._failure:
                words = "a takedown or hash list of this server can't be read; nothing is served without it"
                raise Refusal(words, status=503, code="lists_unreadable")
            return self._lists

    def _look(self) -> None:
        if not self._failure and self._stamps() == self._files:
            return
        try:
            self._lists = self._load()
        except ConfigError as error:
            if str(error) != self._failure:
                _log.error("nothing is served until this is put right: %s", error)
            self._failure = str(error)
        else:
            _log.info("the takedown and hash lists have changed and are in force")
            self._failure = ""

    def _load(self) -> BlockLists:
        if self._settings_file is not None:
            self._config = load_config(self._settings_file).lists
        self._files = self._stamps()  # taken before the reading: what changes meanwhile is read again
        return BlockLists.load(self._config, self._folder)

    def _stamps(self) -> tuple[object, ...]:
        names = (*self._config.takedown, *self._config.hash_block)
        paths = [self._folder / Path(name).expanduser() for name in names]
        if self._settings_file is not None:
            paths.append(self._settings_file)
        return tuple(_stamp(path) for path in paths)


def blocked_rows(lists: BlockLists, metadata: MetadataRows, rows: npt.NDArray[np.int64]) -> Mask:
    """Which rows of an index a list names: by id, address, domain, or a hash of bytes or address.

    Args:
        lists: Those in force.
        metadata: Of the index; columns of any pool, as `index_builder.metadata.foreign_columns` knows them.
        rows: Shape (m,).

    Returns:
        Shape (m,).
    """
    if lists.empty or not len(rows):
        return np.zeros(len(rows), dtype=np.bool_)
    unique, places = np.unique(rows, return_inverse=True)
    names = metadata.schema.names
    wanted = {*our_columns(names), *(name for name in names if name.lower() in ("md5", "pdq"))}
    table = metadata.take(unique, [name for name in names if name in wanted])
    found = np.zeros(len(unique), dtype=np.bool_)
    for name in table.column_names:
        if name.lower() in _CONTENT_NAMES and lists.hashes:
            found |= _named(table[name], lambda digits: digits.lower() in lists.hashes)
        elif name.lower() == "pdq" and len(lists.pdq):
            found |= _named(table[name], lambda hashes: lists.blocks(pdq=hashes) is not None)
    identified = _identified(table)
    if identified.any():
        known = as_our_metadata(table.filter(pa.array(identified)))
        named = _named(known["id"], lists.ids.__contains__)
        if lists.urls or lists.domains or lists.url_hashes:
            named |= _named(known["url"], lambda url: lists.blocks(url=url) is not None)
        found[identified] |= named
    return found[places]


def refuse_listed_picture(lists: BlockLists, content: bytes) -> None:
    """Refuse to search with a picture whose bytes a list names.

    Raises:
        Refusal: One does.
    """
    if not lists.hashes:
        return
    sha256, md5 = hashlib.sha256(content), hashlib.md5(content, usedforsecurity=False)
    if lists.blocks(sha256=sha256.hexdigest(), md5=md5.hexdigest()) is not None:
        raise Refusal("this picture is on a block list of this server", status=403, code="blocked_picture")


def refuse_listed_address(lists: BlockLists, url: str) -> None:
    """Refuse to fetch a picture from an address that a list names.

    Raises:
        Refusal: One does.
    """
    if lists.blocks(url=url) is not None:
        raise Refusal("this address is on a block list of this server", status=403, code="blocked_picture")


def _identified(table: pa.Table) -> Mask:
    """Rows that say anything an id can be told from."""
    found = np.zeros(table.num_rows, dtype=np.bool_)
    for field in table.schema:
        name = field.name.lower()
        if (name in _ID_NAMES and pa.types.is_integer(field.type)) or name in _PLACE_NAMES:
            found |= table[field.name].is_valid().to_numpy()
    return found


def _named(column: pa.ChunkedArray, named: Callable[[Any], bool]) -> Mask:
    # Sets of Python's: a look into Arrow's would be made anew from the whole list with each request.
    return np.array([value is not None and named(value) for value in column.to_pylist()], dtype=np.bool_)


def _stamp(path: Path) -> object:
    """Changes whenever the file does; None where it can't be seen."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino
