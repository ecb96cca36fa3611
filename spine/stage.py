"""A stage's folder while it is worked on, and the manifest that says it is done.

`Stage.open` decides what an earlier start left: the finished folder (nothing to do), finished parts
of the same work (go on), or other work (clear it). `Stage.finish` publishes manifest.json last. A
folder without one is unfinished and nobody reads it.
"""

import hashlib
import json
import os
import platform
import shutil
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from functools import cache, partial
from importlib import metadata
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from spine.errors import DataError
from spine.publish import publish_json, sha256_of, sweep
from spine.run import written_by

SCHEMA_VERSION = 1
"""Of the manifest and of every table; a reader refuses a newer one."""

MANIFEST = "manifest.json"
_PLAN = "plan.json"
_CHECKSUM = "checksum"  # in manifest.json: SHA-256 over all else in it
_ADVICE = "take it away with `popfactory verify RUN --remove-damaged` and run the stage again"
_HASHED_AT_ONCE = min(4, os.cpu_count() or 1)  # files: one thread hashes less than a disk gives
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


class _Newer(DataError):
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
        _require_known(path, content["schema_version"])
        checksum = content.pop(_CHECKSUM, None)
        if checksum is not None and checksum != _checksum(content):
            raise ValueError("it doesn't fit its own checksum")
        files = [FileRecord(**record) for record in content.pop("files")]
        return Manifest(**content, files=files)
    except FileNotFoundError:
        raise DataError(f"{folder}: not finished (no {MANIFEST}); {written_by(folder)}") from None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{path}: damaged ({error}); {_ADVICE}") from None


def _require_known(path: Path, schema_version: int) -> None:
    if schema_version > SCHEMA_VERSION:
        raise _Newer(
            f"{path}: schema version {schema_version}, this popfactory reads up to {SCHEMA_VERSION}; "
            "update popfactory"
        )


def find_manifest(folder: Path) -> Manifest | None:
    """The manifest of a stage, None where it isn't finished."""
    return read_manifest(folder) if (folder / MANIFEST).is_file() else None


def read_plan(folder: Path) -> Any:
    """What a stage began with, finished or not: a mapping with parameters and inputs; None where nothing tells."""
    try:
        return json.loads((folder / _PLAN).read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return None


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
    except _Newer:
        raise
    except DataError as error:
        return {folder / MANIFEST: str(error)}
    problems: dict[Path, str] = {}
    with ThreadPoolExecutor(_HASHED_AT_ONCE) as pool:
        found = pool.map(partial(_damage, folder), manifest.files)
        for record, problem in zip(manifest.files, found, strict=True):
            if problem is not None:
                problems[folder / record.path] = problem
        for name, count in manifest.named_by_hash.items():
            there = _named_by_hash(folder / name)
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
    problem = _damage(folder, record)
    if problem is not None:
        raise DataError(f"{problem}; put it back, or {_ADVICE}")


def _damage(folder: Path, record: FileRecord) -> str | None:
    """What is wrong with a published file, its content included; None for nothing."""
    problem, path = _misfit(folder, record), folder / record.path
    if problem is None and sha256_of(path) != record.sha256:
        problem = f"{path}: content differs from what was published"
    return problem


def _named_by_hash(folder: Path) -> list[Path]:
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


@dataclass(frozen=True, slots=True)
class Stage:
    """A stage's folder, opened for work."""

    name: str
    folder: Path
    parameters: dict[str, Any]
    inputs: dict[str, str]
    published: Manifest | None
    """The manifest when this very work is finished already; then there is nothing to do."""

    @classmethod
    def open(
        cls,
        name: str,
        folder: Path,
        parameters: Mapping[str, Any],
        inputs: Mapping[str, str],
        *,
        grows_with: Iterable[str] = (),
        force: bool = False,
    ) -> "Stage":
        """Open a stage's folder for work with these parameters on these inputs.

        Finished with the same: `published` is set. Begun with the same: the finished files stay, and
        the stage goes on. Begun or finished with others: the folder is cleared first.

        Args:
            name: The stage, for the manifest.
            folder: Its own folder; everything in it belongs to the stage.
            parameters: Every setting that shapes the result; JSON values.
            inputs: Digests of what is read, by name.
            grows_with: Names of parameters and inputs whose change keeps the finished files, since
                each row stands for itself: a deeper fetch keeps what is fetched.
            force: Clear the folder in any case.

        Raises:
            DataError: It is finished with the same, but one of its files is missing or has another size; or a
                newer popfactory worked on it, and `force` isn't given.
        """
        plain = json.loads(json.dumps(dict(parameters)))
        given = dict(inputs)
        flexible = set(grows_with)
        plan = {
            "schema_version": SCHEMA_VERSION,
            "parameters": {key: value for key, value in plain.items() if key not in flexible},
            "inputs": {key: value for key, value in given.items() if key not in flexible},
        }
        folder.mkdir(parents=True, exist_ok=True)
        begun = None if force else read_plan(folder)
        if isinstance(begun, dict):
            _require_known(folder / _PLAN, begun.get("schema_version", 0))
        published = None if force else _published_or_none(folder)
        if published is not None and published.parameters == plain and published.inputs == given:
            _require_files(folder, published)
            return cls(name, folder, plain, given, published)
        (folder / MANIFEST).unlink(missing_ok=True)
        if begun != plan:
            _clear(folder)
            publish_json(folder / _PLAN, plan)
        sweep(folder)
        return cls(name, folder, plain, given, None)

    def finish(
        self,
        counts: Mapping[str, int],
        facts: Mapping[str, Any] | None = None,
        *,
        notes: Iterable[str] = (),
        named_by_hash: Iterable[str] = (),
    ) -> Manifest:
        """Publish the manifest: digests of every file in the folder, written last.

        Args:
            counts: Rows in and out, and those lost by reason.
            facts: What later stages need to know; JSON values.
            notes: Paths of files that tell how the work went and differ each time: no part of the digest.
            named_by_hash: Folders in it whose files are named by their own SHA-256, so that nobody need read
                them all to write this down.
        """
        apart = {name: len(_named_by_hash(self.folder / name)) for name in named_by_hash}
        manifest = Manifest(
            stage=self.name,
            parameters=self.parameters,
            inputs=self.inputs,
            counts={key: int(value) for key, value in counts.items()},
            facts=json.loads(json.dumps(dict(facts or {}))),
            files=[_record(self.folder, path) for path in _published_files(self.folder, apart)],
            versions=package_versions(),
            created=datetime.now(UTC).isoformat(timespec="seconds"),
            notes=list(notes),
            named_by_hash=apart,
        )
        content = asdict(manifest)
        publish_json(self.folder / MANIFEST, content | {_CHECKSUM: _checksum(content)})
        return manifest


def _checksum(content: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _published_or_none(folder: Path) -> Manifest | None:
    try:
        return find_manifest(folder)
    except _Newer:
        raise
    except DataError:  # damaged: the work is done anew
        return None


def _require_files(folder: Path, published: Manifest) -> None:
    """See that what a manifest names is there, by size alone: digests take as long as reading everything."""
    for record in published.files:
        problem = _misfit(folder, record)
        if problem is not None:
            raise DataError(f"{problem}; put it back, or {_ADVICE}")


def _misfit(folder: Path, record: FileRecord) -> str | None:
    """What is wrong with a published file as far as its name and size tell; None for nothing."""
    path = folder / record.path
    if not path.is_file():
        return f"{path}: missing"
    size_bytes = path.stat().st_size
    if size_bytes != record.size_bytes:
        return f"{path}: {size_bytes:,} bytes, published with {record.size_bytes:,}"
    return None


def _clear(folder: Path) -> None:
    for path in folder.iterdir():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()


def _published_files(folder: Path, apart: Iterable[str] = ()) -> list[Path]:
    """Those to be listed in the manifest: temporary ones aside, and those in folders of files named by hash."""
    tops = (path for path in folder.iterdir() if path.name not in set(apart))
    found = (path for top in tops for path in ((top,) if top.is_file() else top.rglob("*")))
    files = (path for path in found if path.is_file() and not path.name.startswith("."))
    return sorted(path for path in files if path.relative_to(folder).as_posix() not in (MANIFEST, _PLAN))


def _record(folder: Path, path: Path) -> FileRecord:
    return FileRecord(
        path=path.relative_to(folder).as_posix(),
        size_bytes=path.stat().st_size,
        sha256=sha256_of(path),
        rows=pq.read_metadata(path).num_rows if path.suffix == ".parquet" else None,
    )
