"""Files that appear whole or not at all: temporary name, fsync, rename, fsync of the directory.

A reader never sees half a file, a file mapped by a running process is replaced and not overwritten,
and a full disk leaves the old file. A kill leaves at most a temporary file, which `sweep` removes.
"""

import contextlib
import fcntl
import hashlib
import json
import os
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from spine.errors import DataError

_GROUP_ROWS = 32_768  # of a Parquet file: what is read to find one row
_READ_BYTES = 2**20
_MARK = ".part-"  # in the name of every temporary file, so that sweep knows them


@contextlib.contextmanager
def publishing(path: Path) -> Iterator[Path]:
    """Give a temporary path beside `path`; when the block ends well, make it `path`, durably.

    Whatever goes wrong in the block, `path` is as it was and the temporary file is gone.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}{_MARK}{uuid.uuid4().hex[:12]}")
    try:
        yield temporary
        with temporary.open("rb") as written:
            os.fsync(written.fileno())
        temporary.replace(path)
        sync_folder(path.parent)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def sync_folder(folder: Path) -> None:
    """Make the names in `folder` durable."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def publish_bytes(path: Path, content: bytes) -> None:
    """Publish `content` at `path`."""
    with publishing(path) as temporary:
        temporary.write_bytes(content)


def publish_new(path: Path, content: bytes) -> bool:
    """Publish `content` at `path` if nothing stands there; whether it did. Of many at once one succeeds."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}{_MARK}{uuid.uuid4().hex[:12]}")
    try:
        with temporary.open("xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        try:
            os.link(temporary, path)
        except FileExistsError:
            return False
        sync_folder(path.parent)
        return True
    finally:
        temporary.unlink(missing_ok=True)


def publish_text(path: Path, content: str) -> None:
    """Publish `content` at `path` as UTF-8."""
    publish_bytes(path, content.encode())


def publish_json(path: Path, content: Any) -> None:
    """Publish `content` at `path` as indented JSON with sorted keys; NaN is refused."""
    publish_text(
        path, json.dumps(content, indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n"
    )


def publish_array(path: Path, array: npt.NDArray[Any]) -> None:
    """Publish `array` at `path` as .npy, without pickle."""
    plain = np.ascontiguousarray(array)
    with publishing(path) as temporary, temporary.open("wb") as file:
        # np.save hands the file to C, and of a full disk says only how much was written: here it is ENOSPC.
        np.lib.format.write_array_header_1_0(file, np.lib.format.header_data_from_array_1_0(plain))
        file.write(plain.data)


def publish_table(path: Path, table: pa.Table) -> None:
    """Publish `table` at `path` as Parquet: zstd, with a checksum for every page, in row groups that are read apart."""
    with publishing(path) as temporary:
        pq.write_table(
            table, temporary, compression="zstd", write_page_checksum=True, row_group_size=_GROUP_ROWS
        )


def sweep(folder: Path) -> None:
    """Remove the temporary files that a kill left in `folder` and below. Not while someone writes there."""
    for leftover in folder.rglob(f".*{_MARK}*"):
        leftover.unlink(missing_ok=True)


def sha256_of(path: Path, start: int = 0, length: int | None = None) -> str:
    """SHA-256 of a file's content, or of a piece of it, in hex.

    Args:
        path: The file.
        start: Where the piece begins, in bytes.
        length: Bytes of the piece, fewer where the file ends; None for all to the end.
    """
    digest, left = hashlib.sha256(), sys.maxsize if length is None else length
    with path.open("rb", buffering=0) as file:
        file.seek(start)
        room = memoryview(bytearray(min(_READ_BYTES, os.fstat(file.fileno()).st_size)))
        while left and (count := file.readinto(room[: min(left, _READ_BYTES)])):
            digest.update(room[:count])
            left -= count
    return digest.hexdigest()


@contextlib.contextmanager
def sole_writer(folder: Path) -> Iterator[None]:
    """Make a folder, if need be, and hold it: two that write into it at once would sweep each other's files away.

    Raises:
        DataError: Another process holds it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    held = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            wait = "wait for it, or name another folder"
            raise DataError(f"{folder}: another command writes to it; {wait}") from None
        yield
    finally:
        os.close(held)
