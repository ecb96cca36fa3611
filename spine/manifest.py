"""The manifest that says a stage is done: what it did, from what, and what it left, with digests to compare."""

import hashlib
import json
import os
import platform
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from spine.errors import DataError
from spine.publish import sha256_of
from spine.run import written_by

SCHEMA_VERSION = 1
"""Of the manifest and of every table; a reader refuses a newer one."""

MANIFEST = "manifest.json"
CHECKSUM = "checksum"
"""In manifest.json: SHA-256 over all else in it."""

ADVICE = "take it away with `popfactory verify RUN --remove-damaged` and run the stage again"
"""What to do about a damaged file."""

PIECE_BYTES = 2**27
"""Larger files have a digest for each so many bytes, too."""

_HASHED_AT_ONCE = min(4, os.cpu_count() or 1)  # pieces: one thread hashes less than a disk gives
_PACKAGES = (
    "popfactory",
    "numpy",
    "pyarrow",
    "pillow",
    "torch",
    "open_clip_torch",
    "transformers",
    "faiss-cpu",
    "faiss-gpu",
)


class Newer(DataError):
    """A newer popfactory wrote it: not to be read, and not to be taken for damage and cleared away either."""


@dataclass(frozen=True, kw_only=True, slots=True)
class FileRecord:
    """One published file of a stage."""

    path: str
    """Relative to the stage's folder, with forward slashes."""
    size_bytes: int
    sha256: str
    rows: int | None
    """Rows of a Parquet file, None for others."""
    piece_sha256: list[str] = field(default_factory=list)
    """Of each PIECE_BYTES in turn, so that several threads compare a large file at once; none of another."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Manifest:
    """What a finished stage did, from what, and what it left."""

    stage: str
    parameters: dict[str, Any]
    """Every setting that shaped the result; JSON values."""
    inputs: dict[str, str]
    """Digest of each stage folder or file that was read, by name."""
    counts: dict[str, int]
    """Rows in and out, and those lost by reason: they add up."""
    facts: dict[str, Any]
    """What later stages need to know: d, model, demo_models. JSON values."""
    files: list[FileRecord]
    versions: dict[str, str] = field(default_factory=dict)
    created: str = ""
    notes: list[str] = field(default_factory=list)
    """Paths of files that tell how the work went, such as times; checked like the others."""
    named_by_hash: dict[str, int] = field(default_factory=dict)
    """Folders whose files are named by their own SHA-256, with how many there are: too many to list."""
    schema_version: int = SCHEMA_VERSION

    @property
    def digest(self) -> str:
        """SHA-256 over the result and what it was made from; not over times, versions and notes."""
        content = asdict(self)
        for name in ("versions", "created", "notes", "named_by_hash"):
            content.pop(name)
        content["files"] = [record for record in content["files"] if record["path"] not in self.notes]
        for record in content["files"]:
            record.pop("piece_sha256")
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def read_manifest(folder: Path) -> Manifest:
    """Read a finished stage's manifest.

    Raises:
        DataError: There is none (the stage hasn't run or was stopped), it can't be read, or a newer
            popfactory wrote it.
    """
    path = folder / MANIFEST
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        require_known(path, content["schema_version"])
        checksum = content.pop(CHECKSUM, None)
        if checksum is not None and checksum != checksum_of(content):
            raise ValueError("it doesn't fit its own checksum")
        files = [FileRecord(**record) for record in content.pop("files")]
        return Manifest(**content, files=files)
    except FileNotFoundError:
        raise DataError(f"{folder}: not finished (no {MANIFEST}); {written_by(folder)}") from None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{path}: damaged ({error}); {ADVICE}") from None


def require_known(path: Path, schema_version: int) -> None:
    """Refuse what a newer popfactory wrote."""
    if schema_version > SCHEMA_VERSION:
        raise Newer(
            f"{path}: schema version {schema_version}, this popfactory reads up to {SCHEMA_VERSION}; "
            "update popfactory"
        )


def find_manifest(folder: Path) -> Manifest | None:
    """The manifest of a stage, None where it isn't finished."""
    return read_manifest(folder) if (folder / MANIFEST).is_file() else None


def verify(folder: Path) -> list[str]:
    """Compare every file of a finished stage with its manifest, and the manifest with itself.

    Returns:
        One line for each file that is missing or differs; empty when all is as published.

    Raises:
        DataError: A newer popfactory wrote it.
    """
    return list(_damaged(folder).values())


def remove_damaged(folder: Path) -> list[str]:
    """Take the damaged files of a finished stage away, and its manifest, so that the stage makes them anew.

    What is as published stays: the stage goes on from there.

    Returns:
        As `verify`; where it is empty, nothing was removed.

    Raises:
        DataError: A newer popfactory wrote it; nothing was removed.
    """
    damaged = _damaged(folder)
    if damaged:
        (folder / MANIFEST).unlink(missing_ok=True)  # first: without its files it would be a lie
        for path in damaged:
            if not path.is_dir():  # a folder that lacks files: what is there is sound
                path.unlink(missing_ok=True)
    return list(damaged.values())


def _damaged(folder: Path) -> dict[Path, str]:
    """The files that are not as published, with what is wrong."""
    try:
        manifest = read_manifest(folder)
    except Newer:
        raise
    except DataError as error:
        return {folder / MANIFEST: str(error)}
    problems: dict[Path, str] = {}
    with ThreadPoolExecutor(_HASHED_AT_ONCE) as pool:
        compared = [_comparison(pool, folder, record) for record in manifest.files]
        for record, damage in zip(manifest.files, compared, strict=True):
            problem = damage()
            if problem is not None:
                problems[folder / record.path] = problem
        for name, count in manifest.named_by_hash.items():
            there = files_named_by_hash(folder / name)
            for path, digest in zip(there, pool.map(sha256_of, there), strict=True):
                if digest != path.stem:
                    problems[path] = f"{path}: content differs from what its name says"
            if len(there) != count:
                problems[folder / name] = f"{folder / name}: {len(there):,} files, published with {count:,}"
    return problems


def require_published(folder: Path, record: FileRecord) -> None:
    """See that one file of a finished stage is as its manifest says, content and all; reads it once.

    Raises:
        DataError: It is missing or differs.
    """
    with ThreadPoolExecutor(_HASHED_AT_ONCE) as pool:
        problem = _comparison(pool, folder, record)()
    if problem is not None:
        raise DataError(f"{problem}; put it back, or {ADVICE}")


def _comparison(pool: ThreadPoolExecutor, folder: Path, record: FileRecord) -> Callable[[], str | None]:
    """Begin to compare a file with what was published, content and all.

    Returns:
        Waits for the end of it, and says what is wrong; None for nothing.
    """
    problem, path = misfit(folder, record), folder / record.path
    if problem is not None:
        return lambda: problem
    digests = (
        _piece_digests(pool, path, record.size_bytes)
        if record.piece_sha256
        else [pool.submit(sha256_of, path)]
    )
    published = record.piece_sha256 or [record.sha256]

    def damage() -> str | None:
        found = [digest.result() for digest in digests]
        return None if found == published else f"{path}: content differs from what was published"

    return damage


def _piece_digests(pool: ThreadPoolExecutor, path: Path, size_bytes: int) -> list[Future[str]]:
    return [pool.submit(sha256_of, path, start, PIECE_BYTES) for start in range(0, size_bytes, PIECE_BYTES)]


def file_records(folder: Path, paths: Iterable[Path]) -> list[FileRecord]:
    """What a manifest says of these files below `folder`; reads them all."""
    with ThreadPoolExecutor(_HASHED_AT_ONCE) as pool:
        return [_record(pool, folder, path) for path in paths]


def _record(pool: ThreadPoolExecutor, folder: Path, path: Path) -> FileRecord:
    size_bytes = path.stat().st_size
    pieces = _piece_digests(pool, path, size_bytes) if size_bytes > PIECE_BYTES else []
    return FileRecord(
        path=path.relative_to(folder).as_posix(),
        size_bytes=size_bytes,
        sha256=sha256_of(path),
        rows=pq.read_metadata(path).num_rows if path.suffix == ".parquet" else None,
        piece_sha256=[digest.result() for digest in pieces],
    )


def files_named_by_hash(folder: Path) -> list[Path]:
    """The files in a folder and below, temporary ones aside."""
    return sorted(path for path in folder.rglob("*") if path.is_file() and not path.name.startswith("."))


@cache
def package_versions() -> dict[str, str]:
    """Versions of Python and of the packages that shape results, without importing them."""
    versions = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return versions


def checksum_of(content: Mapping[str, Any]) -> str:
    """Of all that a manifest says."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def misfit(folder: Path, record: FileRecord) -> str | None:
    """What is wrong with a published file as far as its name and size tell; None for nothing."""
    path = folder / record.path
    if not path.is_file():
        return f"{path}: missing"
    size_bytes = path.stat().st_size
    if size_bytes != record.size_bytes:
        return f"{path}: {size_bytes:,} bytes, published with {record.size_bytes:,}"
    return None
