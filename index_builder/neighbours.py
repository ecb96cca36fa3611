"""The stage that asks the pool for each centroid's nearest pictures.

The neighbours of each block of centroids are kept in a hidden file: what was found stays found. An index with
lists answers all centroids in one pass over them, which starts over if it is stopped; else block after block
is searched. Concepts that curators added are searched by themselves, so that one more costs its own search.
When all are there, every picture gets the facts that need the whole: which centroid it is nearest to, and
which other picture it nearly repeats. Only then the parts are published.
"""

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from index_builder.heads import load_rating_vector
from index_builder.picture_facts import JUDGED_BY, PictureFacts, picture_facts
from index_builder.pools import Pool, open_pool, pool_digests
from index_builder.side_tables import (
    COLUMNS,
    SIDE_VALUES,
    SideTable,
    digest_of,
    filled,
    read_side_values,
    side_tables,
    told,
)
from index_builder.unit_vectors import unit_rows
from spine.added_centroids import added_centroids, added_digest, read_centroids
from spine.config import load_config
from spine.errors import ConfigError, DataError
from spine.progress import SILENT, Progress
from spine.publish import publish_table
from spine.run import Run, part_path
from spine.settings import Config
from spine.stage import Manifest, Stage, read_manifest
from spine.tables import METADATA, NEIGHBOURS, Vectors, read_table, vectors_of

BLOCK = 256
"""Centroids in a part."""


_FOUND = pa.schema(
    [
        *[NEIGHBOURS.field(name) for name in ("centroid_id", "rank", "similarity")],
        pa.field("row", pa.int64()),
        *METADATA,
    ]
)


def retrieve(run: Run, *, force: bool = False, progress: Progress = SILENT) -> Manifest:
    """Find each centroid's neighbours in the pool.

    Reads centroids/ and index/, or the index folder or server that [pool] names; writes neighbours/.
    With an aesthetic weight each query is q' = normalise(q + weight * rating vector).

    Args:
        run: Its [retrieve], [pool] and [score] settings count, and [select] near_duplicate.
        force: Start over.
        progress: Told of centroids searched.

    Returns:
        Counts: centroids, neighbours (rows), repeated (a picture that a centroid found twice under one
        id, left out), pictures (different ones), short (centroids with fewer than k neighbours).

    Raises:
        ConfigError: A setting is wrong or missing.
        DataError: centroids/ or index/ isn't finished, or they don't fit together.
        ModelError: The rating vector can't be read, or doesn't fit.
        ServiceError: The server can't be reached, or refuses.
    """
    config = load_config(run.config)
    source = read_manifest(run.centroids)
    inputs = {"centroids": source.digest, **pool_digests(run, config)}
    tables = side_tables(config.pool.side_tables)
    if tables:
        inputs["side_tables"] = digest_of(tables)
    shift = _shift(config, int(source.facts["d"]))
    if shift is not None:
        inputs["rating_vector"] = hashlib.sha256(shift.tobytes()).hexdigest()
    added = added_centroids(run)
    if added:  # a run without any stays up to date
        inputs["added"] = added_digest(added)
    stage = Stage.open(
        "neighbours", run.neighbours, _parameters(config), inputs, grows_with={"added"}, force=force
    )
    ids, queries = _queries(run, shift)
    own = len(ids) - len(added)
    paths = _found_paths(run.neighbours, own, len(added), inputs.get("added", ""))
    if stage.published is not None:
        _tidy(run.neighbours, paths)
        return stage.published
    own_blocks = -(-own // BLOCK)
    with open_pool(run, config) as pool:
        _check_fit(pool, source, progress)
        _search(paths[:own_blocks], ids[:own], queries[:own], pool, config, progress)
        _search(paths[own_blocks:], ids[own:], queries[own:], pool, config, progress)
        side = _side_values(_side_path(run.neighbours, inputs), paths, tables, progress)
        facts = picture_facts(
            pa.concat_tables(filled(read_table(path, JUDGED_BY), side) for path in paths),
            config.select.near_duplicate,
            pool.vectors,
        )
    counts = _publish_parts(run.neighbours, paths, ids, facts, side, config.retrieve.k)
    manifest = stage.finish(
        counts,
        ({} if side is None else {"side_tables": told(side)})
        | {
            "k": config.retrieve.k,
            "d": queries.shape[1],
            "model": source.facts.get("model"),
            "demo_models": bool(source.facts.get("demo_models", False)),
        },
    )
    _tidy(run.neighbours, paths)
    progress.end()
    return manifest


def _parameters(config: Config) -> dict[str, Any]:
    query = config.retrieve.aesthetic_query
    return {
        "k": config.retrieve.k,
        "nprobe": config.retrieve.nprobe,
        "aesthetic_query": {"rating": query.rating, "weight": query.weight} if query.weight else None,
        "near_duplicate": config.select.near_duplicate,
        "pool": {
            "index": config.pool.index,
            "server": config.pool.server,
            "indice_name": config.pool.indice_name,
        },
    }


def _shift(config: Config, d: int) -> Vectors | None:
    """What is added to each query, shape (d,); None for nothing."""
    query, folder = config.retrieve.aesthetic_query, config.score.aesthetic_query_vectors
    if not query.weight:
        return None
    if not folder:
        raise ConfigError(
            f"[retrieve] aesthetic_query has weight {query.weight:g}, which needs [score] aesthetic_query_vectors:"
            " name the folder with rating0.npy to rating9.npy, or set the weight to 0"
        )
    shift: Vectors = np.float32(query.weight) * load_rating_vector(folder, query.rating, d)
    return shift


def _queries(run: Run, shift: Vectors | None) -> tuple[list[int], Vectors]:
    """Ids of the centroids, the added ones last, and the unit vectors to search with."""
    table = read_centroids(run, ["centroid_id", "embedding"])
    queries = unit_rows(vectors_of(table.column("embedding")))
    if shift is not None:
        queries = queries + shift
        norms = np.linalg.norm(queries, axis=1, keepdims=True)
        if (norms < 1e-3).any():
            raise ConfigError("[retrieve] aesthetic_query cancels a centroid out; choose another weight")
        queries = queries / norms
    return table.column("centroid_id").to_pylist(), queries


def _check_fit(pool: Pool, source: Manifest, progress: Progress) -> None:
    d, model = source.facts["d"], source.facts.get("model")
    if pool.d is not None and pool.d != d:
        raise DataError(
            f"the index has d = {pool.d}, the centroids have d = {d}: they are of different models"
        )
    if pool.model is None:
        progress.say(f"the pool doesn't say which CLIP model made its vectors; the centroids are of {model}")
    elif pool.model != model:
        raise DataError(
            f"the index is of CLIP model {pool.model}, the centroids are of {model}; embed both with the same"
        )


def _search(
    paths: Sequence[Path],
    ids: list[int],
    queries: Vectors,
    pool: Pool,
    config: Config,
    progress: Progress,
) -> None:
    """Search the blocks that have no file yet."""
    if not ids:
        return
    blocks = [slice(start, start + BLOCK) for start in range(0, len(ids), BLOCK)]
    waiting = [(path, block) for path, block in zip(paths, blocks, strict=True) if not path.exists()]
    left = sum(len(ids[block]) for _, block in waiting)
    progress.begin("retrieve", len(ids), "centroids", done=len(ids) - left)
    if waiting and pool.answers_together(len(ids), config.retrieve.nprobe):
        # All again, after a stop too: a product's last bit depends on what it is multiplied with.
        tables = pool.search(queries, config.retrieve.k, config.retrieve.nprobe, BLOCK)
        for path, block, found in zip(paths, blocks, tables, strict=True):
            if not path.exists():
                _publish_found(path, found, ids)
                progress.advance(len(ids[block]))
        return
    for path, block in waiting:
        for found in pool.search(queries[block], config.retrieve.k, config.retrieve.nprobe, BLOCK):
            _publish_found(path, found, ids[block])
        progress.advance(len(ids[block]))


def _side_values(
    path: Path, found: Sequence[Path], tables: list[SideTable], progress: Progress
) -> pa.Table | None:
    """What the side tables say of the pictures found; kept, since reading them may take long. None without any."""
    if not tables:
        return None
    if not path.exists():
        only_id = pa.schema([METADATA.field("id")])
        parts = [np.unique(read_table(each, only_id).column("id").to_numpy()) for each in found]
        ids = np.unique(np.concatenate(parts)) if parts else np.empty(0, dtype=np.int64)
        progress.say(f"looking {len(ids):,} pictures up in {len(tables):,} side tables")
        publish_table(path, read_side_values(tables, ids))
    side = read_table(path, SIDE_VALUES)
    counts = told(side)
    columns = ", ".join(f"{name} {counts[name]:,}" for name in COLUMNS if counts[name])
    progress.say(
        f"side tables know {counts['matched']:,} of {counts['pictures']:,} pictures: {columns or 'nothing'}"
    )
    return side


def _publish_found(path: Path, found: pa.Table, ids: list[int]) -> None:
    """Keep what was found; its query numbers count from the first of `ids`."""
    centroid = np.asarray(ids, dtype=np.int32)[found.column("query").to_numpy()]
    found = found.append_column("centroid_id", pa.array(centroid, pa.int32()))
    publish_table(path, found.select(_FOUND.names).cast(_FOUND))


def _publish_parts(
    folder: Path, paths: Sequence[Path], ids: list[int], facts: PictureFacts, side: pa.Table | None, k: int
) -> dict[str, int]:
    """Write the parts, and count."""
    start, neighbours = 0, 0
    sizes = dict.fromkeys(ids, 0)
    for number, path in enumerate(paths):
        found = filled(read_table(path, _FOUND), side)
        inside = slice(start, start + found.num_rows)
        table = _part(found, facts, inside)
        publish_table(part_path(folder, number), table)
        for centroid, size in zip(*np.unique(table.column("centroid_id"), return_counts=True), strict=True):
            sizes[int(centroid)] += int(size)
        start, neighbours = inside.stop, neighbours + table.num_rows
    return {
        "centroids": len(ids),
        "neighbours": neighbours,
        "repeated": start - neighbours,
        "pictures": facts.pictures,
        "short": sum(size < k for size in sizes.values()),
    }


def _part(found: pa.Table, facts: PictureFacts, inside: slice) -> pa.Table:
    """One part: the facts beside what was found, repeated pictures left out, ranks without gaps."""
    best, duplicate_of = facts.best_centroid[inside], facts.duplicate_of.slice(inside.start, found.num_rows)
    found = found.append_column("best_centroid", pa.array(best, pa.int32()))
    found = found.append_column("duplicate_of", duplicate_of)
    found = found.filter(pa.array(facts.first[inside]))
    centroid = found.column("centroid_id").to_numpy()
    _, starts, sizes = np.unique(centroid, return_index=True, return_counts=True)
    rank = np.arange(len(centroid)) - np.repeat(starts, sizes)
    found = found.set_column(found.column_names.index("rank"), "rank", pa.array(rank, pa.int32()))
    return found.select(NEIGHBOURS.names).cast(NEIGHBOURS)


def _found_paths(folder: Path, own: int, added: int, digest: str) -> list[Path]:
    """The hidden files of the blocks; hidden, so that they are no part of the table.

    Args:
        folder: The stage's.
        own: Centroids that k-means found; their blocks come first.
        added: Centroids that curators added.
        digest: Over those: with another one they are searched anew.
    """
    names = [f"{number:05d}" for number in range(-(-own // BLOCK))]
    names += [f"added-{digest[:16]}-{number:05d}" for number in range(-(-added // BLOCK))]
    return [folder / f".found-{name}.parquet" for name in names]


def _side_path(folder: Path, inputs: Mapping[str, str]) -> Path:
    """The hidden file of what side tables say of the pictures found for these centroids."""
    return folder / f".side-{inputs.get('added', 'none')[:16]}.parquet"


def _tidy(folder: Path, paths: Sequence[Path]) -> None:
    """Remove what was found for other added centroids; what still holds stays for the next one that is added."""
    for path in {*folder.glob(".found-*.parquet"), *folder.glob(".side-*.parquet")}.difference(paths):
        path.unlink()
