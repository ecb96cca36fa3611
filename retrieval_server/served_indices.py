"""The indices of a server by name, each exchanged for a newer one while requests go on.

A new index takes the old one's place once its folder, or where a link to it leads, has changed and stays as it is.
Requests that began with the old one end with it: it is let go when the last of them is through.
"""

import logging
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from retrieval_server.indices import ServedIndex, describe, open_index
from retrieval_server.settings import IndexSettings
from spine.errors import ConfigError, DataError, FactoryError
from spine.manifest import MANIFEST

_log = logging.getLogger("popfactory.server")

LOOK_S = 5.0
"""Seconds between two looks at the folders; a change counts when two looks see the same."""

_WARM_UP_K = 10

_Stamp = tuple[object, ...]


class ServedIndices(Mapping[str, ServedIndex]):
    """Open indices in the order of the settings."""

    def __init__(self, settings: Sequence[IndexSettings]) -> None:
        """Open every index, search it once, and say what it is.

        Raises:
            ConfigError: There are none, or one is set up wrong.
            DataError: An index can't be read or doesn't fit its metadata.
        """
        if not settings:
            raise ConfigError("no index to serve")
        self._open: dict[str, ServedIndex] = {}
        self._watched = {one.name: _Watched(one) for one in settings}
        for one in settings:
            self._open[one.name] = _opened(one)
            _log.info("%s", describe(self._open[one.name]))
        self._end = threading.Event()
        self._watch = threading.Thread(target=self._look, name="indices", daemon=True)
        self._watch.start()

    def __getitem__(self, name: str) -> ServedIndex:
        return self._open[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._open)

    def __len__(self) -> int:
        return len(self._open)

    def close(self) -> None:
        """Look no more, and let go of every index."""
        self._end.set()
        self._watch.join()
        for index in self._open.values():
            index.close()

    def _look(self) -> None:
        while not self._end.wait(LOOK_S):
            for name, watched in self._watched.items():
                if watched.has_new():
                    self._exchange(name, watched.settings)

    def _exchange(self, name: str, settings: IndexSettings) -> None:
        old = self._open[name]
        try:
            new = _opened(settings)
            if new.d != old.d:
                raise DataError(f"{settings.folder}: d = {new.d}, {old.d} is served; start the server again")
        except FactoryError as error:
            _log.error("%s: the new index can't be served, the old one stays: %s", name, error)
            return
        self._open[name] = new
        _log.info("exchanged %s", describe(new))


class _Watched:
    """A folder, and what was last seen of it."""

    def __init__(self, settings: IndexSettings) -> None:
        self.settings = settings
        self._published = (settings.folder / MANIFEST).is_file()
        self._served = self._seen = _stamp(settings.folder)

    def has_new(self) -> bool:
        """Whether there is something else than what was opened, and it stays; told once."""
        before, self._seen = self._seen, _stamp(self.settings.folder)
        if self._seen in (self._served, ()) or self._seen != before:
            return False
        if self._published and not (self.settings.folder / MANIFEST).is_file():
            return False  # it is being built
        self._served = self._seen
        return True


def _opened(settings: IndexSettings) -> ServedIndex:
    # Links are followed once: were one switched meanwhile, vectors and metadata would be of two indices.
    index = open_index(replace(settings, folder=settings.folder.resolve()))
    query = np.full(index.d, index.d**-0.5, dtype=np.float32)
    for modality in index.folders:
        found = index.folder(modality).search(query[None], _WARM_UP_K)[1][0]
        index.metadata(found[found >= 0])
    return index


def _stamp(folder: Path) -> _Stamp:
    """Changes whenever the files below a folder, or where it leads, do; empty where it can't be read."""
    try:
        place = folder.resolve(strict=True)
        files = sorted(path for path in place.rglob("*") if path.is_file())
        found = [(str(path), path.stat()) for path in files]
    except OSError:
        return ()
    return (*((path, file.st_mtime_ns, file.st_size, file.st_ino) for path, file in found),)
