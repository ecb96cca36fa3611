"""The inverted lists of an IVF index, read one after the other in the order of the file.

Lists in memory are handed out where they lie. Lists that FAISS left on disk are read from the file itself, not
through its memory map: neighbouring lists in one large read, the next ones while the present one is worked on,
and without the kernel's own read-ahead, so that what is read is what was asked for. More of them than memory could keep
are read past the page cache: to make room there for each page would cost more than to read it.
"""

import mmap
import os
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from index_builder.indexing.index_file import memory_bytes
from index_builder.metadata.metadata_rows import Rows
from index_builder.metadata.row_mask import RowMask
from index_builder.numerics.faiss_library import load_faiss
from spine.errors import DataError

READ_BYTES = 8 * 2**20
"""Bytes read at once, as far as lists lie side by side; a longer list is one read by itself."""

# Reads at the same time: two bring one and a half times as many bytes a second as one after the other.
_READERS = 2 if hasattr(os, "preadv") else 1
_AHEAD = 4  # reads begun before the first is used

_ID_BYTES = 8
_ALIGNED = 4096  # bytes: where a read past the page cache must begin and end, in the file and in memory

Numbers = npt.NDArray[np.int64]
"""Numbers of lists, or of queries."""

Codes = npt.NDArray[np.uint8]
"""Codes of one list, shape (size, bytes a code)."""


@dataclass(frozen=True, slots=True)
class InvertedList:
    """One list as it is stored."""

    number: int
    codes: Codes
    """Shape (size, code_size)."""
    rows: Rows
    """Shape (size,), in the order they were added."""


class InvertedLists:
    """The lists of one IVF index.

    Attributes:
        sizes: Vectors in each list, shape (nlist,).
        order: List numbers as they follow each other in the file, shape (nlist,).
        on_disk: Whether they are read from a file.
        bytes_read: Read from the file so far.
    """

    def __init__(self, ivf: Any, path: Path) -> None:
        """Look at the lists of `ivf`.

        Args:
            ivf: A FAISS IndexIVF; to `read` it its lists must hold plain codes, one after the other.
            path: The index's file or folder, where lists on disk are read from.
        """
        faiss = load_faiss()
        self._ivf = ivf  # what owns the lists
        self._lists = faiss.downcast_InvertedLists(ivf.invlists)
        self._code_size = int(ivf.code_size)
        nlist = int(ivf.nlist)
        self.on_disk = isinstance(self._lists, faiss.OnDiskInvertedLists)
        self.bytes_read = 0
        if self.on_disk:
            places = [self._lists.lists.at(number) for number in range(nlist)]
            self.sizes = np.array([place.size for place in places], dtype=np.int64)
            self._capacities = np.array([place.capacity for place in places], dtype=np.int64)
            self._offsets = np.array([place.offset for place in places], dtype=np.int64)
            self.order = np.argsort(self._offsets, kind="stable")
            self._path = _file_of(path, self._lists.filename)
        else:
            self.sizes = np.array([self._lists.list_size(number) for number in range(nlist)], dtype=np.int64)
            self.order = np.arange(nlist)

    def bytes_of(self, numbers: npt.NDArray[np.int64]) -> int:
        """What these lists take: their codes and rows."""
        return int(self.sizes[numbers].sum()) * (self._code_size + _ID_BYTES)

    @property
    def usual_size(self) -> float:
        """Vectors in the list of a vector, on average: a list is wanted as often as vectors are in it."""
        return float(np.square(self.sizes, dtype=np.float64).sum() / max(1, self.sizes.sum()))

    def passing(self, mask: RowMask) -> npt.NDArray[np.int64]:
        """How many rows of each list are in the mask, shape (nlist,); of lists on disk only the rows are read.

        Raises:
            DataError: The file can't be read.
        """
        passing = np.zeros(len(self.sizes), dtype=np.int64)
        for number, rows in self._rows():
            passing[number] = np.count_nonzero(mask.has(rows))
        return passing

    def _rows(self) -> Iterator[tuple[int, Rows]]:
        """The rows of each list that has any, in the order of the file."""
        numbers = self.order[self.sizes[self.order] > 0].tolist()
        if not self.on_disk:
            for number in numbers:
                yield number, load_faiss().rev_swig_ptr(self._lists.get_ids(number), int(self.sizes[number]))
            return
        with self._opened() as (descriptor, _):
            for number in numbers:
                start = int(self._offsets[number]) + int(self._capacities[number]) * self._code_size
                content = self._read_bytes(descriptor, start, start + int(self.sizes[number]) * _ID_BYTES)
                self.bytes_read += len(content)
                yield number, content.view(np.int64)

    def read(self, numbers: npt.NDArray[np.int64]) -> Iterator[InvertedList]:
        """These lists, each once, in this order; empty ones are left out.

        Args:
            numbers: List numbers; sorted by `order` the file is read from front to back.

        Raises:
            DataError: The file can't be read, or is not the one that was opened.
        """
        numbers = numbers[self.sizes[numbers] > 0]
        return self._from_file(numbers) if self.on_disk else self._from_memory(numbers)

    def _from_memory(self, numbers: npt.NDArray[np.int64]) -> Iterator[InvertedList]:
        for number in numbers.tolist():
            yield self._mapped(number)

    def _mapped(self, number: int) -> InvertedList:
        """A list where FAISS holds it."""
        faiss, size = load_faiss(), int(self.sizes[number])
        codes = faiss.rev_swig_ptr(self._lists.get_codes(number), size * self._code_size)
        rows = faiss.rev_swig_ptr(self._lists.get_ids(number), size)
        return InvertedList(number, codes.reshape(size, self._code_size), rows)

    def _from_file(self, numbers: npt.NDArray[np.int64]) -> Iterator[InvertedList]:
        spans = self._spans(numbers)
        with (
            self._opened(direct=self.bytes_of(numbers) > memory_bytes() // 2) as (descriptor, aligned),
            ThreadPoolExecutor(_READERS, thread_name_prefix="read-ahead") as readers,
        ):
            coming: deque[Future[Codes]] = deque()
            try:
                for place, span in enumerate(spans):
                    for following in spans[place + len(coming) : place + _AHEAD]:
                        coming.append(readers.submit(self._read_span, descriptor, following, aligned))
                    content = coming.popleft().result()
                    self.bytes_read += len(content)
                    if place == 0:
                        self._check_same_file(span[0], content)
                    yield from self._cut(span, content)
            finally:
                for future in coming:
                    future.cancel()

    @contextmanager
    def _opened(self, *, direct: bool = False) -> Iterator[tuple[int, int]]:
        """A descriptor of the file, and what its reads must be aligned to."""
        descriptor = self._opened_directly() if direct else None
        aligned = 1 if descriptor is None else _ALIGNED
        try:
            if descriptor is None:
                descriptor = os.open(self._path, os.O_RDONLY | getattr(os, "O_BINARY", 0))
        except OSError as error:
            raise DataError(f"{self._path}: can't be read ({error}); was the index moved?") from None
        try:
            if hasattr(os, "posix_fadvise"):  # no read-ahead beyond what is asked for
                os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_RANDOM)
            yield descriptor, aligned
        finally:
            os.close(descriptor)

    def _opened_directly(self) -> int | None:
        """A descriptor that reads past the page cache; None where this system, or the file's, knows no such thing."""
        if not hasattr(os, "O_DIRECT") or not hasattr(os, "preadv"):
            return None
        try:
            descriptor = os.open(self._path, os.O_RDONLY | os.O_DIRECT)
        except OSError:
            return None
        try:  # some let a file be opened so, and refuse to read it, or want reads aligned to more
            with mmap.mmap(-1, _ALIGNED) as room:
                os.preadv(descriptor, [room], 0)
        except OSError:
            os.close(descriptor)
            return None
        return descriptor

    def _spans(self, numbers: npt.NDArray[np.int64]) -> list[npt.NDArray[np.int64]]:
        """Lists that lie side by side and are read at once."""
        if not len(numbers):
            return []
        ends = self._offsets[numbers] + self._capacities[numbers] * (self._code_size + _ID_BYTES)
        starts = self._offsets[numbers]
        spans, first = [], 0
        for i in range(1, len(numbers)):
            if starts[i] != ends[i - 1] or ends[i] - starts[first] > READ_BYTES:
                spans.append(numbers[first:i])
                first = i
        return [*spans, numbers[first:]]

    def _read_span(self, descriptor: int, span: npt.NDArray[np.int64], aligned: int) -> Codes:
        start, end = int(self._offsets[span[0]]), int(self._offsets[span[-1]]) + self._length(int(span[-1]))
        return self._read_bytes(descriptor, start, end, aligned)

    def _read_bytes(self, descriptor: int, start: int, end: int, aligned: int = 1) -> Codes:
        """The file's bytes from start to end."""
        first = start - start % aligned
        size = -(-(end - first) // aligned) * aligned
        room = np.empty(size + aligned - 1, dtype=np.uint8)
        begins = -room.ctypes.data % aligned
        content, needed, filled = room[begins : begins + size], end - first, 0
        while filled < needed:
            try:
                count = _pread(descriptor, content[filled:], first + filled)
            except OSError as error:
                raise DataError(f"{self._path}: can't be read at byte {first + filled:,} ({error})") from None
            if not count:
                raise DataError(f"{self._path}: ends at byte {first + filled:,}, {end:,} were needed")
            filled += count
        return content[start - first : needed]

    def _length(self, number: int) -> int:
        """Bytes from a list's first to its last, room left for more in between counted."""
        size, capacity = int(self.sizes[number]), int(self._capacities[number])
        return capacity * self._code_size + size * _ID_BYTES

    def _cut(self, span: npt.NDArray[np.int64], content: Codes) -> Iterator[InvertedList]:
        start = int(self._offsets[span[0]])
        for number in span.tolist():
            size, place = int(self.sizes[number]), int(self._offsets[number]) - start
            codes = content[place : place + size * self._code_size].reshape(size, self._code_size)
            place += int(self._capacities[number]) * self._code_size
            rows = content[place : place + size * _ID_BYTES].view(np.int64)
            yield InvertedList(number, codes, rows)

    def _check_same_file(self, span: npt.NDArray[np.int64], content: Codes) -> None:
        """The first list read must be the one that FAISS sees: the path may name another file by now."""
        number = int(span)
        ours = next(self._cut(np.array([number]), content))
        if not np.array_equal(ours.rows, self._mapped(number).rows):
            raise DataError(f"{self._path}: changed since it was opened; open the index again")


def _pread(descriptor: int, target: Codes, offset: int) -> int:
    if hasattr(os, "preadv"):
        return os.preadv(descriptor, [target.data], offset)
    os.lseek(descriptor, offset, os.SEEK_SET)  # only the one reading thread uses the descriptor
    content = os.read(descriptor, len(target))
    target[: len(content)] = np.frombuffer(content, dtype=np.uint8)
    return len(content)


def _file_of(path: Path, filename: str) -> Path:
    """Where lists on disk lie: the index's own file, or the one that FAISS names."""
    return Path(filename) if filename else path
