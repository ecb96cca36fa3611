"""Takedown and hash lists: pictures that may be neither kept, shown nor released.

A list is a text file, an entry a line; empty lines and lines that begin with # don't count. A takedown
entry is an id (a whole number), an address (with ://) or a domain, which covers its subdomains. A hash
entry is hex: of the bytes a SHA-256 (64 digits) or MD5 (32), also as sha256:… and md5:…; of the address
the same as url:…; of how the picture looks a PDQ hash as pdq:…. A list that can't be read stops the
work: going on without it could show what must not be shown.
"""

import functools
import hashlib
import re
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import pyarrow as pa

from spine.config import load_config
from spine.errors import ConfigError
from spine.looks import Looks, words
from spine.run import Run
from spine.settings import ListsConfig

_DIGITS = {"sha256": (64,), "md5": (32,), "url": (32, 64), "pdq": (64,)}
ON_LISTS = ("takedown", "hash_block")
"""The rules by which lists keep a picture out: what `BlockLists.blocks` says."""

LOOK_EVERY_S = 1.0
"""Seconds between two looks of a stage at its lists: it asks them of every picture."""

_PICTURES = 10_000  # whose looks are asked at once


def _no_looks() -> Looks:
    return Looks.of(words([]))


@dataclass(frozen=True, slots=True)
class BlockLists:
    """All lists of a run, loaded."""

    ids: frozenset[int]
    urls: frozenset[str]
    domains: frozenset[str]
    hashes: frozenset[str]
    """SHA-256 and MD5 of bytes."""
    digest: str
    """SHA-256 over all entries: part of what a stage is made from."""
    url_hashes: frozenset[str] = frozenset()
    """SHA-256 and MD5 of addresses."""
    pdq: Looks = field(default_factory=_no_looks, compare=False)
    """PDQ hashes."""

    @classmethod
    def load(cls, config: ListsConfig, folder: Path) -> "BlockLists":
        """Read every list.

        Args:
            config: The [lists] table.
            folder: What relative paths start from: the run folder.

        Raises:
            ConfigError: A list can't be read, or has a line that is no entry.
        """
        ids, urls, domains = set(), set(), set()
        for path, number, entry in _lines(config.takedown, folder):
            if re.fullmatch(r"[+-]?\d{1,19}", entry):
                ids.add(int(entry))
            elif "://" in entry:
                urls.add(entry)
            elif re.fullmatch(r"[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?", entry) and "." in entry:
                domains.add(entry.lower())
            else:
                raise ConfigError(
                    f"{path}, line {number}: {entry!r} is no id, address or domain; correct the list"
                )
        found = _hashes(config, folder)
        content, addresses, looks = found["sha256"] | found["md5"], found["url"], sorted(found["pdq"])
        entries = [*map(str, sorted(ids)), *sorted(urls), *sorted(domains), "hashes", *sorted(content)]
        entries += [*(f"url:{each}" for each in sorted(addresses)), *(f"pdq:{each}" for each in looks)]
        return cls(
            ids=frozenset(ids),
            urls=frozenset(urls),
            domains=frozenset(domains),
            hashes=frozenset(content),
            digest=hashlib.sha256("\n".join(entries).encode()).hexdigest(),
            url_hashes=frozenset(addresses),
            pdq=Looks.of(words(looks)),
        )

    @property
    def empty(self) -> bool:
        """Whether they name nothing at all."""
        return not self.size

    @property
    def size(self) -> int:
        """Entries in all."""
        named = (self.ids, self.urls, self.domains, self.hashes, self.url_hashes)
        return sum(map(len, named)) + len(self.pdq)

    def blocks(
        self,
        *,
        picture_id: int | None = None,
        url: str | None = None,
        sha256: str | None = None,
        md5: str | None = None,
        pdq: str | None = None,
    ) -> str | None:
        """The rule that keeps a picture out, "takedown" or "hash_block"; None if no list names it.

        Args:
            picture_id: Its id.
            url: Its address.
            sha256: Of its bytes, in hex.
            md5: Of its bytes, in hex.
            pdq: Its PDQ hashes, in hex, joined by spaces: one for each way it may be turned.
        """
        rule = self._rule(picture_id, url, sha256, md5)
        if rule is None and pdq and len(self.pdq) and self.pdq.near(words(pdq.split())).any():
            return "hash_block"
        return rule

    def blocks_all(self, pictures: pa.Table) -> list[str | None]:
        """As `blocks`, of many pictures at once: their looks are compared together, in far less time.

        Args:
            pictures: Columns id, url, sha256, md5, and pdq where a list has such hashes.
        """
        names = ("id", "url", "sha256", "md5")
        known = zip(*(pictures.column(name).to_pylist() for name in names), strict=True)
        rules = [self._rule(*each) for each in known]
        if not len(self.pdq):
            return rules
        looks = pictures.column("pdq").to_pylist()
        asked = [place for place, look in enumerate(looks) if look and rules[place] is None]
        for start in range(0, len(asked), _PICTURES):
            places = asked[start : start + _PICTURES]
            hashes = [looks[place].split() for place in places]
            near = self.pdq.near(words([each for of_picture in hashes for each in of_picture]))
            firsts = np.cumsum([0, *map(len, hashes[:-1])])
            for at in np.flatnonzero(np.logical_or.reduceat(near, firsts)).tolist():
                rules[places[at]] = "hash_block"
        return rules

    def _rule(
        self, picture_id: int | None, url: str | None, sha256: str | None, md5: str | None
    ) -> str | None:
        """As `blocks`, but for its look."""
        if picture_id in self.ids or (url is not None and self._names(url)):
            return "takedown"
        if sha256 in self.hashes or md5 in self.hashes:
            return "hash_block"
        if url is not None and self.url_hashes and not self.url_hashes.isdisjoint(_hashes_of(url)):
            return "hash_block"
        return None

    def _names(self, url: str) -> bool:
        if url in self.urls:
            return True
        if not self.domains:
            return False
        return not self.domains.isdisjoint(_domains_of("/".join(url.split("/", 3)[:3])))


class ListsInForce:
    """The lists of a run as they stand at each look; safe to share between threads."""

    def __init__(self, run: Run, every_s: float = 0.0) -> None:
        """Read nothing yet.

        Args:
            run: Whose lists.
            every_s: For so many seconds what was found at one look counts without another.
        """
        self._run, self._every_s, self._until = run, every_s, 0.0
        self._lock = threading.Lock()
        self._files: list[Path] = []
        self._state: object = None
        self._lists: BlockLists | None = None

    def now(self) -> BlockLists:
        """The lists, read anew where the settings or one of their files changed since the last look.

        Raises:
            ConfigError: One can't be read; then no picture may be shown.
        """
        lists = self._lists
        if lists is not None and time.monotonic() < self._until:
            return lists
        with self._lock:
            until = time.monotonic() + self._every_s
            if self._lists is None or self._state != [*map(file_state, (self._run.config, *self._files))]:
                self._lists = None  # should reading fail, the old ones must not stand
                # The state before reading: a change meanwhile is seen at the next look.
                settings = file_state(self._run.config)
                config = load_config(self._run.config).lists
                self._files = [
                    self._run.folder / Path(name).expanduser()
                    for name in (*config.takedown, *config.hash_block)
                ]
                self._state = [settings, *map(file_state, self._files)]
                self._lists = BlockLists.load(config, self._run.folder)
            self._until = until
            return self._lists


def file_state(path: Path) -> tuple[int, int, int]:
    """Changes when a file is written or replaced: time, size, inode; zeros where there is none."""
    try:
        found = path.stat()
    except FileNotFoundError:
        return (0, 0, 0)
    return (found.st_mtime_ns, found.st_size, found.st_ino)


def _hashes(config: ListsConfig, folder: Path) -> dict[str, set[str]]:
    """The entries of the hash lists by kind, in lower case."""
    found: dict[str, set[str]] = {kind: set() for kind in _DIGITS}
    for path, number, entry in _lines(config.hash_block, folder):
        given, colon, digits = entry.lower().rpartition(":")
        digits = digits.strip()
        kind = given.strip() if colon else {64: "sha256", 32: "md5"}.get(len(digits), "")
        if len(digits) not in _DIGITS.get(kind, ()) or not re.fullmatch(r"[0-9a-f]+", digits):
            raise ConfigError(
                f"{path}, line {number}: {entry!r} is no SHA-256 (64 hex digits), MD5 (32), url:HASH or "
                "pdq:HASH; correct the list"
            )
        found[kind].add(digits)
    return found


@functools.lru_cache(maxsize=65_536)
def _domains_of(origin: str) -> tuple[str, ...]:
    """The host of an address that ends before its path, and every domain above it; many addresses share one."""
    try:
        host = (urlsplit(origin).hostname or "").lower().rstrip(".")
    except ValueError:  # no address at all: the fetch will say so
        return ()
    labels = host.split(".")
    return tuple(".".join(labels[start:]) for start in range(len(labels)))


def _hashes_of(url: str) -> tuple[str, str]:
    content = url.encode("utf-8", errors="surrogatepass")
    return hashlib.sha256(content).hexdigest(), hashlib.md5(content, usedforsecurity=False).hexdigest()


def _lines(paths: tuple[str, ...], folder: Path) -> list[tuple[Path, int, str]]:
    found = []
    for name in paths:
        path = folder / Path(name).expanduser()
        try:
            text = path.read_text(encoding="utf-8-sig")
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(
                f"[lists] {path}: can't be read ({error}); nothing goes on without its lists"
            ) from None
        for number, line in enumerate(text.splitlines(), 1):
            entry = line.strip()
            if entry and not entry.startswith("#"):
                found.append((path, number, entry))
    return found
