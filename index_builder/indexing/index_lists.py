"""Inverted lists built in parts and put together on disk: memory holds one part, a kill costs one part.

A part is a FAISS index of some rows, with the lists' middles and codes of the one trained index. Putting them
together copies list by list: the file is, byte for byte, what FAISS would write of an index built at once.
"""

import errno
import os
import shutil
import struct
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from index_builder.indexing.list_assignment import add_to_lists, list_finder
from index_builder.numerics.faiss_library import load_faiss
from index_builder.numerics.stored_vectors import StoredVectors
from spine.errors import DataError
from spine.progress import Progress
from spine.publish import publishing

_PART_BYTES = 2**28  # of codes and row numbers in a part, at most
_LEAST_PART_BYTES = 2**20
_COPIED_BYTES = 2**24
_TAIL = struct.Struct("<4sQQ4sQ")  # how FAISS ends an index whose lists are empty


def part_rows(trained: Any, memory_bytes: int) -> int:
    """Rows of a part: a quarter of the memory, or less."""
    each = int(_lists(trained).code_size) + 8
    return max(1, min(_PART_BYTES, max(_LEAST_PART_BYTES, memory_bytes // 4)) // each)


def write_parts(
    trained: Any, vectors: StoredVectors, paths: list[Path], rows: int, progress: Progress
) -> None:
    """Write the parts that aren't there yet.

    Args:
        trained: An empty index with inverted lists; stays as it is.
        vectors: What it gets.
        paths: Of the parts; number i has rows i·rows to (i + 1)·rows.
        rows: Of a part.
        progress: Told of vectors.
    """
    find = list_finder(trained, vectors)
    for number, path in enumerate(paths):
        start, stop = number * rows, min((number + 1) * rows, vectors.n)
        if not path.exists():
            part = load_faiss().clone_index(trained)
            for first, block in vectors.blocks(start, stop):
                numbers = np.arange(first, first + len(block))
                if find is None:
                    part.add_with_ids(block, numbers)
                else:
                    add_to_lists(part, block, numbers, find)
            write_index(part, path)
        progress.advance(stop - start)


def put_together(trained: Any, n: int, parts: list[Path], path: Path) -> None:
    """Publish the index whose lists are those of the parts, one after the other.

    Args:
        trained: The empty index that the parts were made of.
        n: Rows of all parts.
        parts: In order.
        path: Of the index.

    Raises:
        DataError: A part is damaged.
    """
    faiss = load_faiss()
    flags = faiss.IO_FLAG_MMAP | faiss.IO_FLAG_READ_ONLY
    try:
        opened = [faiss.read_index(str(part), flags) for part in parts]
    except RuntimeError as error:
        raise DataError(
            f"{path.parent}: a part is damaged ({error}); build the index again with --force"
        ) from None
    lists = [faiss.downcast_InvertedLists(_lists(part).invlists) for part in opened]
    nlist, code_size = int(_lists(trained).nlist), int(_lists(trained).code_size)
    sizes = np.array([[each.list_size(number) for each in lists] for number in range(nlist)], dtype=np.int64)
    if sizes.sum() != n:
        raise DataError(f"{path.parent}: {sizes.sum():,} rows in the parts, {n:,} were needed; use --force")
    full = faiss.clone_index(trained)
    full.ntotal = _lists(full).ntotal = n
    with publishing(path) as temporary, temporary.open("wb") as file:
        file.write(_head(full))
        _write_sizes(file, sizes.sum(axis=1), code_size)
        for number in range(nlist):
            filled = [(each, int(size)) for each, size in zip(lists, sizes[number], strict=True) if size]
            for each, size in filled:
                _copy(file, each.get_codes(number), size * code_size)
            for each, size in filled:
                _copy(file, each.get_ids(number), size)


def set_nprobe(path: Path, nprobe: int) -> None:
    """Publish an index anew with another number of lists to search, for other readers of the file.

    Args:
        path: Of an index with inverted lists.
        nprobe: Lists a search goes through.
    """
    faiss = load_faiss()
    index = faiss.read_index(str(path), faiss.IO_FLAG_MMAP | faiss.IO_FLAG_READ_ONLY)
    lists = _lists(index)
    if lists.nprobe == nprobe:
        return
    if not isinstance(faiss.downcast_InvertedLists(lists.invlists), faiss.OnDiskInvertedLists):
        lists.nprobe = nprobe  # of a kind that FAISS reads into memory whatever it is asked
        write_index(index, path)
        return
    none = faiss.ArrayInvertedLists(lists.nlist, lists.code_size)
    lists.replace_invlists(none, False)
    before, lists.nprobe = _head(index), nprobe
    with publishing(path) as temporary:
        shutil.copyfile(path, temporary)
        with temporary.open("r+b") as file:
            if file.read(len(before)) != before:
                raise AssertionError(f"{path}: this FAISS writes another head than it read")
            file.seek(0)
            file.write(_head(index))


def write_index(index: Any, path: Path) -> None:
    """Publish an index. Of a full disk FAISS says only that it wrote too little; here it is an OSError as elsewhere."""
    with publishing(path) as temporary:
        try:
            load_faiss().write_index(index, str(temporary))
        except RuntimeError as error:
            if shutil.disk_usage(path.parent).free > 1_000_000:
                raise
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path)) from error


def _lists(index: Any) -> Any:
    faiss = load_faiss()
    return faiss.downcast_index(faiss.extract_index_ivf(index))


def _head(empty: Any) -> bytes:
    """What FAISS writes of an index before its lists.

    Args:
        empty: With empty lists.
    """
    content: bytes = load_faiss().serialize_index(empty).tobytes()
    lists = _lists(empty)
    if _TAIL.unpack(content[-_TAIL.size :]) != (b"ilar", lists.nlist, lists.code_size, b"sprs", 0):
        raise AssertionError(f"this FAISS ends an empty index with {content[-_TAIL.size :]!r}")
    return content[: -_TAIL.size]


def _write_sizes(file: BinaryIO, sizes: npt.NDArray[np.int64], code_size: int) -> None:
    """The lists' sizes in FAISS's two forms: all of them, or where most are empty the others with their numbers."""
    filled = np.flatnonzero(sizes)
    if len(filled) > len(sizes) // 2:
        kind, numbers = b"full", sizes
    else:
        kind, numbers = b"sprs", np.stack([filled, sizes[filled]], axis=1).ravel()
    file.write(_TAIL.pack(b"ilar", len(sizes), code_size, kind, len(numbers)))
    file.write(numbers.astype("<u8").data)


def _copy(file: BinaryIO, address: Any, count: int) -> None:
    """Write `count` codes' bytes or row numbers from where FAISS holds them."""
    array = load_faiss().rev_swig_ptr(address, count)
    step = _COPIED_BYTES // array.itemsize
    for start in range(0, count, step):
        file.write(array[start : start + step].data)
