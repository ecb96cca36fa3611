"""Metadata in the two further forms that clip-retrieval keeps it in: HDF5, and ordered by inverted list.

In an index served with `reorder_metadata_by_ivf_index` a picture's id on the wire is its place when the inverted
lists are laid end to end, so that neighbours' metadata lie together. Here rows are looked up as fast in any order;
the ids are kept, for clients have them.

Source: clip-retrieval 2.45, clip_retrieval/ivf_metadata_ordering.py.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from index_builder.indexing.index_file import METADATA_FOLDER
from index_builder.indexing.index_folder import IndexFolder
from index_builder.metadata.metadata_rows import MetadataRows
from index_builder.metadata.one_batch import open_metadata
from index_builder.numerics.faiss_library import load_faiss
from spine.errors import ConfigError, DataError

HDF5_FILE = "metadata.hdf5"
REORDERED_FILE = "metadata_reordered.hdf5"
NUMBERS_FILE = "ivf_old_to_new_mapping.npy"
"""Of each row its number on the wire: plain int64, in spite of its name."""

Numbers = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class WireNumbers:
    """Rows of an index and their numbers on the wire, both ways."""

    of_rows: Numbers
    """(n,): by row its number."""
    rows: Numbers
    """(n,): by number its row."""

    @classmethod
    def of(cls, folder: Path, numbers: Numbers) -> "WireNumbers":
        """From each row's number.

        Raises:
            DataError: They are not 0 to n - 1, each once.
        """
        rows = np.full(len(numbers), -1, dtype=np.int64)
        inside = numbers[(numbers >= 0) & (numbers < len(numbers))]
        rows[inside] = np.arange(len(numbers))[(numbers >= 0) & (numbers < len(numbers))]
        if (rows < 0).any():
            raise DataError(f"{folder / NUMBERS_FILE}: not each number from 0 to {len(numbers) - 1:,} once")
        return cls(numbers, rows)


def open_rows(folder: Path, *, reordered: bool) -> MetadataRows:
    """The metadata of an index folder, row i of vector i: of metadata/, or else of clip-retrieval's HDF5 file.

    Args:
        folder: Holds metadata/, metadata.hdf5, or where it was reordered metadata_reordered.hdf5.
        reordered: Whether the last may be read.

    Raises:
        ConfigError: h5py is needed and isn't there.
        DataError: There is none, or it can't be read.
    """
    if (folder / METADATA_FOLDER).is_dir():
        return open_metadata(folder / METADATA_FOLDER)
    if (folder / HDF5_FILE).is_file():
        return MetadataRows(*_read_hdf5(folder / HDF5_FILE))
    if reordered and (folder / REORDERED_FILE).is_file():
        batches, schema = _read_hdf5(folder / REORDERED_FILE)
        numbers = _stored_numbers(folder)
        if numbers is None:
            raise DataError(f"{folder / NUMBERS_FILE}: missing; {REORDERED_FILE} can't be read without it")
        [batch] = batches
        if len(numbers) != batch.num_rows:
            raise DataError(f"{folder}: {len(numbers):,} numbers, {batch.num_rows:,} rows of metadata")
        return MetadataRows([batch.take(pa.array(numbers))], schema)
    return MetadataRows.open(folder / METADATA_FOLDER)  # which says what was needed


def wire_numbers(folder: IndexFolder) -> WireNumbers:
    """The numbers that rows have where metadata is ordered by inverted list: as stored, or by the lists themselves.

    Raises:
        DataError: The index has no lists, or what is stored doesn't fit it.
    """
    numbers = _stored_numbers(folder.folder)
    if numbers is None:
        numbers = _numbers_by_list(folder)
    if len(numbers) != folder.n:
        raise DataError(f"{folder.folder / NUMBERS_FILE}: {len(numbers):,} numbers, {folder.n:,} were needed")
    return WireNumbers.of(folder.folder, numbers)


def _stored_numbers(folder: Path) -> Numbers | None:
    path = folder / NUMBERS_FILE
    if not path.is_file():
        return None
    if path.stat().st_size % 8:
        raise DataError(f"{path}: {path.stat().st_size:,} bytes; 8 a row were needed")
    return np.fromfile(path, dtype=np.int64)


def _numbers_by_list(folder: IndexFolder) -> Numbers:
    if not folder.nlist:
        raise DataError(
            f"{folder.folder}: reorder_metadata_by_ivf_index orders by inverted lists, this index has none"
        )
    faiss = load_faiss()
    lists: Any = faiss.extract_index_ivf(folder.faiss_index()).invlists
    numbers = np.full(folder.n, -1, dtype=np.int64)
    start = 0
    for number in range(folder.nlist):
        size = lists.list_size(number)
        if size:
            ids = lists.get_ids(number)
            numbers[faiss.rev_swig_ptr(ids, size)] = np.arange(start, start + size)
            lists.release_ids(number, ids)
        start += size
    return numbers


def _read_hdf5(path: Path) -> tuple[list[pa.RecordBatch], pa.Schema]:
    """The group `dataset` of a file, a column a dataset."""
    try:
        import h5py
    except ImportError:
        raise ConfigError(f"{path}: h5py is needed to read it: pip install 'popfactory[hdf5]'") from None
    try:
        with h5py.File(path, "r") as file:
            columns = {name: _column(values[:]) for name, values in file["dataset"].items()}
    except (OSError, KeyError, ValueError, pa.ArrowException) as error:
        raise DataError(f"{path}: can't be read as metadata ({error})") from None
    if len({len(column) for column in columns.values()}) != 1:
        raise DataError(f"{path}: its columns have not one length, or there are none")
    batch = pa.RecordBatch.from_pydict(columns)
    return [batch], batch.schema


def _column(values: npt.NDArray[Any]) -> pa.Array:
    if values.dtype.kind == "O":  # texts, as bytes
        return pa.array(
            [value.decode("utf-8", "replace") if isinstance(value, bytes) else value for value in values],
            pa.large_string(),
        )
    return pa.array(values)
