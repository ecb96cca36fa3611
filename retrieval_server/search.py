"""One query's answer, step by step as clip-retrieval gives it, and the answer to many.

Source: clip-retrieval 2.45, clip_retrieval/clip_back.py, KnnService.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from index_builder.bulk_query import nearest
from index_builder.index_folder import IndexFolder
from retrieval_server.duplicates import first_of_component
from retrieval_server.indices import ServedIndex
from retrieval_server.metrics import Metrics
from retrieval_server.refusals import Refusal
from retrieval_server.takedowns import blocked_rows
from spine.errors import DataError
from spine.knn_query import KnnQuery
from spine.lists import BlockLists
from spine.tables import Vectors

NEAR_DUPLICATE = 0.94
"""Similarity above which deduplicate takes two results for one."""

UNSAFE = 0.5
"""Probability above which use_safety_model drops a result."""

MAX_BATCH_ROWS = 1_000_000
"""Queries times k in one batch."""

Rows = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Answer:
    """Results of one query, best first, and what was asked for and couldn't be done."""

    results: list[dict[str, Any]]
    warnings: list[str]


def answer(
    index: ServedIndex, query: KnnQuery, vector: Vectors, lists: BlockLists, metrics: Metrics
) -> Answer:
    """Search one index for one query.

    Args:
        index: What to search.
        query: Its options count; its text and pictures are in `vector` already.
        vector: Shape (d,), finite.
        lists: What no answer may hold.
        metrics: Takes the time of each step.

    Raises:
        Refusal: The vector has the wrong dimension, there is no index of this modality, or it keeps no vectors
            and a filter needs them.
    """
    folder = index.folder(query.modality)
    vector = pulled(checked(index, vector), index, query)
    with metrics.time("knn_index_time"):
        similarities, rows, vectors = _found(index, folder, query, vector)
    kept = _kept(index, query, rows, vectors, metrics) & ~blocked_rows(lists, index.rows, rows)
    similarities, rows = similarities[kept], rows[kept]
    results = [
        {"id": row, "similarity": similarity}
        for row, similarity in zip(index.ids(rows).tolist(), similarities.tolist(), strict=True)
    ]
    with metrics.time("metadata_get_time"):
        described = records(index.metadata(rows[: len(results[: query.num_images])]))
        if index.pictures is not None:
            index.pictures.add_to(described, lists)
        for number, metadata in enumerate(described):
            results[number] = metadata | results[number]
    return Answer(results, missing_filters(index, query))


def missing_filters(index: ServedIndex, query: KnnQuery) -> list[str]:
    """What the query asks for and this index has no model for, one line each."""
    wanted = [
        (
            query.use_safety_model,
            index.unsafe,
            "use_safety_model: no safety model here, results are not filtered",
        ),
        (
            query.use_violence_detector,
            index.violence,
            "use_violence_detector: no violence detector here, results are not filtered",
        ),
        (
            query.aesthetic_score is not None,
            index.ratings,
            "aesthetic_score: no aesthetic vectors here, ignored",
        ),
    ]
    return [words for asked, there, words in wanted if asked and there is None]


def checked(index: ServedIndex, vectors: Vectors) -> Vectors:
    """`vectors` (..., d), if the index has their dimension.

    Raises:
        Refusal: It has not.
    """
    if vectors.shape[-1] != index.d:
        raise Refusal(
            f"an embedding of {vectors.shape[-1]:,} numbers, {index.name} has {index.d:,}",
            code="wrong_dimension",
        )
    return vectors


def pulled(vector: Vectors, index: ServedIndex, query: KnnQuery) -> Vectors:
    """The query moved towards a rating and scaled to norm 1; as it is where no rating is asked or known."""
    if query.aesthetic_score is None or index.ratings is None:
        return vector
    moved = vector + index.ratings[query.aesthetic_score] * np.float32(query.aesthetic_weight)
    norm = np.linalg.norm(moved)
    return moved if norm == 0 else np.asarray(moved / norm, dtype=np.float32)


def _found(
    index: ServedIndex, folder: IndexFolder, query: KnnQuery, vector: Vectors
) -> tuple[npt.NDArray[np.float32], Rows, Vectors | None]:
    """Similarities and rows, best first, and where a filter looks at them their vectors."""
    safety = query.use_safety_model and index.unsafe is not None
    violence = query.use_violence_detector and index.violence is not None
    if not (query.deduplicate or safety or violence):
        similarities, rows = folder.search(vector[None], query.k)
        there = rows[0] >= 0
        return similarities[0][there], rows[0][there], None
    try:
        return folder.search_with_vectors(vector, query.k)
    except DataError:
        raise Refusal(
            f"{index.name} keeps no vectors: deduplicate, use_safety_model and use_violence_detector need them",
            code="no_vectors",
        ) from None


def _kept(
    index: ServedIndex, query: KnnQuery, rows: Rows, vectors: Vectors | None, metrics: Metrics
) -> npt.NDArray[np.bool_]:
    """Which results stay: every filter looks at all of them, and one is enough to drop."""
    kept = np.zeros(len(rows), dtype=np.bool_)
    kept[np.unique(rows, return_index=True)[1]] = True  # a row that FAISS gives twice counts once
    if vectors is None or not len(rows):
        return kept
    if query.deduplicate:
        with metrics.time("dedup_time"):
            first = first_of_component(vectors, NEAR_DUPLICATE, index.directions)
            kept &= first == np.arange(len(rows))
    if query.use_violence_detector and index.violence is not None:
        kept &= (vectors @ index.violence.T).argmax(axis=1) != 1
    if query.use_safety_model and index.unsafe is not None:
        with metrics.time("safety_time"):
            kept &= ~(index.unsafe(vectors) > UNSAFE)
    return kept


def answer_batch(
    index: ServedIndex,
    modality: str,
    vectors: Vectors,
    k: int,
    lists: BlockLists,
    *,
    nprobe: int,
    columns: list[str] | None,
) -> pa.Table:
    """The k nearest rows of many queries, unfiltered: together or one by one, as `index_builder.bulk_query` chooses.

    Args:
        index: What to search.
        modality: Its pictures or its texts.
        vectors: Shape (n, d).
        k: Neighbours a query.
        lists: What no answer may hold.
        nprobe: Lists searched a query; 0 for the index's own.
        columns: Metadata by wire name; unknown ones are left out. None for all that are served.

    Returns:
        Sorted by query and rank: query int32, rank int32, id int64 (the row), similarity float32, then metadata.

    Raises:
        Refusal: It is more than MAX_BATCH_ROWS, or there is no index of this modality.
    """
    if len(vectors) * k > MAX_BATCH_ROWS:
        raise Refusal(
            f"{len(vectors):,} queries x {k:,} neighbours, {MAX_BATCH_ROWS:,} together at most; send fewer at once",
            status=413,
            code="too_many",
        )
    neighbours = nearest(index.folder(modality), checked(index, vectors), k, nprobe=nprobe, columns=())
    there = ~blocked_rows(lists, index.rows, neighbours.column("row").to_numpy())
    neighbours = neighbours.filter(pa.array(there))
    queries, found = neighbours.column("query").to_numpy(), neighbours.column("row").to_numpy()
    _, starts, sizes = np.unique(queries, return_index=True, return_counts=True)
    table = index.metadata(found, columns)
    ours = {
        "query": neighbours.column("query"),
        "rank": pa.array(np.arange(len(queries)) - np.repeat(starts, sizes), pa.int32()),
        "id": pa.array(index.ids(found), pa.int64()),
        "similarity": neighbours.column("similarity"),
    }
    theirs = {name: _without_nan(table[name]) for name in table.column_names}
    return pa.table(ours | theirs)


def _without_nan(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Unknown is null, as JSON has it."""
    if not pa.types.is_floating(column.type):
        return column
    return pc.if_else(pc.is_nan(column), pa.scalar(None, column.type), column)


def records(table: pa.Table) -> list[dict[str, Any]]:
    """Rows as JSON values: bytes as text."""
    rows: list[dict[str, Any]] = table.to_pylist()
    for field in table.schema:
        if pa.types.is_binary(field.type) or pa.types.is_large_binary(field.type):
            for row in rows:
                if row[field.name] is not None:
                    row[field.name] = row[field.name].decode("utf-8", "replace")
    return rows
