"""Embeddings that somebody has computed already, in the two layouts they are given in.

clip-retrieval's inference   FOLDER/img_emb/img_emb_7.npy with FOLDER/metadata/metadata_7.parquet
DataComp                     FOLDER/ab12.npz, which has the array l14_img, with FOLDER/ab12.parquet

Row i of the Parquet file belongs to vector i; nothing but their number can show that it doesn't, so files of
different lengths are refused. Vectors are read one block after the other, never mapped: a file that is cut off
while it is read is then an error, and not the end of the process.
"""

import contextlib
import hashlib
import math
import re
import zipfile
import zlib
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from index_builder.encoding.clip import clip_parameters, clip_strings
from index_builder.metadata.foreign_columns import our_columns
from spine.errors import DataError
from spine.manifest import find_manifest
from spine.places import PARQUET_ERRORS, open_anywhere, parquet_file
from spine.remote import is_remote, list_remote
from spine.settings import ClipConfig
from spine.tables import Vectors

DATACOMP_ARRAYS = {
    ("ViT-L-14", "openai"): "l14_img",
    ("ViT-L-14-quickgelu", "openai"): "l14_img",
    ("ViT-B-32", "openai"): "b32_img",
    ("ViT-B-32-quickgelu", "openai"): "b32_img",
}
"""Model and weights to the array of DataComp's .npz that holds their embeddings of pictures."""

_VECTOR_ERRORS = (
    OSError,
    ValueError,
    EOFError,
    KeyError,
    SyntaxError,
    RuntimeError,
    MemoryError,
    zipfile.BadZipFile,
    zlib.error,
)
_LARGEST_D = 65_536
_NAMING = ("url", "image_url", "sha256", "image_path")


@dataclass(frozen=True, slots=True)
class VectorFile:
    """A file of vectors, and the Parquet file that says whose they are."""

    vectors: str
    """Path, or address in a store."""
    array: str | None
    """Name of the array in a .npz, None for a .npy."""
    metadata: str
    rows: int
    d: int

    def blocks(self, size: int, first: int = 0) -> Generator[tuple[Vectors, pa.Table], None, None]:
        """Vectors with their rows of metadata, in order.

        Args:
            size: Rows of a block; the last one may have fewer.
            first: Blocks that are left out at the beginning.

        Yields:
            Shape (n, d), float32 values as stored; and n rows with the columns that say something of ours.

        Raises:
            DataError: A file is damaged.
        """
        with contextlib.ExitStack() as stack:
            try:
                parquet = stack.enter_context(parquet_file(self.metadata))
                columns = our_columns(parquet.schema_arrow.names)
                tables = _in_blocks(parquet.iter_batches(batch_size=size, columns=columns), size)
                arrays = _array_blocks(stack.enter_context(_array_file(self.vectors, self.array)), size)
                for number, (vectors, table) in enumerate(zip(arrays, tables, strict=True)):
                    if number >= first:
                        yield vectors, table
            except PARQUET_ERRORS + _VECTOR_ERRORS as error:
                said = str(error).splitlines()[0] if str(error) else type(error).__name__
                raise DataError(
                    f"{self.vectors} with {self.metadata}: damaged ({said}); get both files again"
                ) from None


@dataclass(frozen=True, slots=True)
class VectorFiles:
    """A source of embeddings."""

    source: str
    """Absolute path of its folder, or its address in a store."""
    digest: str
    """SHA-256 over names, sizes and times of change."""
    files: tuple[VectorFile, ...]

    @property
    def rows(self) -> int:
        """Vectors in all."""
        return sum(file.rows for file in self.files)

    @property
    def d(self) -> int:
        """Dimension of the vectors."""
        return self.files[0].d


def find_vector_files(source: str, clip: ClipConfig) -> VectorFiles | None:
    """The embeddings in a folder; None where it holds none in a layout that is known.

    Looks at names and headers only. Of a collection that popfactory made itself the manifest tells the model;
    of others nothing does: they are taken for what [clip] names, if the dimension fits.

    Raises:
        DataError: A file lacks its other half or has another number of rows, dimensions differ, or the
            embeddings are of another model than [clip] names.
    """
    listed = _listed(source)
    if listed is None:
        return None
    root, files_there = listed
    inference = sorted((path for path in files_there if _in(path, "img_emb", ".npy")), key=_number)
    datacomp = [path for path in files_there if path.endswith(".npz")]
    if inference:
        if not is_remote(root):
            _check_maker(Path(root), clip)
        pairs = _inference_pairs(
            root, inference, [path for path in files_there if _in(path, "metadata", ".parquet")]
        )
        array = None
    elif any(path.removesuffix(".npz") + ".parquet" in files_there for path in datacomp):
        pairs = [(path, path.removesuffix(".npz") + ".parquet") for path in datacomp]
        array = _datacomp_array(datacomp[0], clip)
    else:
        return None
    files = tuple(_vector_file(vectors, array, metadata) for vectors, metadata in pairs)
    for file in files:
        if file.d != files[0].d:
            raise DataError(
                f"{file.vectors}: d = {file.d}, {files[0].vectors} has d = {files[0].d}; they are of different models"
            )
    digest = hashlib.sha256()
    for path in (path for pair in pairs for path in pair):
        size, version = files_there[path]
        line = f"{path.removeprefix(root)} {size} {version}\n"
        digest.update(line.encode("utf-8", "surrogateescape"))
    return VectorFiles(root, digest.hexdigest(), files)


def _listed(source: str) -> tuple[str, dict[str, tuple[int, int]]] | None:
    """A source's folder, and the files right in it, in img_emb and in metadata, with size and version, by name.

    None where it is no folder or can't be listed: whoever reads it as pictures says why.
    """
    if is_remote(source):
        root, found = source.rstrip("/"), []
        for folder in (root, f"{root}/img_emb", f"{root}/metadata"):
            with contextlib.suppress(Exception):  # each store's package has errors of its own
                found += list_remote(folder, deep=False)
        return root, {
            file.url: (file.size, file.version) for file in sorted(found, key=lambda file: file.url)
        }
    base = Path(source).expanduser().absolute()
    if not base.is_dir():
        return None
    paths = [
        path
        for pattern in ("*.npz", "*.parquet", "img_emb/*.npy", "metadata/*.parquet")
        for path in base.glob(pattern)
    ]
    states = {str(path): path.stat() for path in sorted(paths) if path.is_file()}
    return str(base), {name: (state.st_size, state.st_mtime_ns) for name, state in states.items()}


def _in(path: str, folder: str, suffix: str) -> bool:
    return path.endswith(suffix) and path.rsplit("/", 2)[-2] == folder


def _inference_pairs(root: str, vectors: list[str], described: list[str]) -> list[tuple[str, str]]:
    metadata = {_number(path): path for path in described}
    pairs = []
    for path in vectors:
        other = metadata.pop(_number(path), None)
        if other is None:
            wanted = f"{root}/metadata/metadata_{_number(path)}.parquet"
            raise DataError(f"{path}: no {wanted} belongs to it; put it there, or take the vectors away")
        pairs.append((path, other))
    if metadata:
        raise DataError(
            f"{next(iter(metadata.values()))}: no vectors in {root}/img_emb belong to it; get them too"
        )
    return pairs


def _number(path: str) -> int:
    digits = re.findall(r"\d+", path.rsplit("/", 1)[-1].rsplit(".", 1)[0])
    return int(digits[-1]) if digits else -1


def _datacomp_array(path: str, clip: ClipConfig) -> str:
    array = DATACOMP_ARRAYS.get(clip_strings(clip))
    if array is None:
        raise DataError(
            f"{path}: embeddings of OpenAI's ViT-L-14 and ViT-B-32, [clip] names {clip.model}/{clip.pretrained}; "
            'set [clip] model = "ViT-L-14" and pretrained = "openai"'
        )
    return array


def _check_maker(folder: Path, clip: ClipConfig) -> None:
    """See that a collection of popfactory's own is of the model that [clip] names."""
    try:
        manifest = find_manifest(folder)
    except DataError:  # a manifest of something else
        return
    ours = clip_parameters(clip)
    if manifest is None:
        return
    theirs = {name: manifest.parameters[name] for name in ("model", "weights") if name in manifest.parameters}
    if theirs and theirs != ours:
        raise DataError(
            f"{folder}: embeddings of {theirs.get('model')}, [clip] names {ours['model']}"
            + (" with other weights" if theirs.get("model") == ours["model"] else "")
            + "; embed the pictures again, or set [clip] to that model"
        )


def _vector_file(vectors: str, array: str | None, metadata: str) -> VectorFile:
    try:
        with _array_file(vectors, array) as (_, (rows, d), _):
            pass
    except _VECTOR_ERRORS as error:
        named = f"array {array} of {vectors}" if array else str(vectors)
        raise DataError(f"{named}: no rows of float16, float32 or float64 ({error})") from None
    try:
        with parquet_file(metadata) as parquet:
            described = int(parquet.metadata.num_rows)
            names = [name.lower() for name in parquet.schema_arrow.names]
    except FileNotFoundError:
        raise DataError(f"{vectors}: no {metadata} belongs to it; put it there") from None
    except PARQUET_ERRORS as error:
        raise DataError(f"{metadata}: can't be read ({str(error).splitlines()[0]}); get it again") from None
    if rows != described:
        raise DataError(
            f"{vectors} has {rows:,} vectors, {metadata} {described:,} rows: they don't belong together; get both again"
        )
    if not any(name in names for name in _NAMING):
        raise DataError(
            f"{metadata}: none of {', '.join(_NAMING)} tells the pictures apart; it has {', '.join(names[:20])}"
        )
    return VectorFile(vectors, array, metadata, rows, d)


_ArrayFile = tuple[IO[bytes], tuple[int, int], np.dtype[Any]]


@contextlib.contextmanager
def _array_file(path: str, array: str | None) -> Iterator[_ArrayFile]:
    """A .npy, or an array of a .npz, open behind its header; with its shape and type.

    Raises:
        ValueError, OSError, KeyError, BadZipFile: It can't be read as rows of floats.
    """
    with contextlib.ExitStack() as stack:
        file: IO[bytes] = stack.enter_context(open_anywhere(path))
        if array is not None:
            archive = stack.enter_context(zipfile.ZipFile(file))
            file = stack.enter_context(archive.open(f"{array}.npy"))
        version = np.lib.format.read_magic(file)
        read_header = {
            (1, 0): np.lib.format.read_array_header_1_0,
            (2, 0): np.lib.format.read_array_header_2_0,
        }.get(version)
        if read_header is None:
            raise ValueError(f"its .npy has version {version}")
        shape, fortran, kind = read_header(file)
        if len(shape) != 2 or kind.kind != "f" or kind.itemsize > 8 or fortran:
            raise ValueError(f"shape {shape} of {kind}{' by columns' if fortran else ''}")
        if not 0 < shape[1] <= _LARGEST_D:
            raise ValueError(f"d = {shape[1]}")
        yield file, (int(shape[0]), int(shape[1])), kind


def _array_blocks(opened: _ArrayFile, size: int) -> Iterator[Vectors]:
    file, (rows, d), kind = opened
    for start in range(0, rows, size):
        count = min(size, rows - start)
        content = file.read(count * d * kind.itemsize)
        if len(content) != count * d * kind.itemsize:
            raise EOFError(
                f"it ends after {start + len(content) // (d * kind.itemsize):,} of {rows:,} vectors"
            )
        block: npt.NDArray[Any] = np.frombuffer(content, dtype=kind).reshape(count, d)
        with np.errstate(over="ignore"):
            yield block.astype(np.float32)


def _in_blocks(batches: Iterator[pa.RecordBatch], size: int) -> Iterator[pa.Table]:
    """The same rows in tables of `size`; batches end where row groups do."""
    waiting: list[pa.Table] = []
    count = 0
    for batch in batches:
        waiting.append(pa.Table.from_batches([batch]))
        count += batch.num_rows
        while count >= size:
            table = pa.concat_tables(waiting)
            yield table.slice(0, size)
            waiting, count = [table.slice(size)], count - size
    if count:
        yield pa.concat_tables(waiting)


def blocks_of(rows: int, size: int) -> int:
    """How many blocks of `size` hold so many rows."""
    return math.ceil(rows / size)
