"""What a source holds: a folder of pictures, WebDataset tars, or Parquet with bytes or addresses.

`survey` looks at the names only and fixes the order; `entries` then yields each input once, with what
its source says of it. A part that can't be read is an entry too, with a problem instead of a place to
read, so that nothing is lost without a word. img2dataset's three output forms are all understood.
"""

import contextlib
import hashlib
import os
import stat
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import pyarrow as pa

from spine.entries import JSON_LIMIT, NAMES, TEXT_LIMIT, Entry, clean, described, fields_of
from spine.errors import DataError
from spine.images import MAX_BYTES
from spine.places import (
    COMPRESSED_TARS,
    PARQUET_ERRORS,
    TAR_ERRORS,
    Member,
    is_streamed,
    open_anywhere,
    open_regular,
    parquet_file,
    place_of,
    read_bytes,
    split_place,
    tar_members,
    tar_stream,
)
from spine.remote import is_remote, list_remote

__all__ = ["Entry", "Survey", "entries", "place_of", "read_bytes", "split_place", "survey"]

_OPENED = (".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff")
_REFUSED = (".heic", ".heif", ".avif", ".jp2", ".jxl")
IMAGE_SUFFIXES = frozenset(_OPENED + _REFUSED)
"""A file named so counts as a picture, whatever is in it."""

_CONTAINERS = (".tar", ".parquet")

_BYTES_COLUMNS = ("jpg", "jpeg", "png", "webp", "image", "bytes", "image_bytes", "img", "content")


@dataclass(frozen=True, slots=True)
class _File:
    path: str
    kind: str  # picture, tar, parquet, sidecar or problem
    size: int
    mtime_ns: int
    problem: str | None = None


@dataclass(frozen=True, slots=True)
class Survey:
    """The files of a source, in the order in which they are read."""

    source: str
    """Absolute path of the folder or file."""
    digest: str
    """SHA-256 over names, sizes and times of change: other files, other digest."""
    total: int | None
    """Inputs, None where tars would have to be read to know."""
    files: tuple[_File, ...]


def survey(source: str) -> Survey:
    """List a source without reading pictures.

    Folders are walked to any depth in order of names; links to folders are followed, each folder once,
    so that loops end. Parquet beside pictures or tars only describes them and is not read.

    Raises:
        DataError: The source doesn't exist, or has no pictures, tars or Parquet.
    """
    if not source:
        raise DataError("no source given; name a folder of pictures, a .tar or a .parquet")
    if is_remote(source):
        return _survey_remote(source)
    root = os.path.abspath(os.path.expanduser(source))  # noqa: PTH100, PTH111  # keeps names that aren't UTF-8
    try:
        state = Path(root).stat()
    except (OSError, ValueError) as error:
        raise DataError(
            f"{source}: {getattr(error, 'strerror', None) or error}; give another source"
        ) from None
    folder = stat.S_ISDIR(state.st_mode)
    found = tuple(_walk(root)) if folder else (_File(root, _kind(root), state.st_size, state.st_mtime_ns),)
    return _surveyed(source, root, found)


def _survey_remote(source: str) -> Survey:
    root = source.rstrip("/")
    try:
        listed = list_remote(root)
    except Exception as error:  # each store's package has errors of its own
        if isinstance(error, DataError):
            raise
        said = " ".join(str(error).split())[:200]
        raise DataError(f"{source}: can't be listed ({said}); give another source") from None
    return _surveyed(
        source, root, tuple(_File(file.url, _kind(file.url), file.size, file.version) for file in listed)
    )


def _surveyed(source: str, root: str, found: tuple[_File, ...]) -> Survey:
    direct = any(file.kind in ("picture", "tar") for file in found)
    files = tuple(file for file in found if not (direct and file.kind == "parquet"))
    if all(file.kind == "sidecar" for file in files):
        raise DataError(
            f"{source}: no pictures, .tar or .parquet in it ({len(files):,} other files); give another source"
        )
    digest = hashlib.sha256()
    for file in files:
        name = os.fsencode(os.path.relpath(file.path, root))
        digest.update(b"%d %d %d " % (len(name), file.size, file.mtime_ns) + name)
    return Survey(root, digest.hexdigest(), _total(files), files)


def entries(source: str | Survey) -> Iterator[Entry]:
    """Each input of a source once, always in the same order.

    Args:
        source: A folder of pictures, a WebDataset .tar, a .parquet, or a folder of those; or its survey.

    Raises:
        DataError: As survey.
    """
    return _entries(survey(source) if isinstance(source, str) else source)


def _entries(surveyed: Survey) -> Iterator[Entry]:
    sidecars = {file.path for file in surveyed.files if file.kind == "sidecar"}
    alone = [file.path for file in surveyed.files] == [surveyed.source]
    base = surveyed.source.rpartition("/")[0] if alone else surveyed.source
    for file in surveyed.files:
        place = place_of(file.path)
        if file.problem is not None:
            yield Entry(place=place, problem=file.problem)
        elif file.kind == "picture":
            key = clean(_stem(os.path.relpath(file.path, base)))
            yield described(place, key, *_beside(file.path, sidecars))
        elif file.kind == "tar":
            yield from _tar_entries(file.path)
        elif file.kind == "parquet":
            yield from _parquet_entries(file.path)


def _walk(root: str) -> Iterator[_File]:
    """Every file below a folder; links to folders last, so that a picture goes by its real path if it can."""
    folders, links, visited = [root], deque[str](), set()
    while folders or links:
        folder = folders.pop() if folders else links.popleft()
        try:
            state = Path(folder).stat()
            if (state.st_dev, state.st_ino) in visited:
                continue
            visited.add((state.st_dev, state.st_ino))
            with os.scandir(folder) as listing:
                items = sorted(listing, key=lambda item: os.fsencode(item.name))
        except OSError as error:
            yield _File(folder, "problem", 0, 0, f"can't be listed: {error.strerror}")
            continue
        below = []
        for item in items:
            try:
                state = item.stat()
            except OSError:  # a link to nowhere, or to itself: reading it gives the reason
                yield _File(item.path, _kind(item.path), 0, 0)
                continue
            if not stat.S_ISDIR(state.st_mode):
                yield _File(item.path, _kind(item.path), state.st_size, state.st_mtime_ns)
            elif item.is_symlink():
                links.append(item.path)
            else:
                below.append(item.path)
        folders.extend(reversed(below))


def _kind(path: str) -> str:
    suffix = Path(path).suffix.lower()
    if path.lower().endswith(COMPRESSED_TARS):
        return "tar"
    if suffix in IMAGE_SUFFIXES:
        return "picture"
    return suffix[1:] if suffix in _CONTAINERS else "sidecar"


def _stem(path: str) -> str:
    return os.path.splitext(path)[0]  # noqa: PTH122  # Path would take the second slash out of an address


def _total(files: tuple[_File, ...]) -> int | None:
    total = 0
    for file in files:
        if file.kind == "tar":
            return None
        if file.kind == "parquet":
            try:
                with parquet_file(file.path) as parquet:
                    total += int(parquet.metadata.num_rows)
            except PARQUET_ERRORS:
                total += 1
        elif file.kind != "sidecar":
            total += 1
    return total


def _beside(path: str, sidecars: set[str]) -> tuple[bytes | None, bytes | None]:
    """The caption's text and the JSON that stand beside a picture."""
    stem = _stem(path)
    found: list[bytes | None] = [None, None]
    for number, (suffix, limit) in enumerate(((".txt", TEXT_LIMIT), (".json", JSON_LIMIT))):
        if stem + suffix in sidecars:
            with contextlib.suppress(OSError, ValueError), open_anywhere(stem + suffix) as file:
                found[number] = file.read(limit + 1)
    return found[0], found[1]


def _tar_entries(path: str) -> Iterator[Entry]:
    if is_streamed(path):
        yield from _streamed_entries(path)
        return
    seen: dict[str, int] = {}
    try:
        with open_regular(path) as file:
            for members in _samples(file):
                sides = [
                    _side(file.fileno(), members, suffix, limit)
                    for suffix, limit in ((".txt", TEXT_LIMIT), (".json", JSON_LIMIT))
                ]
                for member in members:
                    if Path(member.name).suffix.lower() not in IMAGE_SUFFIXES:
                        continue
                    seen[member.name] = seen.get(member.name, 0) + 1
                    again = (str(seen[member.name]),) if seen[member.name] > 1 else ()
                    place = place_of(path, member.name, *again)
                    yield described(place, clean(_sample(member.name)), sides[0], sides[1])
    except TAR_ERRORS as error:
        yield Entry(
            place=place_of(path), problem=f"the tar is damaged ({error}); what lies behind the damage is lost"
        )


def _streamed_entries(path: str) -> Iterator[Entry]:
    """As _tar_entries, for a tar that can't be sought in: each picture comes with its bytes."""
    seen: dict[str, int] = {}
    sample: list[tuple[str, int, bytes | None]] = []

    def sides(suffix: str, limit: int) -> bytes | None:
        return next(
            (part[: limit + 1] for name, _, part in sample if part and name.lower().endswith(suffix)), None
        )

    def pictures() -> Iterator[Entry]:
        text, about = sides(".txt", TEXT_LIMIT), sides(".json", JSON_LIMIT)
        for name, _, content in sample:
            if Path(name).suffix.lower() not in IMAGE_SUFFIXES:
                continue
            seen[name] = seen.get(name, 0) + 1
            again = (str(seen[name]),) if seen[name] > 1 else ()
            # Without content it is too large, which whoever reads its place finds out.
            yield described(place_of(path, name, *again), clean(_sample(name)), text, about, content)

    try:
        for member in tar_stream(path, MAX_BYTES):
            if sample and _sample(sample[0][0]) != _sample(member[0]):
                yield from pictures()
                sample = []
            sample.append(member)
        yield from pictures()
    except (*TAR_ERRORS, DataError) as error:
        yield from pictures()
        yield Entry(
            place=place_of(path), problem=f"the tar is damaged ({error}); what lies behind the damage is lost"
        )


def _samples(file: BinaryIO) -> Iterator[list[Member]]:
    """Samples of a WebDataset tar: members that follow each other with one name up to its first dot.

    Raises:
        TAR_ERRORS: The tar is damaged; what lies before the damage was given.
    """
    sample: list[Member] = []
    try:
        for member in tar_members(file):
            if sample and _sample(sample[0].name) != _sample(member.name):
                yield sample
                sample = []
            sample.append(member)
    except TAR_ERRORS:
        if sample:
            yield sample
        raise
    if sample:
        yield sample


def _sample(member: str) -> str:
    folder, _, name = member.rpartition("/")
    return f"{folder}/{name.split('.', 1)[0]}" if folder else name.split(".", 1)[0]


def _side(descriptor: int, members: list[Member], suffix: str, limit: int) -> bytes | None:
    for member in members:
        if member.name.lower().endswith(suffix):
            return os.pread(descriptor, min(member.size, limit + 1), member.offset)
    return None


def _parquet_entries(path: str) -> Iterator[Entry]:
    try:
        with parquet_file(path) as file:
            schema = file.schema_arrow
            content = _bytes_column(schema)
            theirs = {other for others in NAMES.values() for other in others}
            columns = [
                column.name
                for column in schema
                if column.name.lower() in theirs and not pa.types.is_nested(column.type)
            ]
            if content is None and not {"url", "image_url"} & {name.lower() for name in columns}:
                held = ", ".join(schema.names[:20])
                yield Entry(
                    place=place_of(path), problem=f"no column with pictures or addresses; it has: {held}"
                )
                return
            row = 0
            for batch in file.iter_batches(batch_size=1024, columns=columns or None):
                for values in batch.select(columns).to_pylist() if columns else [{}] * batch.num_rows:
                    place = place_of(path, content, str(row)) if content is not None else None
                    fields = fields_of({name.lower(): value for name, value in values.items()})
                    fields["key"] = fields["key"] or f"{Path(clean(path) or path).stem}:{row}"
                    yield Entry(place=place, **fields)
                    row += 1
    except PARQUET_ERRORS as error:
        yield Entry(
            place=place_of(path), problem=f"the Parquet file is damaged: {str(error).splitlines()[0]}"
        )


def _bytes_column(schema: pa.Schema) -> str | None:
    """The column that holds pictures; "name.bytes" where it is a struct, as data set hubs store them."""
    known = {column.name.lower(): column for column in schema}
    columns = [known[name] for name in _BYTES_COLUMNS if name in known]
    for column in columns + [column for column in schema if column not in columns]:
        if pa.types.is_binary(column.type) or pa.types.is_large_binary(column.type):
            return str(column.name)
        if pa.types.is_struct(column.type) and column.type.get_field_index("bytes") >= 0:
            return f"{column.name}.bytes"
    return None
