"""An index folder: FAISS's vectors and the metadata of their rows, opened for search.

Ours (`index_builder.indexes` writes it) and clip-retrieval's are the same: image.index beside
metadata/. Ours has a manifest too, and where its codes are coarse the vectors themselves, so that
candidates are ranked exactly.
"""

import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from index_builder.indexing.candidate_ranking import (
    OVER_FETCH,
    candidates_for,
    in_order,
    ranked_exactly,
)
from index_builder.indexing.index_file import (
    COPIES_BYTES,
    INDEX_FILE,
    METADATA_FOLDER,
    VECTORS_FILE,
    check_facts,
    read_index,
    read_vectors,
    scans_fast,
)
from index_builder.indexing.index_search import IndexSearch
from index_builder.metadata.metadata_rows import MetadataRows, Rows
from index_builder.metadata.one_batch import open_metadata
from index_builder.numerics.faiss_library import load_faiss
from index_builder.numerics.huge_pages import index_into_huge_pages
from index_builder.numerics.unit_vectors import scaled_rows, scaled_rows_of
from spine.errors import DataError
from spine.manifest import Manifest, find_manifest, verify
from spine.tables import Vectors

K_MAX = 1_000_000
"""Neighbours one query may ask for."""

Kept = TypeVar("Kept")


class IndexFolder:
    """An open index folder. Any number of threads may search it at once.

    Attributes:
        folder: Where it lies.
        path: The index's file in it, or its folder if it stays on disk.
        n: Vectors in it.
        d: Their dimension.
        metric: "inner_product" or "l2", as FAISS stores it; `search` gives similarities either way.
        kind: FAISS's name of what searches: "IndexFlat", "IndexIVFRaBitQ" and the like.
        columns: Names of its metadata columns.
        model: CLIP model of its vectors, None where nothing says so.
        demo_models: Whether that is the demo model.
        nlist: Inverted lists; 0 for an index without.
        nprobe: Lists searched a query by default; 0 for an index without lists.
        over_fetch: Candidates a neighbour that are ranked on the vectors themselves by default; 0 where none are.
    """

    def __init__(
        self,
        folder: Path,
        index: Any,
        rows: MetadataRows,
        manifest: Manifest | None,
        vectors: Any,
        file: str,
        copies_bytes: int,
    ) -> None:
        faiss = load_faiss()
        facts = manifest.facts if manifest is not None else {}
        self.folder = folder
        self.path = folder / file
        self.n = int(index.ntotal)
        self.d = int(index.d)
        self.metric = "l2" if index.metric_type == faiss.METRIC_L2 else "inner_product"
        self.columns = list(rows.schema.names)
        self.model: str | None = facts.get("model")
        self.demo_models = bool(facts.get("demo_models", False))
        self._index = index
        self._rows = rows
        self._vectors = vectors
        lists = faiss.try_extract_index_ivf(index)
        self.kind = type(index if lists is None else faiss.downcast_index(lists)).__name__
        self.nlist = int(lists.nlist) if lists is not None else 0
        self.nprobe = int(facts.get("nprobe") or lists.nprobe) if lists is not None else 0
        self.over_fetch = float(facts.get("over_fetch") or OVER_FETCH) if vectors is not None else 0.0
        self._kept: dict[str, Any] = {}
        self._search: IndexSearch | None = IndexSearch(
            index, self.path, self.nlist, self.nprobe, copies_bytes
        )
        self._map_lock = threading.Lock()
        self._mapped = False

    @classmethod
    def open(
        cls,
        folder: Path,
        *,
        file: str = INDEX_FILE,
        rows: MetadataRows | None = None,
        memory_map: bool = True,
        check_digests: bool = True,
        vectors_beside: bool | None = None,
        copies_bytes: int = COPIES_BYTES,
    ) -> "IndexFolder":
        """Open an index folder of ours or of clip-retrieval's.

        Args:
            folder: Holds image.index and metadata/.
            file: Another index in it, such as clip-retrieval's text.index.
            rows: Its metadata, where that is open already or isn't in metadata/.
            memory_map: Leave the vectors on disk and let the system bring in what is read; false reads
                them into memory, in pages of 2 MB where the system has them.
            check_digests: Compare every file with the manifest, where there is one. It reads all of
                them once: FAISS itself takes a file with a wrong bit without a word.
            vectors_beside: Whether vectors.npy belongs to it; None where a manifest says so.
            copies_bytes: Memory that a copy which makes searches faster may take; where it would take more there is
                none.

        Raises:
            DataError: A file is missing, damaged or not as published, the metric is unknown, or vectors
                and metadata have not the same number of rows.
        """
        manifest = find_manifest(folder) if file == INDEX_FILE else None  # it tells of our own index alone
        if manifest is not None and check_digests:
            problems = verify(folder)
            if problems:
                raise DataError(f"{problems[0]}; build the index again with --force")
        index = read_index(folder / file, memory_map=memory_map)
        rows = open_metadata(folder / METADATA_FOLDER) if rows is None else rows
        if index.ntotal != rows.n:
            raise DataError(
                f"{folder}: {index.ntotal:,} vectors in {file}, {rows.n:,} rows of metadata; they must be equal"
            )
        beside = manifest is not None if vectors_beside is None else vectors_beside
        vectors = read_vectors(folder / VECTORS_FILE, index) if beside else None
        if manifest is not None:
            check_facts(folder, index, manifest.facts)
        if not memory_map:
            index_into_huge_pages(index)
        return cls(folder, index, rows, manifest, vectors, file, copies_bytes)

    def search(
        self, queries: Vectors, k: int, *, nprobe: int = 0, over_fetch: float = 0
    ) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
        """The k nearest rows of each query.

        Args:
            queries: Shape (q, d), finite; of L2 norm 1 for similarities of -1 to 1.
            k: Neighbours a query, 1 to K_MAX.
            nprobe: Lists searched a query; 0 for the index's own. No meaning without lists.
            over_fetch: Candidates a neighbour; 0 for the index's own. No meaning where none are ranked.

        Returns:
            Similarities (q, k), highest first, and rows (q, k); equals by row. Where fewer than k are found the rest
            is row -1 with similarity -inf. Of an l2 index the similarity is that of unit vectors.

        Raises:
            DataError: The shape is wrong, a value isn't finite, or k or nprobe is out of bounds.
        """
        search, vectors, queries = self._open_search(), self._vectors, self.checked(queries, k, nprobe)
        similarities = np.full((len(queries), k), -np.inf, dtype=np.float32)
        rows = np.full((len(queries), k), -1, dtype=np.int64)
        if len(queries) and self.n:
            depth = min(self.n, self.depth(k, over_fetch))
            found, numbers = search.search(queries, depth, nprobe)
            if self.metric == "l2":
                found = np.subtract(1, found / 2, dtype=np.float32)
            if vectors is not None:
                found, numbers = ranked_exactly(queries, numbers, found, vectors, min(k, depth))
            else:
                found, numbers = in_order(found, numbers)
            width = min(k, depth)
            rows[:, :width] = numbers[:, :width]
            similarities[:, :width] = np.where(numbers[:, :width] >= 0, found[:, :width], -np.inf)
        return similarities, rows

    def search_with_vectors(
        self, queries: Vectors, k: int, *, nprobe: int = 0
    ) -> list[tuple[npt.NDArray[np.float32], Rows, Vectors]]:
        """The k nearest rows of each query and their vectors, as `search` and `reconstruct` give them.

        Unlike `reconstruct` it has no need to know where each row is, which is 47 GB for LAION-5B.

        Args:
            queries: As in `search`; memory holds q · k vectors at once.
            k: As in `search`.
            nprobe: As in `search`.

        Returns:
            Of each query similarities (m,), rows (m,) and vectors (m, d) of L2 norm 1: of what was found, m is k at
            most.

        Raises:
            DataError: As `search` and `reconstruct` do.
        """
        index = self.faiss_index()
        if not self.nlist or self._vectors is not None or scans_fast(index):
            found = zip(*self.search(queries, k, nprobe=nprobe), strict=True)
            there = [(similarities[rows >= 0], rows[rows >= 0]) for similarities, rows in found]
            return [(similarities, rows, self.reconstruct(rows)) for similarities, rows in there]
        queries = self.checked(queries, k, nprobe)
        parameters = self._open_search().parameters(nprobe)
        near, numbers, vectors = index.search_and_reconstruct(queries, min(self.n, k), params=parameters)
        if self.metric == "l2":
            near = np.subtract(1, near / 2, dtype=np.float32)
        return [self._found(*each) for each in zip(near, numbers, vectors, strict=True)]

    @staticmethod
    def _found(
        near: npt.NDArray[np.float32], numbers: Rows, vectors: Vectors
    ) -> tuple[npt.NDArray[np.float32], Rows, Vectors]:
        """One query's neighbours in order, without the places where none was found."""
        there = np.flatnonzero(numbers >= 0)
        order = np.lexsort((numbers[there], -near[there]))
        picked = there[order]
        in_place = np.array_equal(picked, np.arange(len(numbers)))  # as a rule: it saves a copy
        return near[picked], numbers[picked], scaled_rows(vectors if in_place else vectors[picked])

    @property
    def rows(self) -> MetadataRows:
        """Its metadata, row by row."""
        return self._rows

    @property
    def exact_vectors(self) -> Any:
        """The float16 vectors that candidates of coarse codes are ranked on, shape (n, d); None without."""
        return self._vectors

    def depth(self, k: int, over_fetch: float = 0) -> int:
        """What a search for k neighbours asks of the codes: k, or more where candidates are ranked."""
        return candidates_for(k, over_fetch or self.over_fetch) if self.over_fetch else k

    def candidates(
        self, queries: Vectors, k: int, *, nprobe: int = 0, over_fetch: float = 0
    ) -> tuple[npt.NDArray[np.float32], Rows]:
        """What `search` ranks on the vectors themselves, in any order.

        Args:
            queries: As `search` has them.
            k: Neighbours wanted in the end.
            nprobe: Lists searched a query; 0 for the index's own.
            over_fetch: Candidates a neighbour; 0 for the index's own.

        Returns:
            Similarities by their codes, and rows, -1 for none; (q, depth(k)), or fewer columns where the index is
            smaller.

        Raises:
            DataError: As `search`.
        """
        search, queries = self._open_search(), self.checked(queries, k, nprobe)
        found, rows = search.search(queries, min(self.n, self.depth(k, over_fetch)), nprobe)
        return (np.subtract(1, found / 2, dtype=np.float32) if self.metric == "l2" else found), rows

    def reconstruct(self, rows: Rows) -> Vectors:
        """The vectors of these rows, as far as the index's codes keep them, scaled to L2 norm 1.

        The first call on an index with lists notes where each row is, 8 bytes a row.

        Args:
            rows: Shape (m,), each from 0 to n - 1.

        Returns:
            Shape (m, d).

        Raises:
            DataError: A row doesn't exist, or this kind of index keeps no vectors.
        """
        index, rows = self.faiss_index(), np.asarray(rows, dtype=np.int64)
        # FAISS itself answers a negative row with whatever lies before the vectors in memory.
        if rows.ndim != 1 or (rows.size and (rows.min() < 0 or rows.max() >= self.n)):
            raise DataError(f"rows from 0 to {self.n - 1:,} were needed")
        if not rows.size:
            return np.empty((0, self.d), dtype=np.float32)
        if self._vectors is not None:
            return scaled_rows_of(self._vectors, rows)
        if scans_fast(index):
            # FAISS 1.15 tries, and ends the process where such lists are mapped from a file.
            raise DataError(f"{self.folder}: fast-scan codes give no vectors back")
        self._note_places(index)
        try:
            return scaled_rows(index.reconstruct_batch(rows))
        except RuntimeError as error:
            raise DataError(f"{self.folder}: this kind of index keeps no vectors ({error})") from None

    def metadata(self, rows: Rows, columns: Sequence[str] | None = None) -> pa.Table:
        """Metadata of these rows, in this order.

        Args:
            rows: Shape (m,), each from 0 to n - 1.
            columns: Those wanted; None for all.

        Raises:
            DataError: A row or column doesn't exist.
        """
        return self._rows.take(rows, columns)

    def close(self) -> None:
        """Let go of the files. Searches that run end well; later ones are a mistake."""
        self._index = self._vectors = self._search = None
        self._kept = {}
        self._rows = MetadataRows([], self._rows.schema)

    def __enter__(self) -> "IndexFolder":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def on_gpus(self, k: int, nprobe: int = 0) -> bool:
        """Whether GPUs have a copy and answer for so many neighbours, and lists a query; 0 for the index's own."""
        return self._open_search().on_gpus(k, nprobe)

    def kept(self, name: str, make: Callable[[], Kept]) -> Kept:
        """What `make` gives: made once, and let go when the folder is closed."""
        if name not in self._kept:
            self._kept[name] = make()
        made: Kept = self._kept[name]
        return made

    def faiss_index(self) -> Any:
        """The FAISS index itself, to be read only.

        Raises:
            ValueError: The folder is closed.
        """
        if self._index is None:
            raise ValueError(f"{self.folder}: this index is closed")
        return self._index

    def checked(self, queries: Vectors, k: int, nprobe: int) -> Vectors:
        """Queries as a search takes them: shape (q, d), float32, contiguous.

        Raises:
            DataError: The shape is wrong, a value isn't finite, or k or nprobe is out of bounds.
        """
        queries = self._checked(queries)
        if not 1 <= k <= K_MAX:
            raise DataError(f"k = {k:,}, 1 to {K_MAX:,} was needed")
        if nprobe < 0:
            raise DataError(f"nprobe = {nprobe}, 0 or more was needed")
        return queries

    def _open_search(self) -> IndexSearch:
        self.faiss_index()
        assert self._search is not None
        return self._search

    def _checked(self, queries: Vectors) -> Vectors:
        queries = np.ascontiguousarray(queries, dtype=np.float32)
        if queries.ndim != 2 or queries.shape[1] != self.d:
            raise DataError(
                f"queries of shape {queries.shape}, (any number, {self.d}) was needed: as the index has it"
            )
        finite = np.isfinite(queries).all(axis=1)
        if not finite.all():
            raise DataError(
                f"query {int(finite.argmin()):,} holds NaN or infinity, and {np.count_nonzero(~finite):,} of"
                f" {len(queries):,} do; finite numbers were needed"
            )
        return queries

    def _note_places(self, index: Any) -> None:
        with self._map_lock:
            if self.nlist and not self._mapped:
                load_faiss().extract_index_ivf(index).make_direct_map()
                self._mapped = True
