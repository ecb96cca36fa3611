"""What `retrieve` searches: the run's own index, another index folder, or a server. All answer alike."""

import hashlib
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Protocol

import pyarrow as pa
import pyarrow.compute as pc

from index_builder.bulk_query import answers_together, bulk_query, with_metadata
from index_builder.foreign_columns import as_our_metadata, our_columns
from index_builder.index_folder import IndexFolder
from index_builder.metadata_rows import Rows
from spine.errors import ConfigError, DataError, ServiceError
from spine.protocol import MAX_RESULTS, RetrievalClient
from spine.run import Run
from spine.settings import Config
from spine.stage import find_manifest, read_manifest
from spine.tables import Vectors

_RESULTS = ("query", "rank", "row", "similarity")


class Pool(Protocol):
    """Something open for search."""

    @property
    def model(self) -> str | None:
        """CLIP model of its vectors, None where it doesn't say."""

    @property
    def d(self) -> int | None:
        """Dimension of its vectors, None where it doesn't say."""

    def answers_together(self, n_queries: int, nprobe: int) -> bool:
        """Whether so many queries cost less in one `search` than in several."""

    def search(self, queries: Vectors, k: int, nprobe: int, block: int) -> Iterator[pa.Table]:
        """The k nearest of each query: query, rank, row, similarity and METADATA, sorted by query and rank.

        One table for each `block` queries; query numbers go on from table to table.
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
    folder = Path(config.pool.index).expanduser()
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder; [pool] index names an index folder")
    manifest = find_manifest(folder)
    return {"index": manifest.digest if manifest is not None else _fingerprint(folder)}


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
        return ServerPool(pool.server, pool.indice_name)
    return IndexPool(Path(pool.index).expanduser() if pool.index else run.index)


class IndexPool:
    """An index folder on disk."""

    def __init__(self, folder: Path) -> None:
        self._index = IndexFolder.open(folder)
        self._columns = our_columns(self._index.columns)

    @property
    def model(self) -> str | None:
        """CLIP model of its vectors, None where it doesn't say."""
        return self._index.model

    @property
    def d(self) -> int | None:
        """Dimension of its vectors."""
        return self._index.d

    def answers_together(self, n_queries: int, nprobe: int) -> bool:
        """Whether one pass over the index's lists would answer them."""
        return answers_together(self._index, n_queries, nprobe)

    def search(self, queries: Vectors, k: int, nprobe: int, block: int) -> Iterator[pa.Table]:
        """The k nearest of each query; see `Pool`."""
        tables = bulk_query(self._index, queries, k, nprobe=nprobe, columns=self._columns, block=block)
        return (_in_our_columns(answers.neighbours) for answers in tables)

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

    def __init__(self, url: str, name: str) -> None:
        self._client = RetrievalClient(url)
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

    def answers_together(self, n_queries: int, nprobe: int) -> bool:
        """False: each request is answered by itself."""
        return False

    def search(self, queries: Vectors, k: int, nprobe: int, block: int) -> Iterator[pa.Table]:
        """The k nearest of each query; see `Pool`."""
        for start in range(0, len(queries), block):
            some = queries[start : start + block]
            found = _in_our_columns(self._client.knn_batch(some, k, index=self._name, nprobe=nprobe))
            numbers = pc.add(found.column("query"), pa.scalar(start, pa.int32()))
            yield found.set_column(found.column_names.index("query"), "query", numbers)

    def vectors(self, rows: Rows) -> Vectors | None:
        """None: a server gives no vectors."""
        return None

    def __enter__(self) -> "ServerPool":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._client.close()


def _in_our_columns(found: pa.Table) -> pa.Table:
    metadata = found.select([name for name in found.column_names if name not in _RESULTS])
    return with_metadata(found.select(_RESULTS), as_our_metadata(metadata))


def _fingerprint(folder: Path) -> str:
    lines = [
        f"{path.relative_to(folder).as_posix()} {path.stat().st_size} {path.stat().st_mtime_ns}"
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    ]
    return hashlib.sha256("\n".join(lines).encode("utf-8", "surrogateescape")).hexdigest()
