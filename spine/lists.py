"""Takedown and hash lists: pictures that may be neither kept, shown nor released.

A list is a text file, an entry a line; empty lines and lines that begin with # don't count. A takedown
entry is an id (a whole number), an address (with ://) or a domain, which covers its subdomains. A hash
entry is a SHA-256 in hex. A list that can't be read stops the work: going on without it could show
what must not be shown.
"""

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from spine.errors import ConfigError
from spine.settings import ListsConfig


@dataclass(frozen=True, slots=True)
class BlockLists:
    """All lists of a run, loaded."""

    ids: frozenset[int]
    urls: frozenset[str]
    domains: frozenset[str]
    hashes: frozenset[str]
    digest: str
    """SHA-256 over all entries: part of what a stage is made from."""

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
        hashes = set()
        for path, number, entry in _lines(config.hash_block, folder):
            if not re.fullmatch(r"[0-9A-Fa-f]{64}", entry):
                raise ConfigError(
                    f"{path}, line {number}: {entry!r} is no SHA-256 (64 hex digits); correct the list"
                )
            hashes.add(entry.lower())
        entries = [*map(str, sorted(ids)), *sorted(urls), *sorted(domains), "hashes", *sorted(hashes)]
        digest = hashlib.sha256("\n".join(entries).encode()).hexdigest()
        return cls(frozenset(ids), frozenset(urls), frozenset(domains), frozenset(hashes), digest)

    def blocks(
        self, *, picture_id: int | None = None, url: str | None = None, sha256: str | None = None
    ) -> str | None:
        """The rule that keeps a picture out, "takedown" or "hash_block"; None if no list names it."""
        if picture_id in self.ids or (url is not None and self._names(url)):
            return "takedown"
        return "hash_block" if sha256 in self.hashes else None

    def _names(self, url: str) -> bool:
        if url in self.urls:
            return True
        if not self.domains:
            return False
        try:
            host = (urlsplit(url).hostname or "").lower().rstrip(".")
        except ValueError:  # no address at all: the fetch will say so
            return False
        labels = host.split(".")
        return any(".".join(labels[start:]) in self.domains for start in range(len(labels)))


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
