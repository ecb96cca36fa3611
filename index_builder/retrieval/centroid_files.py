"""Other people's centroids: a file of vectors, checked."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.lib.format import MAGIC_PREFIX

from spine.errors import DataError
from spine.tables import Vectors, vectors_of

_LEAST = 1e-6  # norm of a vector that has a direction


@dataclass(frozen=True, slots=True)
class CentroidFile:
    """Centroids and what they are called."""

    ids: npt.NDArray[np.int64]
    """Shape (q,), each once."""
    vectors: Vectors
    """Shape (q, d), rows of L2 norm 1."""


def read_centroids(path: Path) -> CentroidFile:
    """Read centroids from .npy, shape (q, d), or Parquet.

    Parquet has a column `embedding` of lists, and may have whole numbers in `centroid_id`; otherwise centroids are
    numbered from 0 as they come. Vectors are scaled to L2 norm 1.

    Raises:
        DataError: The file can't be read, holds no vectors, or a row holds NaN, infinity or nothing but zeros, or an
            id comes twice.
    """
    if not path.is_file():
        raise DataError(f"{path}: no such file; centroids as .npy or .parquet were needed")
    if path.suffix.lower() == ".parquet":
        vectors, ids = _from_parquet(path)
    else:
        vectors, ids = _from_npy(path), None
    finite = np.isfinite(vectors).all(axis=1)
    _refuse(path, np.asarray(~finite), "NaN or infinity; finite numbers were needed")
    # Of numbers near float32's largest the squares would be infinite.
    norms = np.linalg.norm(vectors.astype(np.float64), axis=1)
    _refuse(path, np.asarray(norms < _LEAST), "nothing but zeros; a direction was needed")
    ids = np.arange(len(vectors), dtype=np.int64) if ids is None else ids
    again = np.flatnonzero(np.diff(np.sort(ids)) == 0)
    if len(again):
        raise DataError(f"{path}: centroid_id {np.sort(ids)[again[0]]} comes twice; each once was needed")
    return CentroidFile(ids, np.ascontiguousarray(vectors / norms[:, None], dtype=np.float32))


def _refuse(path: Path, wrong: npt.NDArray[np.bool_], words: str) -> None:
    if wrong.any():
        raise DataError(
            f"{path}: row {int(wrong.argmax()):,} holds {words}; {np.count_nonzero(wrong):,} of {len(wrong):,} rows"
            " are so"
        )


def _from_npy(path: Path) -> Vectors:
    try:
        with path.open("rb") as file:
            if file.read(len(MAGIC_PREFIX)) != MAGIC_PREFIX:  # NumPy would speak of pickles instead
                raise ValueError("it doesn't begin as one does")
            file.seek(0)
            array = np.load(file, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise DataError(f"{path}: can't be read as .npy ({error})") from None
    if array.ndim != 2 or array.dtype.kind not in "fiu" or 0 in array.shape:
        found = f"{array.dtype} of shape {array.shape}"
        raise DataError(f"{path}: {found}, numbers of shape (centroids, dimension) were needed")
    return np.asarray(array, dtype=np.float32)


def _from_parquet(path: Path) -> tuple[Vectors, npt.NDArray[np.int64] | None]:
    try:
        table = pq.read_table(path)
    except (OSError, pa.ArrowException) as error:
        raise DataError(f"{path}: can't be read as Parquet ({error})") from None
    if "embedding" not in table.column_names:
        raise DataError(
            f"{path}: columns {', '.join(table.column_names)}; embedding was needed, a list of numbers a row"
        )
    column = table.column("embedding").combine_chunks()
    kind = column.type
    if not (pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)):
        raise DataError(f"{path}: embedding is {kind}, lists of numbers were needed")
    lengths = np.unique(column.value_lengths().fill_null(0).to_numpy())
    if column.null_count or len(lengths) != 1 or not lengths[0]:
        raise DataError(
            f"{path}: embeddings of {lengths.tolist()[:5]} numbers; one length for all was needed"
        )
    try:
        values = column.cast(pa.list_(pa.float32(), int(lengths[0])))
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise DataError(f"{path}: embedding is {kind}, numbers were needed ({error})") from None
    if values.flatten().null_count:
        raise DataError(f"{path}: embedding holds nulls; numbers were needed")
    vectors = vectors_of(pa.chunked_array([values]))
    if "centroid_id" not in table.column_names:
        return vectors, None
    ids = table.column("centroid_id")
    if not pa.types.is_integer(ids.type) or ids.null_count:
        raise DataError(
            f"{path}: centroid_id is {ids.type} with {ids.null_count} nulls; whole numbers were needed"
        )
    return vectors, ids.cast(pa.int64()).to_numpy()
