"""An index as it is served: its vectors, metadata under the wire's names, and what filters its answers."""

import resource
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from index_builder.encoding.clip import clip_name
from index_builder.indexing.index_file import INDEX_FILE
from index_builder.indexing.index_folder import IndexFolder
from index_builder.metadata.metadata_rows import MetadataRows
from index_builder.metadata.row_mask import RowMask
from index_builder.numerics.faiss_library import load_faiss
from index_builder.scoring.heads import Kind, load_head, load_rating_vector
from retrieval_server.inlined_pictures import InlinedPictures
from retrieval_server.refusals import Refusal
from retrieval_server.reordered_rows import WireNumbers, open_rows, wire_numbers
from retrieval_server.settings import IndexSettings
from spine.errors import ConfigError, DataError
from spine.tables import Vectors

INDEX_FILES = {"image": INDEX_FILE, "text": "text.index"}
"""The index of each modality, as clip-retrieval names them; a folder has one of them or both."""

RATINGS = range(10)
"""Of an aesthetic query: rating0.npy to rating9.npy."""

_WIRE_NAMES = {"id": "hash", "similarity": "alt_txt_similarity"}
_RESERVED = ("id", "similarity", "query", "rank", "row")

Scores = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class ServedIndex:
    """One index, open."""

    settings: IndexSettings
    folders: Mapping[str, IndexFolder]
    """By modality; n, d and metadata are the same."""
    rows: MetadataRows
    columns: dict[str, str]
    """Metadata of an answer: name on the wire to column in the file."""
    wire_rows: MetadataRows
    """These columns alone, under these names."""
    unsafe: Callable[[Vectors], Scores] | None
    """Unit vectors (m, d) to the probability of being unsafe, (m,)."""
    violence: Callable[[Vectors], Scores] | None
    """Unit vectors (m, d) to how much nearer they are to violence than to its absence, (m,)."""
    ratings: Vectors | None
    """(10, d): the direction of each aesthetic rating."""
    pictures: InlinedPictures | None
    """Puts the pictures that image_path names into answers."""
    numbers: WireNumbers | None
    """Ids on the wire, where they are not the rows themselves."""
    masks: dict[str, RowMask] = field(default_factory=dict, compare=False)
    """Rows that meet the filters that batches asked for last; for the thread of batches alone."""

    @property
    def name(self) -> str:
        """Its name on the wire."""
        return self.settings.name

    @property
    def n(self) -> int:
        """Rows."""
        return self.rows.n

    @property
    def d(self) -> int:
        """Dimension of its vectors."""
        return next(iter(self.folders.values())).d

    def folder(self, modality: str) -> IndexFolder:
        """The index of pictures or of texts.

        Raises:
            Refusal: It has none.
        """
        if modality not in self.folders:
            raise Refusal(
                f"{self.name} has no {modality}.index; modality {' or '.join(map(repr, self.folders))} was needed",
                code="no_modality",
            )
        return self.folders[modality]

    def close(self) -> None:
        """Let go of the files."""
        for folder in self.folders.values():
            folder.close()
        if self.pictures is not None:
            self.pictures.close()

    def ids(self, rows: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """The ids of rows on the wire."""
        return rows if self.numbers is None else self.numbers.of_rows[rows]

    def rows_of(self, ids: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """The rows of ids on the wire, each from 0 to n - 1."""
        return ids if self.numbers is None else self.numbers.rows[ids]

    def metadata(self, rows: npt.NDArray[np.int64], wanted: list[str] | None = None) -> pa.Table:
        """Metadata of rows, under the wire's names.

        Args:
            rows: Each from 0 to n - 1.
            wanted: Wire names; those the index lacks are left out. None for all that are served.
        """
        names = None if wanted is None else [name for name in wanted if name in self.columns]
        return self.wire_rows.take(rows, names)


def open_index(settings: IndexSettings) -> ServedIndex:
    """Open an index and everything that belongs to it.

    Raises:
        ConfigError: Its vectors are from another model.
        ModelError: A head, violence or rating vectors can't be read or don't fit.
        DataError: The index can't be read, or vectors and metadata don't fit each other.
    """
    rows = open_rows(settings.folder, reordered=settings.reordered)
    folders = _folders(settings, rows)
    first = next(iter(folders.values()))
    _check_model(settings, first)
    columns = _wire_columns(rows.schema.names, settings.columns)
    return ServedIndex(
        settings=settings,
        folders=folders,
        rows=rows,
        columns=columns,
        wire_rows=rows.renamed(columns),
        unsafe=_score(settings.safety_head, "unsafe", first.d),
        violence=_score(settings.violence_vectors, "violence", first.d),
        ratings=_ratings(settings, first.d),
        pictures=InlinedPictures(settings.picture_folder) if settings.picture_folder is not None else None,
        numbers=wire_numbers(first) if settings.reordered else None,
    )


def describe(index: ServedIndex) -> str:
    """One line that says what is served."""
    parts = []
    for modality, folder in index.folders.items():
        size = sum(path.stat().st_size for path in _index_files(folder.folder / INDEX_FILES[modality]))
        lists = f", {folder.nlist:,} lists, nprobe {folder.nprobe:,}" if folder.nlist else ""
        parts.append(f"{modality} index {_kind(folder)} of {size / 1e6:,.0f} MB ({folder.metric}{lists})")
    clip = index.settings.clip
    return (
        f"{index.name}: {index.n:,} vectors of d = {index.d}, {', '.join(parts)}"
        f"{' left on disk' if index.settings.memory_map else ' in memory'}, {index.rows.n:,} rows of metadata, "
        f"model {clip_name(clip) if clip is not None else 'none'}, columns {', '.join(index.columns) or 'none'}; "
        f"the process has {resident_bytes() / 1e6:,.0f} MB"
    )


def resident_bytes() -> int:
    """Memory of this process that is in use, mapped files included; 0 where the system doesn't say."""
    try:
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    except (OSError, ValueError, IndexError):
        return 0
    return pages * resource.getpagesize()


def _kind(folder: IndexFolder) -> str:
    """FAISS's name for it, inside whatever turns the vectors first."""
    faiss, index = load_faiss(), folder.faiss_index()
    if isinstance(index, faiss.IndexPreTransform):
        return f"{type(faiss.downcast_index(index.index)).__name__} behind a rotation"
    return type(index).__name__


def _folders(settings: IndexSettings, rows: MetadataRows) -> dict[str, IndexFolder]:
    there = {modality: file for modality, file in INDEX_FILES.items() if (settings.folder / file).exists()}
    folders = {
        modality: IndexFolder.open(
            settings.folder,
            file=file,
            rows=rows,
            memory_map=settings.memory_map,
            copies_bytes=settings.copies_bytes,
        )
        for modality, file in (there or {"image": INDEX_FILE}).items()
    }
    for folder in folders.values():  # or the first query waits for what is compiled and loaded
        folder.search(np.eye(1, folder.d, dtype=np.float32), 1)
        if folder.exact_vectors is not None and folder.n:
            folder.reconstruct(np.zeros(1, dtype=np.int64))
    if len({folder.d for folder in folders.values()}) > 1:
        found = ", ".join(f"{folder.d} in {INDEX_FILES[modality]}" for modality, folder in folders.items())
        raise DataError(f"{settings.folder}: d is {found}; one CLIP model's vectors were needed in both")
    return folders


def _check_model(settings: IndexSettings, folder: IndexFolder) -> None:
    """Texts embedded by another model than the pictures would find anything but what they say."""
    if folder.model is not None and settings.clip is not None and clip_name(settings.clip) != folder.model:
        raise ConfigError(
            f"{settings.name}: its vectors are from {folder.model}, the model set for it is "
            f"{clip_name(settings.clip)}; set the same one"
        )


def _index_files(path: Path) -> list[Path]:
    return [file for file in path.iterdir() if file.is_file()] if path.is_dir() else [path]


def _wire_columns(present: list[str], served: tuple[str, ...] | None) -> dict[str, str]:
    """Names on the wire to columns, none of which hides the kNN's own id and similarity."""
    names: dict[str, str] = {}
    for column in present:
        name = column
        if column in _RESERVED:
            name = _WIRE_NAMES.get(column, f"metadata_{column}")
            if name in present:
                name = f"metadata_{column}"
        if served is None or column in served or name in served:
            names[name] = column
    return names


def _score(source: str, kind: Kind, d: int) -> Callable[[Vectors], Scores] | None:
    return load_head(source, kind, d).score if source else None


def _ratings(settings: IndexSettings, d: int) -> Vectors | None:
    if not settings.aesthetic_vectors:
        return None
    return np.stack([load_rating_vector(settings.aesthetic_vectors, rating, d) for rating in RATINGS])
