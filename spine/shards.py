"""Embeddings and their metadata on disk, in the layout of clip-retrieval's inference.

    FOLDER/img_emb/img_emb_00000.npy            float16, shape (n, d)
    FOLDER/metadata/metadata_00000.parquet      row i belongs to vector i

Numbers have the same count of digits, so that order by name is order by number.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from spine.errors import DataError
from spine.manifest import find_manifest, read_manifest, require_published
from spine.publish import publish_array, publish_table
from spine.table_files import read_table
from spine.tables import Vectors


@dataclass(frozen=True, slots=True)
class Shard:
    """One pair of files."""

    vectors_path: Path
    metadata_path: Path

    def vectors(self) -> Vectors:
        """The embeddings, shape (n, d), as float32.

        Raises:
            DataError: The file is damaged or holds something else.
        """
        try:
            array = np.load(self.vectors_path, allow_pickle=False)
        except (OSError, ValueError) as error:
            raise DataError(
                f"{self.vectors_path}: can't be read ({error}); embed again with --force"
            ) from None
        if array.ndim != 2 or array.dtype.kind != "f":
            raise DataError(
                f"{self.vectors_path}: shape {array.shape} of {array.dtype}, rows of floats were needed"
            )
        return np.asarray(array, dtype=np.float32)

    def metadata(self, schema: pa.Schema) -> pa.Table:
        """The rows' metadata with the columns of `schema`; one the file lacks is null.

        Raises:
            DataError: The file is damaged, or has another number of rows than there are vectors.
        """
        try:
            present = set(pq.read_schema(self.metadata_path).names)
        except (OSError, pa.ArrowInvalid) as error:
            raise DataError(
                f"{self.metadata_path}: can't be read ({error}); embed again with --force"
            ) from None
        known = pa.schema([column for column in schema if column.name in present])
        table = read_table(self.metadata_path, known)
        for column in schema:
            if column.name not in present:
                table = table.append_column(column, pa.nulls(table.num_rows, column.type))
        return table.select(schema.names)


def write_shard(folder: Path, number: int, vectors: Vectors, metadata: pa.Table) -> None:
    """Publish one pair: vectors as float16 first, metadata last, so that the pair is complete once it is there.

    Args:
        folder: The collection's folder.
        number: From 0.
        vectors: Shape (n, d).
        metadata: n rows.
    """
    if len(vectors) != metadata.num_rows:
        raise ValueError(f"{len(vectors)} vectors, {metadata.num_rows} rows of metadata")
    publish_array(folder / "img_emb" / f"img_emb_{number:05d}.npy", vectors.astype(np.float16))
    publish_table(folder / "metadata" / f"metadata_{number:05d}.parquet", metadata)


def shards(folder: Path) -> list[Shard]:
    """The complete pairs of a collection, in order.

    Raises:
        DataError: Files of the two kinds don't pair up.
    """
    vectors = sorted((folder / "img_emb").glob("img_emb_*.npy"))
    metadata = sorted((folder / "metadata").glob("metadata_*.parquet"))
    if [path.stem.rsplit("_", 1)[1] for path in vectors] != [
        path.stem.rsplit("_", 1)[1] for path in metadata
    ]:
        raise DataError(
            f"{folder}: {len(vectors)} files in img_emb, {len(metadata)} in metadata, that don't pair up by number"
        )
    return [Shard(first, second) for first, second in zip(vectors, metadata, strict=True)]


def published_shards(folder: Path) -> Iterator[Shard]:
    """The pairs of a finished collection in order, each compared with the manifest before it is given.

    That reads every file once. Rows that stand beside other vectors than their own are nothing that names, sizes
    and numbers of rows would tell.

    Raises:
        DataError: The collection isn't finished, or a file is missing, is one too many or is not as published.
    """
    manifest = read_manifest(folder)
    records = {folder / record.path: record for record in manifest.files}
    pairs = shards(folder)
    there = {path for shard in pairs for path in (shard.vectors_path, shard.metadata_path)}
    said = {path for path in records if path.parent.name in ("img_emb", "metadata")}
    if there != said:
        path = min(there ^ said)
        raise DataError(
            f"{path}: {'missing' if path in said else 'not one of those published'}; put the folder back as it was,"
            " or embed again with --force"
        )
    for shard in pairs:
        for path in (shard.vectors_path, shard.metadata_path):
            require_published(folder, records[path])
        yield shard


def read_shards(folder: Path, schema: pa.Schema) -> Iterator[tuple[Vectors, pa.Table]]:
    """Each pair of a collection, read; of a finished one compared with its manifest first.

    Yields:
        Embeddings (n, d) float32, and their n rows of metadata.

    Raises:
        DataError: A pair is damaged, doesn't match, or is not as published.
    """
    finished = find_manifest(folder) is not None
    for shard in published_shards(folder) if finished else shards(folder):
        vectors, rows = shard.vectors(), shard.metadata(schema)
        if len(vectors) != rows.num_rows:
            raise DataError(
                f"{shard.vectors_path}: {len(vectors):,} vectors, {rows.num_rows:,} rows in {shard.metadata_path.name}"
            )
        yield vectors, rows
