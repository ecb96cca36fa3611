r"""Places: texts that say where a picture's bytes lie, and reading them there.

    /photos/a.jpg                         a file
    /data/00000.tar::000000012.jpg        a member of a tar; "::2" after it is the second of that name
    s3://bucket/00000.tar::000000012.jpg  the same in a store that spine.remote knows
    /data/part-0.parquet::image.bytes::7  a cell: column (with a field, if it is a struct) and row from 0

A name that is no valid UTF-8, has control characters or a "::" is written in percent-encoding, after
file://, so that every place is one line of plain text and names one picture only:
file:///photos/line%0Abreak.jpg. Containers are read in place, nothing is ever unpacked. Arrow is imported
only where Parquet is read: the processes that decode files should start quickly and stay small.
"""

import contextlib
import os
import stat
import tarfile
import urllib.parse
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from spine.errors import DataError, ImageError
from spine.images import MAX_BYTES
from spine.remote import is_remote, open_remote

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq

_ENCODED = "file://"
_SEAM = "::"
_COLUMN_LIMIT = 256_000_000  # bytes of a row group's column that are kept for the next row

COMPRESSED_TARS = (".tar.gz", ".tgz")
"""How names of compressed tars end."""

TAR_ERRORS = (tarfile.TarError, OSError, EOFError, ValueError, OverflowError, zlib.error)
"""What a damaged tar raises while it is read."""

PARQUET_ERRORS = (OSError, ValueError, LookupError, TypeError, RuntimeError, MemoryError)
"""What a damaged Parquet file raises while it is read: Arrow's errors are children of these."""


def place_of(path: str, *parts: str) -> str:
    """The place of a file, of a tar's member, or of a Parquet cell.

    Args:
        path: Absolute path of the file or container, as os.fsdecode gives it.
        parts: The member's name; or the column and the row.
    """
    names = (path, *parts)
    if all(_is_plain(name) for name in names) and not path.startswith(_ENCODED):
        return _SEAM.join(names)
    return _ENCODED + _SEAM.join(urllib.parse.quote(os.fsencode(name)) for name in names)


def split_place(place: str) -> tuple[str, tuple[str, ...]]:
    """The path and the parts a place was made from: the reverse of place_of."""
    if place.startswith(_ENCODED):
        names = [
            os.fsdecode(urllib.parse.unquote_to_bytes(name))
            for name in place.removeprefix(_ENCODED).split(_SEAM)
        ]
    else:
        names = place.split(_SEAM)
    return names[0], tuple(names[1:])


def shown_place(place: str, folder: Path) -> str:
    """A place, or a message that begins with one, for people who sit elsewhere: it names no folder of this machine.

    Args:
        place: As place_of makes it, maybe with ": " and more behind it.
        folder: What lies in it is told relative to it; of other files the name alone. Addresses stay.
    """
    named, colon, rest = place.partition(": ")
    path, parts = split_place(named)
    if not path.startswith("/"):
        return place
    base = os.fsencode(folder.absolute()) + b"/"
    inside = os.fsencode(path).startswith(base)
    shown = os.fsdecode(os.fsencode(path).removeprefix(base)) if inside else Path(path).name
    return place_of(shown, *parts) + colon + rest


def read_bytes(place: str, *, max_bytes: int = MAX_BYTES) -> bytes:
    """The bytes that lie at a place.

    Only regular files are read, so that a pipe or device can't hang the work.

    Args:
        place: As place_of makes it.
        max_bytes: Larger content is refused before it is read.

    Raises:
        ImageError: With reason missing, unreadable, too_many_bytes or empty_file.
    """
    path, parts = split_place(place)
    try:
        if not parts:
            content = _read_file(path, max_bytes)
        elif len(parts) == 2 and path.lower().endswith(".parquet"):
            content = _read_cell(path, parts[0], parts[1], max_bytes)
        elif is_streamed(path):
            content = _read_streamed(path, parts, max_bytes)
        else:
            content = _read_member(path, parts, max_bytes)
    except FileNotFoundError:
        raise ImageError("missing", f"{place}: no such file") from None
    except (*TAR_ERRORS, DataError) as error:  # ValueError: a null byte in a path
        raise ImageError("unreadable", f"{place}: {getattr(error, 'strerror', None) or error}") from None
    if not content:
        raise ImageError("empty_file", f"{place}: 0 bytes")
    return content


def open_regular(path: str) -> BinaryIO:
    """Open a regular file for reading; a pipe, device or folder is refused without waiting.

    Raises:
        OSError: It can't be opened, or is no regular file.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(0, "no regular file")
    return os.fdopen(descriptor, "rb")


def open_anywhere(path: str) -> BinaryIO:
    """Open a regular file here, or a file of a store (see spine.remote), for reading.

    Raises:
        OSError, ValueError: It can't be opened.
        DataError: The store's package isn't installed.
    """
    return open_remote(path) if is_remote(path) else open_regular(path)


def is_streamed(path: str) -> bool:
    """Whether a tar can only be read from one end to the other: it is compressed, or lies elsewhere."""
    return is_remote(path) or path.lower().endswith(COMPRESSED_TARS)


@contextlib.contextmanager
def parquet_file(path: str) -> "Iterator[pq.ParquetFile]":
    """A Parquet file here or of a store, page checksums verified.

    Raises:
        PARQUET_ERRORS: It can't be opened.
    """
    import pyarrow.parquet as pq

    with contextlib.ExitStack() as stack:
        source = stack.enter_context(open_remote(path)) if is_remote(path) else path
        yield stack.enter_context(pq.ParquetFile(source, page_checksum_verification=True))


@dataclass(frozen=True, slots=True)
class Member:
    """A regular member of a tar."""

    name: str
    offset: int
    """Where its content starts in the tar, in bytes."""
    size: int


def tar_members(file: BinaryIO) -> Iterator[Member]:
    """The regular members of an uncompressed tar, in its order; links and devices are left out.

    Raises:
        TAR_ERRORS: The tar is damaged from here on.
    """
    with tarfile.open(fileobj=file, mode="r:") as tar:
        while (member := tar.next()) is not None:
            if member.isreg() and not member.issparse():
                yield Member(member.name, member.offset_data, member.size)
            tar.members.clear()  # type: ignore[attr-defined]  # or a large tar's headers would all stay in memory


def tar_stream(path: str, max_bytes: int) -> Iterator[tuple[str, int, bytes | None]]:
    """The regular members of a tar that can't be sought in, in its order.

    Args:
        path: Of the tar, compressed by gzip if its name says so.
        max_bytes: Content of a larger member is passed over.

    Yields:
        Name, size and content; None for content that is too large.

    Raises:
        TAR_ERRORS: The tar is damaged from here on.
    """
    mode = "r|gz" if path.lower().endswith(COMPRESSED_TARS) else "r|"
    with open_anywhere(path) as file, tarfile.open(fileobj=file, mode=mode) as tar:  # type: ignore[call-overload]
        while (member := tar.next()) is not None:
            if member.isreg() and not member.issparse():
                content = tar.extractfile(member) if member.size <= max_bytes else None
                yield member.name, member.size, content.read() if content is not None else None
            tar.members.clear()


def _is_plain(name: str) -> bool:
    return name.isprintable() and _SEAM not in name and not name.startswith(":") and not name.endswith(":")


def _read_file(path: str, max_bytes: int) -> bytes:
    with open_anywhere(path) as file:
        if not is_remote(path):
            _check_size(path, os.fstat(file.fileno()).st_size, max_bytes)
        content = file.read(max_bytes + 1)  # it may grow while it is read
    _check_size(path, len(content), max_bytes)
    return content


def _check_size(place: str, size: int, max_bytes: int) -> None:
    if size > max_bytes:
        raise ImageError("too_many_bytes", f"{place}: {size:,} bytes, at most {max_bytes:,} are taken")


def _read_member(path: str, parts: tuple[str, ...], max_bytes: int) -> bytes:
    place = place_of(path, *parts)
    occurrence = parts[1] if len(parts) == 2 else "1"
    with open_regular(path) as file:
        state = os.fstat(file.fileno())
        found = _tar_index(path, state.st_size, state.st_mtime_ns).get((parts[0], occurrence))
        if found is None:
            raise ImageError("missing", f"{place}: no such member")
        offset, size = found
        _check_size(place, size, max_bytes)
        content = os.pread(file.fileno(), size, offset)
    if len(content) != size:
        raise ImageError("unreadable", f"{place}: the tar ends after {len(content):,} of its {size:,} bytes")
    return content


def _read_streamed(path: str, parts: tuple[str, ...], max_bytes: int) -> bytes:
    """A member of a tar that is read from its beginning to there: once for each picture that is asked for."""
    place = place_of(path, *parts)
    left = int(parts[1]) if len(parts) == 2 and parts[1].isdecimal() else 1
    for name, size, content in tar_stream(path, max_bytes):
        left -= name == parts[0]
        if not left:
            _check_size(place, size, max_bytes)
            return content or b""
    raise ImageError("missing", f"{place}: no such member")


@lru_cache(maxsize=8)
def _tar_index(path: str, size: int, mtime_ns: int) -> dict[tuple[str, str], tuple[int, int]]:
    """Where each member lies: (name, occurrence from "1") to (offset, size). Size and time are part of the key."""
    index: dict[tuple[str, str], tuple[int, int]] = {}
    seen: dict[str, int] = {}
    try:
        with open_regular(path) as file:
            for member in tar_members(file):
                seen[member.name] = seen.get(member.name, 0) + 1
                index[member.name, str(seen[member.name])] = (member.offset, member.size)
    except TAR_ERRORS:
        pass  # what lies before the damage is still there; the rest is "missing"
    return index


def _read_cell(path: str, column: str, row: str, max_bytes: int) -> bytes:
    place = place_of(path, column, row)
    if not row.isascii() or not row.isdecimal():
        raise ImageError("missing", f"{place}: {row!r} is no row")
    open_anywhere(path).close()
    # A store's files are taken to stay as they are while a process lives.
    mtime_ns = 0 if is_remote(path) else Path(path).stat().st_mtime_ns
    try:
        values, at = _cells(path, column, int(row), mtime_ns)
        value = values[at]
    except IndexError:
        raise ImageError("missing", f"{place}: no such row") from None
    except PARQUET_ERRORS as error:
        raise ImageError("unreadable", f"{place}: {str(error).splitlines()[0]}") from None
    if not value.is_valid:
        raise ImageError("missing", f"{place}: the cell is null")
    _check_size(place, value.as_buffer().size, max_bytes)
    return bytes(value.as_buffer())


def _cells(path: str, column: str, row: int, mtime_ns: int) -> "tuple[pa.Array, int]":
    """An array that holds the cell, and its place in it.

    Raises:
        IndexError: There are fewer rows.
    """
    starts, sizes = _row_groups(path, column.partition(".")[0], mtime_ns)
    group = next((number for number, start in enumerate(starts[1:]) if row < start), None)
    if group is None:
        raise IndexError(row)
    at = row - starts[group]
    if sizes[group] <= _COLUMN_LIMIT:
        return _column(path, column, group, mtime_ns), at
    with parquet_file(path) as file:
        for batch in file.iter_batches(batch_size=16, row_groups=[group], columns=[column]):
            if at < batch.num_rows:
                return _binary(batch.column(0)), at
            at -= batch.num_rows
    raise IndexError(row)


@lru_cache(maxsize=64)
def _row_groups(path: str, column: str, mtime_ns: int) -> tuple[list[int], list[int]]:
    """First row of each row group, with the row count at the end; and bytes of the column in each."""
    with parquet_file(path) as file:
        metadata = file.metadata
        starts, sizes = [0], []
        for number in range(metadata.num_row_groups):
            group = metadata.row_group(number)
            starts.append(starts[-1] + group.num_rows)
            chunks = [group.column(index) for index in range(group.num_columns)]
            sizes.append(
                sum(
                    chunk.total_uncompressed_size
                    for chunk in chunks
                    if chunk.path_in_schema.partition(".")[0] == column
                )
            )
        return starts, sizes


@lru_cache(maxsize=2)
def _column(path: str, column: str, group: int, mtime_ns: int) -> "pa.Array":
    with parquet_file(path) as file:
        table = file.read_row_group(group, columns=[column])
    return _binary(table.column(0).combine_chunks())


def _binary(array: Any) -> "pa.Array":
    import pyarrow as pa

    if isinstance(array, pa.ChunkedArray):
        array = pa.concat_arrays(array.chunks) if array.num_chunks else pa.array([], array.type.value_type)
    while pa.types.is_struct(array.type):
        array = array.flatten()[0]  # the only field that was read; flatten keeps the struct's own nulls
    return array
