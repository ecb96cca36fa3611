"""Files that lie elsewhere: on S3, Google Cloud Storage, the web or another store that fsspec knows, by their address.

For addresses from settings alone: what data names goes through `spine.web`. Only stores of a fixed list are opened,
one at a time: fsspec's own chains of stores could unpack archives or start other things on the way.
"""

import hashlib
import re
from dataclasses import dataclass
from typing import Any, BinaryIO, cast

from spine.errors import DataError

STORES = {
    "s3": "popfactory[s3]",
    "gs": "popfactory[gs]",
    "gcs": "popfactory[gs]",
    "az": "adlfs",
    "abfs": "adlfs",
    "hf": "huggingface_hub",
    "http": "popfactory[http]",
    "https": "popfactory[http]",
    "local": "fsspec",
}
"""What an address may begin with, and the package that opens it."""

_ADDRESS = re.compile(r"([a-z0-9]+)://")
_VERSIONS = ("ETag", "etag", "md5Hash", "mtime", "LastModified", "updated")  # as stores call it
_BLOCK_BYTES = 8_000_000  # read ahead at a time: archives are read from one end to the other


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """One file of a store."""

    url: str
    size: int
    version: int
    """A number made of what the store says of its content: a changed file has another."""


def is_remote(path: str) -> bool:
    """Whether a path is an address of a store."""
    found = _ADDRESS.match(path)
    return found is not None and found[1] in STORES


def open_remote(url: str) -> BinaryIO:
    """Open a file for reading; it can be sought in.

    Raises:
        OSError, ValueError: It can't be opened.
        DataError: The store's package isn't installed.
    """
    store, path = _store(url)
    return cast(BinaryIO, store.open(path, "rb", block_size=_BLOCK_BYTES))


def list_remote(url: str, *, deep: bool = True) -> list[RemoteFile]:
    """The files of a folder, in order of their names; or the one file that is named.

    Args:
        url: The folder or file.
        deep: At any depth; else those right in the folder.

    Raises:
        OSError, ValueError: The store can't be reached, or there is nothing.
        DataError: The store's package isn't installed.
    """
    store, path = _store(url)
    found = store.find(path, maxdepth=None if deep else 1, detail=True)
    if not found:
        raise FileNotFoundError(2, "nothing there", url)
    protocol = url.partition("://")[0]
    return [
        RemoteFile(
            name if "://" in name else f"{protocol}://{name}", int(about.get("size") or 0), _version(about)
        )
        for name, about in sorted(found.items())
    ]


def _store(url: str) -> tuple[Any, str]:
    import fsspec

    protocol = url.partition("://")[0]
    if "::" in url:
        raise ValueError("'::' chains stores, which is not done here")
    try:
        store, path = fsspec.core.url_to_fs(url)
    except ImportError as error:
        raise DataError(f"{url}: {error}; pip install '{STORES[protocol]}'") from None
    return store, path


def _version(about: dict[str, Any]) -> int:
    said = next((about[key] for key in _VERSIONS if about.get(key)), "")
    return int.from_bytes(hashlib.sha256(str(said).encode()).digest()[:7], "big")
