"""The tables of a run as the board reads them: each read once, and again when its stage is published anew.

Only finished stages are read. Where a stage has not run, or is at work, its rows are missing and the
board says so. Tables with a row a picture are mapped from a cache (`ui.mapped_tables`); nothing else is written.
"""

import functools
import threading
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.parquet as pq

from spine.added_centroids import read_centroids
from spine.config import load_config
from spine.lists import BlockLists, ListsInForce, file_state
from spine.manifest import MANIFEST, Manifest, find_manifest
from spine.run import Run, part_paths
from spine.settings import Config
from spine.shards import shards
from spine.table_files import read_parts, read_table
from spine.tables import (
    CAPTIONS,
    EXEMPLARS,
    GROUPS,
    IMAGES,
    METADATA,
    NEIGHBOURS,
    POOL_SIMILARITIES,
    SELECTION,
    Vectors,
    vectors_of,
)
from ui.board import unsafe_limit
from ui.lookups import ORDER, ById, KeepOrder, Picture, Pictures
from ui.mapped_tables import TableCache
from ui.neighbour_groups import NeighbourGroups

_CENTROIDS = pa.schema(
    [
        ("centroid_id", pa.int32()),
        ("size", pa.int64()),
        ("label", pa.string()),
        ("exemplar_ids", pa.list_(pa.int64())),
        ("map_x", pa.float32()),
        ("map_y", pa.float32()),
        ("added_by", pa.string()),
    ]
)
_IMAGES = (
    *("id", "status", "reason", "message", "image_path", "url", "sha256", "md5", "pdq"),
    *("width", "height", "format"),
)
_SCORES = pa.schema(
    [
        ("id", pa.int64()),
        ("aesthetic", pa.float32()),
        ("aesthetic_model", pa.string()),
        ("unsafe", pa.float32()),
        ("watermark", pa.float32()),
        ("violence", pa.float32()),
    ]
)
_CAPTIONS = ("id", "status", "caption", "prompt_id", "model")
_EXEMPLARS = ("id", "image_path", "url", "sha256", "punsafe")

T = TypeVar("T")


class Snapshot:
    """The finished stages of a run, read when first asked for and again when published anew."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self._lists, self._tables = ListsInForce(run), TableCache(run.mapped_tables)
        self._lock = threading.RLock()
        self._kept: dict[str, tuple[tuple[int, ...], Any]] = {}

    def config(self) -> Config:
        """popfactory.toml as it stands.

        Raises:
            ConfigError: It is missing or wrong.
        """
        return self._once("config", (self.run.config,), lambda: load_config(self.run.config))

    def lists(self) -> BlockLists:
        """The block lists in force, read anew when a file of them changes.

        Raises:
            ConfigError: One can't be read; then no picture may be shown.
        """
        return self._lists.now()

    def manifest(self, folder: Path) -> Manifest | None:
        """A stage's manifest, None where it isn't finished."""
        return self._once(f"manifest {folder.name}", (folder / MANIFEST,), lambda: find_manifest(folder))

    def digest(self, folder: Path) -> str | None:
        """A stage's digest, None where it isn't finished."""

        def read() -> str | None:
            manifest = find_manifest(folder)
            return manifest.digest if manifest is not None else None

        return self._once(f"digest {folder.name}", (folder / MANIFEST,), read)

    def warm(self) -> None:
        """Read what the first page will ask for: of a large run that takes seconds."""
        for read in (self.centroids, self.neighbour_counts, self.selection, self.exemplars, self.images):
            read()
        for table in (self.scores, self.groups, self.captions, self.mean_aesthetics):
            table()
        self.find_picture("0" * 64)

    def centroids(self) -> pa.Table:
        """One row a centroid without its embedding, added ones last; empty where the stage isn't finished."""
        if self.manifest(self.run.centroids) is None:
            return _CENTROIDS.empty_table()
        # The folder's state changes with every concept that is added.
        return self._once(
            "centroids",
            (self.run.centroids / MANIFEST, self.run.added),
            lambda: read_centroids(self.run, _CENTROIDS.names),
        )

    def neighbour_counts(self) -> dict[int, int]:
        """Neighbours found for each centroid."""

        def count() -> dict[int, int]:
            column = read_parts(self.run.neighbours, NEIGHBOURS, ["centroid_id"]).column("centroid_id")
            return {int(pair["values"]): int(pair["counts"]) for pair in column.value_counts().to_pylist()}

        return self._stage("neighbour counts", self.run.neighbours, count, {})

    def mean_aesthetics(self) -> dict[int, float]:
        """Mean aesthetic score of each centroid's scored neighbours; those without any are left out."""

        def read() -> dict[int, float]:
            scores = self.scores()
            values = scores.table.column("aesthetic").to_numpy()
            sums, counts = np.zeros(0), np.zeros(0)
            for path in part_paths(self.run.neighbours):
                part = read_table(path, _narrowed(NEIGHBOURS, ("centroid_id", "id")))
                places = scores.places(part.column("id").to_numpy())
                found = values[places[places >= 0]].astype(np.float64)
                centroids = part.column("centroid_id").to_numpy()[places >= 0][~np.isnan(found)]
                found = found[~np.isnan(found)]
                length = max(len(sums), int(centroids.max(initial=-1)) + 1)
                sums = np.pad(sums, (0, length - len(sums))) + np.bincount(centroids, found, length)
                counts = np.pad(counts, (0, length - len(counts))) + np.bincount(centroids, minlength=length)
            return {int(each): float(sums[each] / counts[each]) for each in np.flatnonzero(counts)}

        if self.manifest(self.run.neighbours) is None or self.manifest(self.run.scores) is None:
            return {}
        made_of = (self.run.neighbours / MANIFEST, self.run.scores / MANIFEST)
        return self._once("mean aesthetics", made_of, read)

    def centroid_embeddings(self) -> tuple[npt.NDArray[np.int64], Vectors]:
        """Centroid ids, shape (k,), and their unit vectors, shape (k, d)."""

        def read() -> tuple[npt.NDArray[np.int64], Vectors]:
            table = read_centroids(self.run, ["centroid_id", "embedding"])
            ids = np.asarray(table.column("centroid_id").to_numpy(), dtype=np.int64)
            return ids, vectors_of(table.column("embedding"))

        if self.manifest(self.run.centroids) is None:
            return np.empty(0, np.int64), np.empty((0, 1), np.float32)
        return self._once("centroid embeddings", (self.run.centroids / MANIFEST, self.run.added), read)

    def picture_embedding(self, picture_id: int) -> Vectors | None:
        """A scored picture's unit vector, shape (d,); None where it has none."""
        if self.manifest(self.run.scores) is None:
            return None
        for path in part_paths(self.run.scores):
            with pq.ParquetFile(path, page_checksum_verification=True) as file:
                ids = file.read(columns=["id"]).column("id")
                place = pc.index(ids, picture_id).as_py()
                if place >= 0:
                    column = file.read(columns=["embedding"]).column("embedding").slice(place, 1)
                    vector = vectors_of(column)[0]
                    return np.asarray(vector / np.linalg.norm(vector), dtype=np.float32)
        return None

    def neighbours(self, centroid_id: int) -> pa.Table:
        """A centroid's neighbours in order of rank, read from disk or kept from lately; empty where there are none."""
        groups = self._stage(
            "neighbours by centroid",
            self.run.neighbours,
            lambda: NeighbourGroups(part_paths(self.run.neighbours)),
            None,
        )
        return NEIGHBOURS.empty_table() if groups is None else groups.of(centroid_id)

    def pool_rows(self, centroids: Collection[int], ids: Collection[int], columns: Sequence[str]) -> pa.Table:
        """What the pool says of some pictures that these centroids have, as neighbours or found, read from disk.

        Args:
            centroids: Their ids.
            ids: Of the pictures.
            columns: Of NEIGHBOURS, beside centroid_id and id.
        """
        wanted = ds.field("centroid_id").isin(list(centroids)) & ds.field("id").isin(list(ids))
        names = ("centroid_id", "id", *columns)
        return self._neighbours(wanted, pa.schema([NEIGHBOURS.field(name) for name in names]))

    def _neighbours(self, wanted: ds.Expression, schema: pa.Schema) -> pa.Table:
        found = [self.run.found_table] if self.run.found_table.is_file() else []
        paths = [str(path) for path in (*part_paths(self.run.neighbours), *found)]
        if self.manifest(self.run.neighbours) is None or not paths:
            return schema.empty_table()
        options = ds.ParquetFragmentScanOptions(page_checksum_verification=True)
        parts = ds.dataset(
            paths, schema=NEIGHBOURS, format=ds.ParquetFileFormat(default_fragment_scan_options=options)
        )
        return parts.to_table(filter=wanted, columns=schema.names)

    def images(self) -> ById:
        """Fetched pictures and failures, by id."""
        schema = _narrowed(IMAGES, _IMAGES)
        return self._mapped("images", self.run.images, schema, lambda: _parts(self.run.images, schema))

    def scores(self) -> ById:
        """Scores by id."""
        return self._mapped("scores", self.run.scores, _SCORES, lambda: _parts(self.run.scores, _SCORES))

    def pool_similarities(self) -> ById:
        """How like the pool's own embedding each scored picture is, by id."""
        path = self.run.pool_similarities_table

        def parts() -> list[pa.Table]:
            return [read_table(path, POOL_SIMILARITIES)] if path.is_file() else []

        return self._mapped("pool similarities", self.run.scores, POOL_SIMILARITIES, parts)

    def groups(self) -> ById:
        """Near-duplicate groups by id."""
        return self._mapped(
            "groups", self.run.scores, GROUPS, lambda: [read_table(self.run.groups_table, GROUPS)]
        )

    def selection(self) -> pa.Table:
        """Every candidate with its verdict, in order of centroid and rank; empty where nothing was selected yet."""
        return self._stage(
            "selection",
            self.run.selection,
            lambda: self._tables.table(
                "selection",
                file_state(self.run.selection / MANIFEST),
                SELECTION,
                lambda: [read_table(self.run.selection_table, SELECTION)],
            ),
            SELECTION.empty_table(),
        )

    def selection_of(self, centroid_id: int) -> pa.Table:
        """The candidates of one centroid with their verdicts."""
        table = self.selection()

        def spans() -> dict[int, tuple[int, int]]:
            column = table.column("centroid_id").to_numpy()
            numbers, firsts, counts = np.unique(column, return_index=True, return_counts=True)
            return {
                int(number): (int(first), int(count))
                for number, first, count in zip(numbers, firsts, counts, strict=True)
            }

        none: dict[int, tuple[int, int]] = {}
        known = self._stage("spans of the selection", self.run.selection, spans, none)
        return table.slice(*known.get(centroid_id, (0, 0)))

    def first_selected(self) -> dict[int, int]:
        """Of each centroid that has any the nearest selected picture."""

        def read() -> dict[int, int]:
            table = self.selection()
            chosen = table.filter(pc.equal(table.column("verdict"), "selected"))
            numbers, firsts = np.unique(chosen.column("centroid_id").to_numpy(), return_index=True)
            ids = chosen.column("id").to_numpy()[firsts]
            return dict(zip(numbers.tolist(), ids.tolist(), strict=True))

        none: dict[int, int] = {}
        return self._stage("first selected", self.run.selection, read, none)

    def is_unsafe(self, picture_id: int) -> bool:
        """Whether a picture is blurred until it is revealed: unsafe, or without a score."""
        found = self.scores().rows(np.array([picture_id], dtype=np.int64)).column("unsafe")[0].as_py()
        return found is None or found > unsafe_limit(self.config().filters)

    def captions(self) -> ById:
        """Captions by picture id, of several the last."""
        schema = _narrowed(CAPTIONS, _CAPTIONS)

        def captioned() -> Iterator[pa.Table]:
            for part in _parts(self.run.captions, schema):
                yield part.filter(pc.equal(part.column("status"), "captioned"))

        return self._mapped("captions", self.run.captions, schema, captioned)

    def exemplars(self) -> ById:
        """The concept pictures that stand for a centroid, by id."""

        def read() -> ById:
            wanted = pc.unique(pc.list_flatten(self.centroids().column("exemplar_ids")))
            tables = []
            for shard in shards(self.run.concepts):
                present = set(pq.read_schema(shard.metadata_path).names)
                table = shard.metadata(_narrowed(METADATA, [name for name in _EXEMPLARS if name in present]))
                for name in _EXEMPLARS:
                    if name not in table.column_names:
                        table = table.append_column(name, pa.nulls(table.num_rows, METADATA.field(name).type))
                tables.append(table.select(list(_EXEMPLARS)).filter(pc.is_in(table.column("id"), wanted)))
            return ById(pa.concat_tables(tables)) if tables else _nothing(_narrowed(METADATA, _EXEMPLARS))

        return self._stage("exemplars", self.run.centroids, read, _nothing(_narrowed(METADATA, _EXEMPLARS)))

    def exemplar_scores(self) -> ById:
        """How unsafe the exemplars are, by id; known once the score stage is done."""

        def read() -> ById:
            there = self.run.exemplars_table.is_file()
            return ById(read_table(self.run.exemplars_table, EXEMPLARS)) if there else missing

        missing = _nothing(EXEMPLARS)
        return self._stage("exemplar scores", self.run.scores, read, missing)

    def find_picture(self, sha256: str) -> Picture | None:
        """The fetched picture or exemplar with this hash, None where there is none."""

        def fetched() -> Pictures:
            return Pictures(self.images().table, self._keep("images by hash", self.run.images))

        def shown() -> Pictures:
            return Pictures(self.exemplars().table)

        found = None
        if self.manifest(self.run.images) is not None:
            found = self._once("images by hash", (self.run.images / MANIFEST,), fetched).find(sha256)
        if found is None and self.manifest(self.run.centroids) is not None:
            found = self._once("exemplars by hash", (self.run.centroids / MANIFEST,), shown).find(sha256)
        return found

    def _mapped(
        self, name: str, folder: Path, schema: pa.Schema, parts: Callable[[], Iterable[pa.Table]]
    ) -> ById:
        """A table with a row a picture."""

        def read() -> ById:
            table = self._tables.table(name, file_state(folder / MANIFEST), schema, parts)
            return ById(table, self._keep(f"{name} by id", folder))

        return self._stage(name, folder, read, _nothing(schema))

    def _keep(self, name: str, folder: Path) -> KeepOrder:
        state = file_state(folder / MANIFEST)
        return lambda order: self._tables.table(name, state, ORDER, lambda: [order()])

    def _stage(self, name: str, folder: Path, read: Callable[[], T], missing: T) -> T:
        if self.manifest(folder) is None:
            return missing
        return self._once(name, (folder / MANIFEST,), read)

    def _once(self, name: str, paths: tuple[Path, ...], read: Callable[[], T]) -> T:
        """What `read` gave, until one of the files changes."""
        state = tuple(number for path in paths for number in file_state(path))
        with self._lock:
            kept = self._kept.get(name)
            if kept is not None and kept[0] == state:
                value: T = kept[1]
                return value
            value = read()
            self._kept[name] = (state, value)
            return value


@functools.cache
def _nothing(schema: pa.Schema) -> ById:
    return ById(schema.empty_table())


def _parts(folder: Path, schema: pa.Schema) -> Iterator[pa.Table]:
    return (read_table(path, schema) for path in part_paths(folder))


def _narrowed(schema: pa.Schema, columns: Sequence[str]) -> pa.Schema:
    return pa.schema([schema.field(name) for name in columns])
