"""The sets of embeddings that a release is compared by: concepts, the release, a random sample, plain top-k.

All come from what the stages stored. A set whose vectors aren't here (of a pool that is a server's, say) is
missing, with the reason.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa

from curation.candidates import Ints, column, read_candidates
from curation.verdicts import Verdicts
from spine.errors import DataError
from spine.manifest import find_manifest, read_manifest
from spine.run import Run, part_paths
from spine.settings import Config
from spine.shards import shards
from spine.table_files import read_table
from spine.tables import METADATA, Vectors, scores_schema, vectors_of

SAMPLE = 5_000
"""Pictures of a set at most: the figures' cost grows with the square."""

RELEASE, RANDOM, TOP_K = "release", "random sample of the pool", "top-k without filters"
HALF = "the concepts' other half"
"""Names of the sets. The concepts are split in two: one half is what all is compared with, the other shows how
near anything can come."""

_ID = pa.schema([METADATA.field("id")])


@dataclass(frozen=True, slots=True)
class ComparedSets:
    """Embeddings, rows of L2 norm 1."""

    concepts: Vectors
    """What the others are compared with, shape (n, d)."""
    sets: dict[str, Vectors]
    """By name."""
    missing: dict[str, str] = field(default_factory=dict)
    """Why a set isn't there, by name."""


def compared_sets(run: Run, released: Ints, config: Config, verdicts: Verdicts) -> ComparedSets | None:
    """Read the sets; None where the concepts' embeddings aren't here.

    Args:
        run: With finished scores.
        released: Ids of the release, shape (n,).
        config: [select] counts, for plain top-k.
        verdicts: With the quotas that centroids have of their own.
    """
    if find_manifest(run.concepts) is None:
        return None
    chance = np.random.default_rng(0)
    concepts = chance.permutation(_sampled(run.concepts, 2 * SAMPLE, chance))
    half = len(concepts) // 2
    sets, missing = {HALF: concepts[half:]}, {}
    sets[RELEASE] = _scored(run, _some(np.unique(released), chance))[1]
    pool = find_manifest(run.pool) is not None and not config.pool.index and not config.pool.server
    if pool:
        sets[RANDOM] = _sampled(run.pool, SAMPLE, chance)
    else:
        missing[RANDOM] = "the pool is an index or a server: its embeddings aren't stored in this run"
    top = _some(_top_k(run, config, verdicts), chance)
    found, vectors = _scored(run, top)
    if pool and len(found) < len(top):
        more = np.setdiff1d(top, found)
        vectors = np.concatenate([vectors, *(part for _, part in _stored(run.pool, more))])
    if len(vectors) < len(top):
        missing[TOP_K] = (
            f"{len(top) - len(vectors):,} of {len(top):,} sampled were not fetched and are left out"
        )
    sets[TOP_K] = vectors
    return ComparedSets(concepts[:half], {name: _unit(each) for name, each in sets.items()}, missing)


def _some(ids: Ints, chance: np.random.Generator) -> Ints:
    return np.sort(chance.choice(ids, SAMPLE, replace=False)) if len(ids) > SAMPLE else ids


def _top_k(run: Run, config: Config, verdicts: Verdicts) -> Ints:
    """The pictures that every centroid's quota would take by rank alone."""
    table = read_candidates(run)
    centroid, rank = column(table, "centroid_id"), column(table, "rank")
    quotas = verdicts.quotas(int(centroid.max(initial=-1)) + 1, config.select.quota_per_centroid)
    return np.unique(column(table, "id")[rank < quotas[centroid]])


def _scored(run: Run, ids: Ints) -> tuple[Ints, Vectors]:
    """Those of the ids that are scored, and their embeddings."""
    d = int(read_manifest(run.scores).facts["d"])
    schema = scores_schema(d)
    wanted = pa.schema([schema.field(name) for name in ("id", "embedding")])
    found, vectors = [np.empty(0, np.int64)], [np.empty((0, d), np.float32)]
    for path in part_paths(run.scores):
        table = read_table(path, wanted)
        inside = np.isin(column(table, "id"), ids)
        if inside.any():
            table = table.filter(pa.array(inside))
            found.append(column(table, "id"))
            vectors.append(vectors_of(table.column("embedding")))
    return np.concatenate(found), np.concatenate(vectors)


def _stored(folder: Path, ids: Ints) -> Iterator[tuple[Ints, Vectors]]:
    """Ids and embeddings of a collection's pictures that are asked for, shard by shard."""
    for shard in shards(folder):
        named = column(shard.metadata(_ID), "id")
        rows = np.flatnonzero(np.isin(named, ids))
        if len(rows):
            yield named[rows], _rows(shard.vectors_path, rows)


def _sampled(folder: Path, n: int, chance: np.random.Generator) -> Vectors:
    """Embeddings of up to n pictures of a collection, each as likely; only those rows are read."""
    paths = [shard.vectors_path for shard in shards(folder)]
    sizes = [len(_mapped(path)) for path in paths]
    total = sum(sizes)
    rows = np.sort(chance.choice(total, n, replace=False)) if total > n else np.arange(total)
    starts = np.concatenate([[0], np.cumsum(sizes)])
    parts = [
        _rows(path, rows[(rows >= start) & (rows < end)] - start)
        for path, start, end in zip(paths, starts[:-1].tolist(), starts[1:].tolist(), strict=True)
    ]
    return np.concatenate(parts) if parts else np.empty((0, 0), np.float32)


def _rows(path: Path, rows: Ints) -> Vectors:
    return np.asarray(_mapped(path)[rows], dtype=np.float32)


def _mapped(path: Path) -> Vectors:
    try:
        array: Vectors = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: can't be read ({error}); embed again with --force") from None
    return array


def _unit(vectors: Vectors) -> Vectors:
    """Rows of L2 norm 1: stored as float16 they are off by a little. Rows that have no direction are left out."""
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    good = np.isfinite(norms[:, 0]) & (norms[:, 0] > 0)
    unit: Vectors = vectors[good] / norms[good]
    return unit
