"""What a source holds: a folder of pictures, WebDataset tars, or Parquet with bytes or addresses.

`survey` looks at the names only and fixes the order; `entries` then yields each input once, with what
its source says of it. A part that can't be read is an entry too, with a problem instead of a place to
read, so that nothing is lost without a word. img2dataset's three output forms are all understood.
"""

import hashlib
import json
import math
import os
import stat
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from spine.errors import DataError
from spine.places import (
    PARQUET_ERRORS,
    TAR_ERRORS,
    Member,
    open_regular,
    place_of,
    read_bytes,
    split_place,
    tar_members,
)

__all__ = ["Entry", "Survey", "entries", "place_of", "read_bytes", "split_place", "survey"]

_OPENED = (".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff")
_REFUSED = (".heic", ".heif", ".avif", ".jp2", ".jxl")
IMAGE_SUFFIXES = frozenset(_OPENED + _REFUSED)
"""A file named so counts as a picture, whatever is in it."""

_TEXT_LIMIT = 65_536  # bytes of a caption that are read
_JSON_LIMIT = 1_000_000  # bytes of a sidecar's JSON; a longer one is not read
_CONTAINERS = (".tar", ".parquet")

# Our name for a column or JSON key to what sources call it, in lower case; the first present counts.
_NAMES: dict[str, tuple[str, ...]] = {
    "url": ("url", "image_url"),
    "caption": ("caption", "text", "alt_text", "alt", "top_caption"),
    "key": ("key", "uid", "sample_id"),
    "width": ("width", "original_width"),
    "height": ("height", "original_height"),
    "alt_txt_similarity": ("alt_txt_similarity", "similarity"),
    "aesthetic": ("aesthetic", "aesthetic_score"),
    "pwatermark": ("pwatermark",),
    "punsafe": ("punsafe",),
}
_BYTES_COLUMNS = ("jpg", "jpeg", "png", "webp", "image", "bytes", "image_bytes", "img", "content")


@dataclass(frozen=True, kw_only=True, slots=True)
class Entry:
    """One input of a source, with what the source says of it. None: it doesn't say."""

    place: str | None = None
    """Where its bytes lie (see spine.places); None where only an address is known."""
    url: str | None = None
    caption: str | None = None
    key: str | None = None
    """The name its source gives it."""
    width: int | None = None
    height: int | None = None
    alt_txt_similarity: float | None = None
    aesthetic: float | None = None
    pwatermark: float | None = None
    punsafe: float | None = None
    problem: str | None = None
    """Why this part of the source can't be read; place then names it and has no bytes to read."""

    @property
    def name(self) -> str:
        """Its place, or else its address: what a status names it by."""
        return self.place or self.url or self.key or ""


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
    root = os.path.abspath(os.path.expanduser(source))  # noqa: PTH100, PTH111  # keeps names that aren't UTF-8
    try:
        state = Path(root).stat()
    except (OSError, ValueError) as error:
        raise DataError(
            f"{source}: {getattr(error, 'strerror', None) or error}; give another source"
        ) from None
    folder = stat.S_ISDIR(state.st_mode)
    found = tuple(_walk(root)) if folder else (_File(root, _kind(root), state.st_size, state.st_mtime_ns),)
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
    base = str(Path(surveyed.source).parent) if alone else surveyed.source
    for file in surveyed.files:
        place = place_of(file.path)
        if file.problem is not None:
            yield Entry(place=place, problem=file.problem)
        elif file.kind == "picture":
            key = _clean(_stem(os.path.relpath(file.path, base)))
            yield _described(place, key, *_beside(file.path, sidecars))
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
    if suffix in IMAGE_SUFFIXES:
        return "picture"
    return suffix[1:] if suffix in _CONTAINERS else "sidecar"


def _stem(path: str) -> str:
    return str(Path(path).with_suffix(""))


def _total(files: tuple[_File, ...]) -> int | None:
    total = 0
    for file in files:
        if file.kind == "tar":
            return None
        if file.kind == "parquet":
            try:
                total += int(pq.read_metadata(file.path).num_rows)
            except PARQUET_ERRORS:
                total += 1
        elif file.kind != "sidecar":
            total += 1
    return total


def _beside(path: str, sidecars: set[str]) -> tuple[bytes | None, bytes | None]:
    """The caption's text and the JSON that stand beside a picture."""
    stem = _stem(path)
    found: list[bytes | None] = []
    for suffix, limit in ((".txt", _TEXT_LIMIT), (".json", _JSON_LIMIT)):
        try:
            with open_regular(stem + suffix) as file:
                found.append(file.read(limit + 1) if stem + suffix in sidecars else None)
        except OSError:
            found.append(None)
    return found[0], found[1]


def _described(place: str, key: str | None, text: bytes | None, about: bytes | None) -> Entry:
    """An entry from what stands beside it. Notes that can't be read count as none: the picture is what matters."""
    values: Mapping[str, Any] = {}
    if about is not None and len(about) <= _JSON_LIMIT:
        try:
            read = json.loads(about)
            values = read if isinstance(read, dict) else {}
        except (ValueError, RecursionError):
            values = {}
    fields = _fields({str(name).lower(): value for name, value in values.items()})
    if text is not None:
        fields["caption"] = _clean(text[:_TEXT_LIMIT].decode("utf-8", "replace"))
    return Entry(
        **{"key": key, "place": place} | {name: value for name, value in fields.items() if value is not None}
    )


def _fields(values: Mapping[str, Any]) -> dict[str, Any]:
    """Our fields from a source's columns or keys, in lower case; each of the right type or None."""
    fields: dict[str, Any] = {}
    for name, theirs in _NAMES.items():
        value = next((values[other] for other in theirs if values.get(other) is not None), None)
        if name in ("url", "caption", "key"):
            fields[name] = _clean(str(value)) if isinstance(value, str | int) else None
        elif isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
            if name in ("width", "height"):
                fields[name] = int(value) if 0 < value < 2**31 else None
            else:
                fields[name] = float(value)
        else:
            fields[name] = None
    return fields


def _clean(text: str) -> str | None:
    """Text that any table takes: no lone surrogates, no null signs, of bounded length; None when nothing is left."""
    valid = text[:_TEXT_LIMIT].encode("utf-8", "replace").decode("utf-8")
    return valid.replace("\x00", "").strip() or None


def _tar_entries(path: str) -> Iterator[Entry]:
    seen: dict[str, int] = {}
    try:
        with open_regular(path) as file:
            for members in _samples(file):
                sides = [
                    _side(file.fileno(), members, suffix, limit)
                    for suffix, limit in ((".txt", _TEXT_LIMIT), (".json", _JSON_LIMIT))
                ]
                for member in members:
                    if Path(member.name).suffix.lower() not in IMAGE_SUFFIXES:
                        continue
                    seen[member.name] = seen.get(member.name, 0) + 1
                    again = (str(seen[member.name]),) if seen[member.name] > 1 else ()
                    place = place_of(path, member.name, *again)
                    yield _described(place, _clean(_sample(member)), sides[0], sides[1])
    except TAR_ERRORS as error:
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
            if sample and _sample(sample[0]) != _sample(member):
                yield sample
                sample = []
            sample.append(member)
    except TAR_ERRORS:
        if sample:
            yield sample
        raise
    if sample:
        yield sample


def _sample(member: Member) -> str:
    folder, _, name = member.name.rpartition("/")
    return f"{folder}/{name.split('.', 1)[0]}" if folder else name.split(".", 1)[0]


def _side(descriptor: int, members: list[Member], suffix: str, limit: int) -> bytes | None:
    for member in members:
        if member.name.lower().endswith(suffix):
            return os.pread(descriptor, min(member.size, limit + 1), member.offset)
    return None


def _parquet_entries(path: str) -> Iterator[Entry]:
    try:
        with pq.ParquetFile(path, page_checksum_verification=True) as file:
            schema = file.schema_arrow
            content = _bytes_column(schema)
            theirs = {other for others in _NAMES.values() for other in others}
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
                    fields = _fields({name.lower(): value for name, value in values.items()})
                    fields["key"] = fields["key"] or f"{Path(_clean(path) or path).stem}:{row}"
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
