"""The stage that asks the pool for each centroid's nearest pictures.

The neighbours of each block of centroids are kept in a hidden file: what was found stays found. An index with
lists answers all centroids in one pass over them, which keeps what it has found now and then; else block after
block is searched. Concepts that curators added are searched by themselves, so that one more costs its own search.
When all are there, every picture gets the facts that need the whole: which centroid it is nearest to, and
which other picture it nearly repeats. Only then the parts are published.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from index_builder.metadata.picture_facts import JUDGED_BY, PictureFacts, picture_facts
from index_builder.metadata.predicates import Predicate
from index_builder.metadata.side_tables import (
    COLUMNS,
    SIDE_VALUES,
    SideTable,
    digest_of,
    filled,
    read_side_values,
    side_tables,
    told,
)
from index_builder.numerics.unit_vectors import pulled, unit_rows
from index_builder.retrieval.block_search import PASS_FILE, answer_blocks
from index_builder.retrieval.pools import Pool, Question, open_pool, pool_digests
from index_builder.scoring.heads import load_rating_vector
from spine.added_centroids import added_centroids, added_digest, read_centroids
from spine.config import load_config
from spine.errors import ConfigError, DataError
from spine.filters import judge
from spine.manifest import Manifest, find_manifest, read_manifest
from spine.progress import SILENT, Progress
from spine.publish import publish_table
from spine.run import Run, part_path
from spine.settings import Config
from spine.stage import Stage
from spine.table_files import read_table
from spine.tables import METADATA, NEIGHBOURS, SEARCHED, Vectors, vectors_of

BLOCK = 256
"""Centroids in a part."""

SEARCHED_FILE = "searched.parquet"
"""What was searched for each centroid, see `spine.tables.SEARCHED`."""

_FOUND = pa.schema(
    [
        *[NEIGHBOURS.field(name) for name in ("centroid_id", "rank", "similarity")],
        pa.field("row", pa.int64()),
        *METADATA,
    ]
)


_SEARCHED = pa.schema([SEARCHED.field(name) for name in ("centroid_id", "lists")])


def retrieve(run: Run, *, force: bool = False, progress: Progress = SILENT) -> Manifest:
    """Find each centroid's neighbours in the pool.

    Reads centroids/ and index/, or the index folder or server that [pool] names; writes neighbours/: its parts,
    and what was searched for each centroid (SEARCHED_FILE).
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
    # What LAION says counts before what our heads made of the pool's vectors.
    scored = [str(run.pool_scores)] if find_manifest(run.pool_scores) is not None else []
    tables = side_tables([*config.pool.side_tables, *scored])
    shift, added = _shift(config, int(source.facts["d"])), added_centroids(run)
    inputs = {"centroids": source.digest, **pool_digests(run, config)}
    if tables:
        inputs["side_tables"] = digest_of(tables)
    if shift is not None:
        inputs["rating_vector"] = hashlib.sha256(shift.tobytes()).hexdigest()
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
    counts = _publish_parts(run.neighbours, paths, ids, facts, side, config)
    manifest = stage.finish(counts, _facts(config, source, side))
    _tidy(run.neighbours, paths)
    progress.end()
    return manifest


def _facts(config: Config, source: Manifest, side: pa.Table | None) -> dict[str, Any]:
    """What the manifest says beside the counts."""
    facts = {
        "k": config.retrieve.k,
        "d": source.facts["d"],
        "model": source.facts.get("model"),
        "demo_models": bool(source.facts.get("demo_models", False)),
    }
    return facts if side is None else facts | {"side_tables": told(side)}


def explain_retrieve(run: Run) -> str:
    """How `retrieve` would search, and why; nothing is searched or written.

    Raises:
        ConfigError: As `retrieve`.
        DataError: As `retrieve`.
        ServiceError: As `retrieve`.
    """
    config = load_config(run.config)
    source = read_manifest(run.centroids)
    with open_pool(run, config) as pool:
        return pool.explain(int(source.counts["centroids"]), _question(config))


def _parameters(config: Config) -> dict[str, Any]:
    query = config.retrieve.aesthetic_query
    filters = {"prefilter": asdict(config.filters)} if config.retrieve.prefilter else {}
    return filters | {
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
        queries = pulled(queries, shift)
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
    done = [number for number, path in enumerate(paths) if path.exists() and _searched_path(path).exists()]
    keep = paths[0].with_name(PASS_FILE)
    for number, answers in answer_blocks(pool, queries, _question(config), BLOCK, done, progress, keep):
        some = ids[number * BLOCK : (number + 1) * BLOCK]
        _publish_block(_searched_path(paths[number]), answers.searched, some, _SEARCHED)
        _publish_block(paths[number], answers.neighbours, some, _FOUND)
    keep.unlink(missing_ok=True)


def _question(config: Config) -> Question:
    """What is asked for each centroid."""
    predicate = Predicate()
    if config.retrieve.prefilter:
        # Whatever [filters] unknown says: what the pool doesn't know, the picture itself may tell.
        predicate = Predicate(filters=replace(config.filters, unknown="keep"))
    return Question(k=config.retrieve.k, nprobe=config.retrieve.nprobe, predicate=predicate)


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


def _publish_block(path: Path, found: pa.Table, ids: list[int], schema: pa.Schema) -> None:
    """Keep what was found for a block; its query numbers count from the first of `ids`."""
    centroid = np.asarray(ids, dtype=np.int32)[found.column("query").to_numpy()]
    found = found.append_column("centroid_id", pa.array(centroid, pa.int32()))
    publish_table(path, found.select(schema.names).cast(schema))


def _publish_parts(
    folder: Path,
    paths: Sequence[Path],
    ids: list[int],
    facts: PictureFacts,
    side: pa.Table | None,
    config: Config,
) -> dict[str, int]:
    """Write the parts and what was searched, and count."""
    start, neighbours, short = 0, 0, 0
    searched = [SEARCHED.empty_table()]
    for number, path in enumerate(paths):
        found = filled(read_table(path, _FOUND), side)
        inside = slice(start, start + found.num_rows)
        table = _part(found, facts, inside)
        publish_table(part_path(folder, number), table)
        searched.append(_with_yield(read_table(_searched_path(path), _SEARCHED), table, config))
        short += int(np.count_nonzero(searched[-1].column("found").to_numpy() < config.retrieve.k))
        start, neighbours = inside.stop, neighbours + table.num_rows
    publish_table(folder / SEARCHED_FILE, pa.concat_tables(searched))
    return {
        "centroids": len(ids),
        "neighbours": neighbours,
        "repeated": start - neighbours,
        "pictures": facts.pictures,
        "short": short,
    }


def _with_yield(searched: pa.Table, part: pa.Table, config: Config) -> pa.Table:
    """SEARCHED of a block: how many neighbours are listed, and what share of them may be selected."""
    centroids, of_row = searched.column("centroid_id").to_numpy(), part.column("centroid_id").to_numpy()
    order = np.argsort(centroids)
    place = order[np.searchsorted(centroids, of_row, sorter=order)]
    listed = np.bincount(place, minlength=len(centroids))
    hopeful = np.bincount(place, weights=_hopeful(part, config), minlength=len(centroids))
    share = pa.array(hopeful / np.maximum(listed, 1), pa.float32(), mask=listed == 0)
    columns = [searched.column("centroid_id"), searched.column("lists"), pa.array(listed, pa.int32()), share]
    return pa.table(columns, schema=SEARCHED)


def _hopeful(part: pa.Table, config: Config) -> npt.NDArray[np.bool_]:
    """Which rows of a part may be selected for their centroid, as far as is known before they are fetched."""
    hopeful = judge(part, replace(config.filters, unknown="keep")).passed
    hopeful &= part.column("duplicate_of").is_null().to_numpy()
    if config.select.one_centroid_per_image:
        hopeful &= part.column("best_centroid").to_numpy() == part.column("centroid_id").to_numpy()
    return hopeful


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


def _searched_path(found: Path) -> Path:
    """The hidden file of what was searched for the centroids of a block."""
    return found.with_name(found.name.replace(".found-", ".searched-"))


def _tidy(folder: Path, paths: Sequence[Path]) -> None:
    """Remove what was found for other added centroids; what still holds stays for the next one that is added."""
    there = {path for name in ("found", "searched", "side") for path in folder.glob(f".{name}-*.parquet")}
    for path in there.difference(paths, map(_searched_path, paths)):
        path.unlink()
