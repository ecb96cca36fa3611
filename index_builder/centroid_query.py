"""Neighbours of other people's centroids, without a run: a file in, Parquet parts out.

The same search as the stage `retrieve`, without the facts that a selection needs.
"""

import hashlib
import json
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from index_builder.bulk_query import BLOCK
from index_builder.numerics.unit_vectors import pulled
from index_builder.retrieval.block_search import PASS_FILE, answer_blocks
from index_builder.retrieval.centroid_files import CentroidFile, read_centroids
from index_builder.retrieval.pools import IndexPool, Pool, Question, ServerPool, folder_digest
from index_builder.scoring.heads import load_rating_vector
from spine.errors import DataError
from spine.manifest import Manifest
from spine.progress import SILENT, Progress
from spine.publish import publish_table, sha256_of, sole_writer
from spine.run import part_path
from spine.settings import AestheticQuery
from spine.stage import Stage, read_plan

STAGE = "centroid-query"
"""Name in the manifest of the folder that is written."""

SEARCHED_FOLDER = "searched"
"""In it a part for each part of neighbours: what was searched for each centroid."""


def open_source(index: Path | None, server: str = "", indice_name: str = "") -> Pool:
    """An index folder, or else a server.

    Raises:
        DataError: The index can't be opened.
        ServiceError: The server can't be reached or has no such index.
    """
    return IndexPool(index) if index is not None else ServerPool(server, indice_name)


def retrieve_centroids(
    centroids: Path,
    out: Path,
    question: Question,
    *,
    index: Path | None = None,
    server: str = "",
    indice_name: str = "",
    aesthetic_query: AestheticQuery | None = None,
    rating_vectors: str = "",
    force: bool = False,
    progress: Progress = SILENT,
) -> Manifest:
    """Find the neighbours of the centroids in a file, and write them down.

    Writes part-*.parquet (centroid_id, rank, id, similarity and the columns asked for, in the order of the file and
    then of rank), searched/part-*.parquet (centroid_id, lists, found) and a manifest. Stopped and started again it
    goes on; finished, it does nothing.

    Args:
        centroids: As `read_centroids` reads it.
        out: A folder of its own: new, empty, or begun by this very work.
        question: What is asked of the pool for each centroid.
        index: An index folder to search.
        server: Address of a server to search, where `index` is None.
        indice_name: Which of the server's indices; empty is its first.
        aesthetic_query: Pull each centroid towards beautiful pictures, see `spine.settings`; None doesn't.
        rating_vectors: Folder with rating0.npy to rating9.npy, or "demo"; needed with `aesthetic_query`.
        force: Start over what other work of this kind left in `out`.
        progress: Told of centroids searched.

    Returns:
        Counts: centroids, neighbours (rows), short (centroids with fewer than k neighbours).

    Raises:
        ConfigError: The pool can't do what is asked.
        DataError: The centroids, the index or `out` isn't what it should be, or another command writes to `out`.
        ModelError: The rating vector can't be read, or doesn't fit.
        ServiceError: The server can't be reached, or refuses.
    """
    asked, inputs = _asked(centroids, index, aesthetic_query, rating_vectors)
    parameters = _parameters(question, server, indice_name)
    if _begun(out, parameters, inputs, force=force):
        with sole_writer(out):
            stage = Stage.open(STAGE, out, parameters, inputs)
        if stage.published is not None:
            return stage.published
    with open_source(index, server, indice_name) as pool:
        check_fit(centroids, asked, pool, question)
        with sole_writer(out):
            stage = Stage.open(STAGE, out, parameters, inputs, force=force)
            counts = _search(out, asked, pool, question, progress)
            facts = {"k": question.k, "d": asked.vectors.shape[1], "model": pool.model}
            manifest = stage.finish(counts, facts)
    progress.end()
    return manifest


def _asked(
    centroids: Path, index: Path | None, aesthetic_query: AestheticQuery | None, rating_vectors: str
) -> tuple[CentroidFile, dict[str, str]]:
    """The vectors to search with, and what tells these and the index from others."""
    asked = read_centroids(centroids)
    inputs = {"centroids": sha256_of(centroids)}
    if aesthetic_query is not None:
        rating = load_rating_vector(rating_vectors, aesthetic_query.rating, asked.vectors.shape[1])
        shift = np.float32(aesthetic_query.weight) * rating
        asked = replace(asked, vectors=pulled(asked.vectors, shift))
        inputs["shift"] = hashlib.sha256(shift.tobytes()).hexdigest()
    if index is not None:
        inputs["index"] = folder_digest(index)
    return asked, inputs


def _parameters(question: Question, server: str, indice_name: str) -> dict[str, Any]:
    """The question as the manifest has it."""
    parameters = {each.name: getattr(question, each.name) for each in fields(question)}
    parameters |= {"predicate": question.predicate.parameters(), "columns": list(question.columns)}
    parameters |= {"work": STAGE, "server": server, "indice_name": indice_name, "block": BLOCK}
    plain: dict[str, Any] = json.loads(json.dumps(parameters))
    return plain


def explain_centroids(
    centroids: Path,
    question: Question,
    *,
    index: Path | None = None,
    server: str = "",
    indice_name: str = "",
) -> str:
    """How `retrieve_centroids` would search, and why; nothing is searched or written.

    Raises:
        ConfigError: As `retrieve_centroids`.
        DataError: As `retrieve_centroids`.
        ServiceError: As `retrieve_centroids`.
    """
    asked = read_centroids(centroids)
    with open_source(index, server, indice_name) as pool:
        check_fit(centroids, asked, pool, question)
        return pool.explain(len(asked.ids), question)


def check_fit(path: Path, asked: CentroidFile, pool: Pool, question: Question) -> None:
    """See that centroids, pool and question belong together, before anything is searched.

    Raises:
        ConfigError: The pool can't do what is asked.
        DataError: They don't.
    """
    if pool.d is not None and pool.d != asked.vectors.shape[1]:
        raise DataError(
            f"{path}: d = {asked.vectors.shape[1]}, the index has d = {pool.d}; vectors of one model were needed"
        )
    pool.check(question)


def _begun(out: Path, parameters: dict[str, Any], inputs: dict[str, str], *, force: bool) -> bool:
    """Whether `out` holds the beginning, or all, of this very work, and it isn't to start over."""
    begun = _plan_there(out)
    if begun is None or force:
        return False
    if begun.get("parameters") != parameters or begun.get("inputs") != inputs:
        raise DataError(
            f"{out}: holds what other centroids, another index or other options gave; name another folder, or start"
            " over with --force"
        )
    return True


def _plan_there(out: Path) -> dict[str, Any] | None:
    """What this kind of work began in `out`; None where it is new or empty. What is not of this kind stays as it is."""
    if out.exists() and not out.is_dir():
        raise DataError(f"{out}: is a file; a folder was needed")
    if not out.is_dir() or not any(out.iterdir()):
        return None
    begun = read_plan(out)
    if not isinstance(begun, dict) or begun.get("parameters", {}).get("work") != STAGE:
        raise DataError(f"{out}: holds other files; name a new or empty folder")
    return begun


def _search(
    out: Path, asked: CentroidFile, pool: Pool, question: Question, progress: Progress
) -> dict[str, int]:
    """Write the parts that aren't there yet, and count."""
    count = -(-len(asked.ids) // BLOCK)
    done = [number for number in range(count) if part_path(out, number).exists()]
    keep = out / PASS_FILE
    for number, answers in answer_blocks(pool, asked.vectors, question, BLOCK, done, progress, keep):
        ids = asked.ids[number * BLOCK : (number + 1) * BLOCK]
        # A part of neighbours is the sign that its block is done, so it comes last.
        publish_table(part_path(out / SEARCHED_FOLDER, number), _named(answers.searched, ids))
        neighbours = _named(answers.neighbours, ids)
        publish_table(part_path(out, number), neighbours.select(_order(neighbours.column_names)))
    keep.unlink(missing_ok=True)
    found = [
        pq.read_table(part_path(out / SEARCHED_FOLDER, number)).column("found").to_numpy()
        for number in range(count)
    ]
    sizes = np.concatenate(found)
    return {
        "centroids": len(asked.ids),
        "neighbours": int(sizes.sum()),
        "short": int(np.count_nonzero(sizes < question.k)),
    }


def _named(table: pa.Table, ids: npt.NDArray[np.int64]) -> pa.Table:
    """With the centroids' ids in place of query numbers."""
    named = pa.array(ids[table.column("query").to_numpy()], pa.int64())
    return table.set_column(table.column_names.index("query"), "centroid_id", named)


def _order(names: list[str]) -> list[str]:
    first = ["centroid_id", "rank", "id", "similarity"]
    return [*first, *(name for name in names if name not in (*first, "row"))]
