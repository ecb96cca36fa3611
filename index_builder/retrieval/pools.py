"""What `retrieve` searches: the run's own index, another index folder, or a server. All answer alike."""

import hashlib
import os
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from index_builder.bulk_query import (
    BLOCK,
    RESULTS,
    SEARCHED,
    Answers,
    answers_together,
    bulk_query,
    explain,
    with_metadata,
)
from index_builder.indexing.index_folder import K_MAX, IndexFolder
from index_builder.metadata.foreign_columns import our_values, spelling_of
from index_builder.metadata.metadata_rows import Rows
from index_builder.metadata.predicates import Predicate, rows_that_pass
from index_builder.metadata.row_mask import RowMask
from spine.errors import ConfigError, DataError, ServiceError
from spine.manifest import find_manifest, read_manifest
from spine.progress import SILENT, Progress
from spine.protocol import MAX_RESULTS, RetrievalClient
from spine.run import Run
from spine.settings import Config
from spine.tables import METADATA, Vectors

_OURS = tuple(name for name in METADATA.names if name != "id")


@dataclass(frozen=True, kw_only=True, slots=True)
class Question:
    """What is asked of a pool for each query."""

    k: int
    """Neighbours, 1 at least."""
    nprobe: int = 0
    """Lists searched; 0 for the pool's own number."""
    predicate: Predicate = field(default_factory=Predicate)
    """What a picture must be to be found."""
    similarity_min: float | None = None
    """Neighbours below are left out."""
    columns: tuple[str, ...] = _OURS
    """Metadata to bring beside the id: columns of METADATA, null where the pool doesn't know, and any others of the
    pool's in its own spelling."""


class Pool(Protocol):
    """Something open for search."""

    @property
    def model(self) -> str | None:
        """CLIP model of its vectors, None where it doesn't say."""

    @property
    def d(self) -> int | None:
        """Dimension of its vectors, None where it doesn't say."""

    def check(self, question: Question) -> None:
        """See that it can be answered, before any query is.

        Raises:
            ConfigError: The pool can't do what is asked.
            DataError: The pool has no vectors, not so many lists, or not the columns.
        """

    def explain(self, n_queries: int, question: Question) -> str:
        """How so many queries would be answered, and why."""

    def answers_together(self, n_queries: int, question: Question) -> bool:
        """Whether so many queries cost less in one `search` than in several."""

    def search(
        self,
        queries: Vectors,
        question: Question,
        block: int = BLOCK,
        progress: Progress = SILENT,
        done: Collection[int] = (),
        keep: Path | None = None,
    ) -> Iterator[Answers]:
        """The k nearest of each query: query, rank, row, similarity, id and the columns asked for.

        One answer for each `block` queries but those `done`; query numbers are those of `queries`. A long pass keeps
        what it has found in the file `keep`, and after a stop goes on from there.

        Raises:
            ConfigError: The pool can't do what is asked.
            DataError: The queries don't fit, or a column is unknown.
            ServiceError: The server can't be reached, or refuses.
        """

    def vectors(self, rows: Rows) -> Vectors | None:
        """The stored vectors of rows, L2 norm 1; None where they can't be had."""

    def __enter__(self) -> "Pool":
        """This pool, to be closed at the end of the block."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Let go of files and connections."""


def pool_digests(run: Run, config: Config) -> dict[str, str]:
    """What tells one pool from another, without opening it; for a stage's inputs.

    A run's own index and any folder with a manifest go by its digest, other folders by names, sizes and
    times of their files. Of a server only its address is known, which is a parameter.

    Raises:
        DataError: The index isn't built, or the folder isn't there.
    """
    if config.pool.server:
        return {}
    if not config.pool.index:
        return {"index": read_manifest(run.index).digest}
    return {"index": folder_digest(Path(config.pool.index).expanduser())}


def folder_digest(folder: Path) -> str:
    """What tells an index folder from another, without opening it.

    Raises:
        DataError: It isn't there.
    """
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder; an index folder was needed")
    manifest = find_manifest(folder)
    return manifest.digest if manifest is not None else _fingerprint(folder)


def open_pool(run: Run, config: Config) -> Pool:
    """Open what [pool] names: an index folder, a server, or else the run's own index.

    Raises:
        ConfigError: The server can't give [retrieve] k.
        DataError: The index can't be opened.
        ServiceError: The server can't be reached or has no such index.
    """
    pool = config.pool
    if pool.server:
        if config.retrieve.k > MAX_RESULTS:
            raise ConfigError(f"[retrieve] k = {config.retrieve.k:,}, a server gives {MAX_RESULTS:,} at most")
        return ServerPool(pool.server, pool.indice_name, os.environ.get(pool.token_variable, ""))
    return IndexPool(Path(pool.index).expanduser() if pool.index else run.index)


class IndexPool:
    """An index folder on disk."""

    def __init__(self, folder: Path) -> None:
        self._index = IndexFolder.open(folder)
        self._passing: tuple[dict[str, object], RowMask] | None = None

    @property
    def model(self) -> str | None:
        """CLIP model of its vectors, None where it doesn't say."""
        return self._index.model

    @property
    def d(self) -> int | None:
        """Dimension of its vectors."""
        return self._index.d

    def check(self, question: Question) -> None:
        """See that it can be answered; see `Pool`."""
        index = self._index
        if not 1 <= question.k <= K_MAX:
            raise DataError(f"k = {question.k:,}, 1 to {K_MAX:,} was needed")
        if not index.n:
            raise DataError(f"{index.folder}: holds no vectors; there is nothing to find")
        if not 0 <= question.nprobe <= max(1, index.nlist):
            raise DataError(
                f"nprobe = {question.nprobe:,}, {index.folder} has {index.nlist:,} lists; 0 to so many were needed"
            )
        missing = question.predicate.missing(index.columns)
        missing += [
            name for name in question.columns if name not in METADATA.names and name not in index.columns
        ]
        if missing:
            raise DataError(
                f"{index.folder}: says nothing of {', '.join(missing)}; it has: {', '.join(index.columns)}"
            )

    def explain(self, n_queries: int, question: Question) -> str:
        """How so many queries would be answered, and why."""
        lines = [explain(self._index, n_queries, question.k, question.nprobe)]
        if not question.predicate.empty:
            mask = self._mask(question.predicate)
            share = f"{mask.count / mask.n:.2%}" if mask.n else "none"
            lines.append(
                f"{mask.count:,} of {mask.n:,} rows meet the predicate ({share}); only they are scored, and each"
                " query goes on to further lists until there are enough"
            )
        return "\n".join(lines)

    def answers_together(self, n_queries: int, question: Question) -> bool:
        """Whether one pass over the index's lists would answer them."""
        return not question.predicate.empty or answers_together(
            self._index, n_queries, question.k, question.nprobe
        )

    def search(
        self,
        queries: Vectors,
        question: Question,
        block: int = BLOCK,
        progress: Progress = SILENT,
        done: Collection[int] = (),
        keep: Path | None = None,
    ) -> Iterator[Answers]:
        """The k nearest of each query; see `Pool`."""
        self.check(question)
        present = self._index.columns
        needed = ["id", *question.columns]
        columns = [each for name in needed if name in METADATA.names for each in spelling_of(name, present)]
        columns += [name for name in question.columns if name not in METADATA.names]
        answers = bulk_query(
            self._index,
            queries,
            question.k,
            nprobe=question.nprobe,
            columns=list(dict.fromkeys(columns)),
            block=block,
            mask=None if question.predicate.empty else self._mask(question.predicate),
            similarity_min=question.similarity_min,
            progress=progress,
            done=done,
            keep=keep,
        )
        for answer in answers:
            yield Answers(_in_columns(answer.neighbours, question.columns), answer.searched)

    def _mask(self, predicate: Predicate) -> RowMask:
        """The rows that meet it, found once."""
        parameters = predicate.parameters()
        if self._passing is None or self._passing[0] != parameters:
            self._passing = parameters, rows_that_pass(self._index.rows, predicate)
        return self._passing[1]

    def vectors(self, rows: Rows) -> Vectors | None:
        """The stored vectors of rows, as far as the index's codes keep them."""
        return self._index.reconstruct(rows)

    def __enter__(self) -> "IndexPool":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._index.close()


class ServerPool:
    """An index behind a clip-retrieval back end, ours or the original."""

    def __init__(self, url: str, name: str, token: str = "") -> None:
        self._client = RetrievalClient(url, token=token)
        names = self._client.indices()
        if not names or (name and name not in names):
            raise ServiceError(
                f"{url}: no index {name!r} there; [pool] indice_name is one of: {', '.join(names) or 'none'}"
            )
        self._name = name or names[0]

    @property
    def model(self) -> str | None:
        """None: the protocol doesn't tell."""
        return None

    @property
    def d(self) -> int | None:
        """None: the protocol doesn't tell; the server refuses queries that don't fit."""
        return None

    def check(self, question: Question) -> None:
        """See that it can be answered; see `Pool`."""
        if "id" in question.predicate.needs:
            raise ConfigError(
                f"{self._client.url}: a server isn't sent lists of ids to allow or deny; leave them out, or search"
                " the index folder"
            )
        if not 1 <= question.k <= MAX_RESULTS:
            raise ConfigError(f"k = {question.k:,}, a server gives 1 to {MAX_RESULTS:,}")

    def explain(self, n_queries: int, question: Question) -> str:
        """How so many queries would be answered."""
        return f"asked of {self._client.url}, {n_queries:,} queries in batches: how it searches is its own choice"

    def answers_together(self, n_queries: int, question: Question) -> bool:
        """False: each request is answered by itself."""
        return False

    def search(
        self,
        queries: Vectors,
        question: Question,
        block: int = BLOCK,
        progress: Progress = SILENT,
        done: Collection[int] = (),
        keep: Path | None = None,
    ) -> Iterator[Answers]:
        """The k nearest of each query; see `Pool`."""
        self.check(question)
        for start in range(0, len(queries), block):
            if start // block in done:
                continue
            some = queries[start : start + block]
            found = self._client.knn_batch(
                some,
                question.k,
                index=self._name,
                nprobe=question.nprobe,
                conditions=_conditions(question.predicate),
            )
            if question.similarity_min is not None:
                found = found.filter(pc.greater_equal(found.column("similarity"), question.similarity_min))
            sizes = np.bincount(found.column("query").to_numpy(), minlength=len(some))
            numbers = pc.add(found.column("query"), pa.scalar(start, pa.int32()))
            found = found.set_column(found.column_names.index("query"), "query", numbers)
            searched = [pa.array(range(start, start + len(some)), pa.int32())]
            searched += [pa.nulls(len(some), pa.int32()), pa.array(sizes, pa.int32())]
            yield Answers(_in_columns(found, question.columns), pa.table(searched, schema=SEARCHED))

    def vectors(self, rows: Rows) -> Vectors | None:
        """None: a server gives no vectors."""
        return None

    def __enter__(self) -> "ServerPool":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._client.close()


def _conditions(predicate: Predicate) -> dict[str, Any]:
    """A predicate without ids, by the names that a server's /knn-batch has; empty for none."""
    if predicate.empty:
        return {}
    filters = predicate.filters
    asked = {
        "min_side_px": filters.min_side_px or None,
        "pwatermark_max": filters.pwatermark_max,
        "punsafe_max": filters.punsafe_max,
        "aesthetic_min": filters.aesthetic_min.value,
        "alt_txt_similarity_min": predicate.alt_txt_similarity_min,
        "languages": list(predicate.languages) or None,
    }
    return {name: value for name, value in asked.items() if value is not None} | {"unknown": filters.unknown}


def _in_columns(found: pa.Table, columns: Sequence[str]) -> pa.Table:
    """RESULTS, id, and the columns asked for."""
    metadata = found.select([name for name in found.column_names if name not in RESULTS.names])
    ours = our_values(metadata, ["id", *(name for name in columns if name in METADATA.names)])
    unknown = [name for name in columns if name not in METADATA.names and name not in metadata.column_names]
    if unknown:
        raise DataError(
            f"the pool has no column {', '.join(unknown)}; there are: {', '.join(metadata.column_names)}"
        )
    taken = {"id": ours.column("id")}
    for name in columns:
        if name in ours.column_names:
            taken[name] = ours.column(name)
        elif name in METADATA.names:
            taken[name] = pa.nulls(found.num_rows, METADATA.field(name).type)
        else:
            taken[name] = metadata.column(name)
    return with_metadata(found.select(RESULTS.names), pa.table(taken))


def _fingerprint(folder: Path) -> str:
    lines = [
        f"{path.relative_to(folder).as_posix()} {path.stat().st_size} {path.stat().st_mtime_ns}"
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    ]
    return hashlib.sha256("\n".join(lines).encode("utf-8", "surrogateescape")).hexdigest()
