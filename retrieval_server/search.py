"""One query's answer, step by step as clip-retrieval gives it, and the answer to many.

Source: clip-retrieval 2.45, clip_retrieval/clip_back.py, KnnService.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from index_builder.bulk_query import nearest
from index_builder.metadata.predicates import Predicate, rows_that_pass
from index_builder.metadata.row_mask import RowMask
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

TOGETHER_ROWS = 8_000
"""Results that `answers` takes together, one query's at least: a filter holds all of their vectors, 3 kB each."""

MAX_BATCH_ROWS = 1_000_000
"""Queries times k in one batch."""

_MASKS = 8

Rows = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Answer:
    """Results of one query, best first, and what was asked for and couldn't be done."""

    results: list[dict[str, Any]]
    warnings: list[str]


def answers(
    index: ServedIndex,
    questions: Sequence[tuple[KnnQuery, Vectors]],
    lists: BlockLists,
    metrics: Metrics,
) -> list[Answer]:
    """Search one index for queries that are `alike`; each gets what it would get alone.

    Together they cost less: much is called once for all, and Python's lock changes hands as if for one.

    Args:
        index: What to search.
        questions: Of each query its options, and what is in its text, picture or numbers as a vector, (d,), finite.
        lists: What no answer may hold.
        metrics: Takes the time of each step.

    Raises:
        Refusal: A vector has the wrong dimension, there is no index of this modality, or it keeps no vectors and a
            filter needs them.
    """
    queries = [query for query, _ in questions]
    asked = np.stack([pulled(checked(index, vector), index, query) for query, vector in questions])
    with metrics.time("knn_index_time", len(queries)):
        found = _found(index, queries[0], asked)
    blocked = blocked_rows(lists, index.rows, np.concatenate([rows for _, rows, _ in found]))
    kept, start = [], 0
    for query, (similarities, rows, vectors) in zip(queries, found, strict=True):
        stay = _kept(index, query, rows, vectors, metrics) & ~blocked[start : start + len(rows)]
        start += len(rows)
        kept.append((similarities[stay], rows[stay]))
    answered, start = [], 0
    with metrics.time("metadata_get_time", len(queries)):
        shown = [
            slice(0, len(rows[: query.num_images])) for query, (_, rows) in zip(queries, kept, strict=True)
        ]
        described = _described(
            index, [(near[some], rows[some]) for (near, rows), some in zip(kept, shown, strict=True)]
        )
        for query, (near, rows), some in zip(queries, kept, shown, strict=True):
            own = described[start : start + some.stop]
            start += some.stop
            if index.pictures is not None:
                index.pictures.add_to(own, lists)
            own += _bare(index, near[some.stop :], rows[some.stop :])
            answered.append(Answer(own, missing_filters(index, query)))
    return answered


def alike(index: ServedIndex, query: KnnQuery) -> tuple[object, ...]:
    """What is the same of queries that `answers` takes together."""
    return id(index), query.modality, query.k, _looks_at_vectors(index, query)


def _described(
    index: ServedIndex, parts: Sequence[tuple[npt.NDArray[np.float32], Rows]]
) -> list[dict[str, Any]]:
    """Metadata, id and similarity of each row."""
    near, rows = (np.concatenate(each) for each in zip(*parts, strict=True))
    table = index.metadata(rows).append_column("id", pa.array(index.ids(rows)))
    return records(table.append_column("similarity", pa.array(near)))


def _bare(index: ServedIndex, similarities: npt.NDArray[np.float32], rows: Rows) -> list[dict[str, Any]]:
    """Id and similarity of each row."""
    pairs = zip(index.ids(rows).tolist(), similarities.tolist(), strict=True)
    return [{"id": row, "similarity": similarity} for row, similarity in pairs]


def missing_filters(index: ServedIndex, query: "KnnQuery | BatchQuestion") -> list[str]:
    """What the query asks for and this index has no model for, one line each."""
    safety = isinstance(query, KnnQuery) and query.use_safety_model
    violence = isinstance(query, KnnQuery) and query.use_violence_detector
    wanted = [
        (safety, index.unsafe, "use_safety_model: no safety model here, results are not filtered"),
        (
            violence,
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


def pulled(vectors: Vectors, index: ServedIndex, query: "KnnQuery | BatchQuestion") -> Vectors:
    """Queries (..., d) moved towards a rating and scaled to norm 1; as they are where none is asked or known."""
    if query.aesthetic_score is None or index.ratings is None:
        return vectors
    moved = vectors + index.ratings[query.aesthetic_score] * np.float32(query.aesthetic_weight)
    norms = np.linalg.norm(moved, axis=-1, keepdims=True)
    unit: Vectors = np.divide(moved, norms, out=moved, where=norms > 0)
    return unit


def _looks_at_vectors(index: ServedIndex, query: KnnQuery) -> bool:
    safety = query.use_safety_model and index.unsafe is not None
    violence = query.use_violence_detector and index.violence is not None
    return query.deduplicate or safety or violence


def _found(
    index: ServedIndex, query: KnnQuery, asked: Vectors
) -> list[tuple[npt.NDArray[np.float32], Rows, Vectors | None]]:
    """Of each query similarities and rows, best first, and where a filter looks at them their vectors.

    Args:
        index: What to search.
        query: One of those that are alike.
        asked: Shape (q, d).
    """
    folder = index.folder(query.modality)
    if not _looks_at_vectors(index, query):
        found = zip(*folder.search(asked, query.k), strict=True)
        return [(similarities[rows >= 0], rows[rows >= 0], None) for similarities, rows in found]
    try:
        return [*folder.search_with_vectors(asked, query.k)]
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
            first = first_of_component(vectors, NEAR_DUPLICATE)
            kept &= first == np.arange(len(rows))
    if query.use_violence_detector and index.violence is not None:
        kept &= ~(index.violence(vectors) > 0)
    if query.use_safety_model and index.unsafe is not None:
        with metrics.time("safety_time"):
            kept &= ~(index.unsafe(vectors) > UNSAFE)
    return kept


@dataclass(frozen=True, kw_only=True, slots=True)
class BatchQuestion:
    """What is asked of every query of a batch."""

    k: int
    """Neighbours a query."""
    modality: str = "image"
    """The index's pictures or its texts."""
    nprobe: int = 0
    """Lists searched a query; 0 for the index's own."""
    columns: list[str] | None = None
    """Metadata by wire name; unknown ones are left out. None for all that are served."""
    aesthetic_score: int | None = None
    """Pull every query towards pictures of this rating; None is off."""
    aesthetic_weight: float = 0.5
    predicate: Predicate = field(default_factory=Predicate)
    """What a row must be to be found: k are found where so many meet it."""


def answer_batch(
    index: ServedIndex, vectors: Vectors, question: BatchQuestion, lists: BlockLists
) -> pa.Table:
    """The k nearest rows of many queries: together or one by one, as `index_builder.bulk_query` chooses.

    Args:
        index: What to search.
        vectors: Shape (n, d).
        question: What is asked of all of them.
        lists: What no answer may hold.

    Returns:
        Sorted by query and rank: query int32, rank int32, id int64 (the row), similarity float32, then metadata.

    Raises:
        Refusal: It is more than MAX_BATCH_ROWS, there is no index of this modality, or the index doesn't know what
            is asked of its rows.
    """
    k, columns = question.k, question.columns
    if len(vectors) * k > MAX_BATCH_ROWS:
        raise Refusal(
            f"{len(vectors):,} queries x {k:,} neighbours, {MAX_BATCH_ROWS:,} together at most; send fewer at once",
            status=413,
            code="too_many",
        )
    folder, mask = index.folder(question.modality), _mask(index, question.predicate)
    queries = pulled(checked(index, vectors), index, question)
    neighbours = nearest(folder, queries, k, nprobe=question.nprobe, columns=(), mask=mask)
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


def _mask(index: ServedIndex, predicate: Predicate) -> RowMask | None:
    """The rows that meet a predicate; the last few are kept, for to judge every row takes a while."""
    if predicate.empty:
        return None
    missing = predicate.missing(index.rows.schema.names)
    if missing and predicate.filters.unknown == "drop":
        raise Refusal(
            f"{index.name} says nothing of {', '.join(missing)}: leave that filter out, or set unknown=keep",
            code="unknown_column",
        )
    name = str(predicate.parameters())
    if name not in index.masks:
        while len(index.masks) >= _MASKS:
            index.masks.pop(next(iter(index.masks)))
        index.masks[name] = rows_that_pass(index.rows, predicate)
    return index.masks[name]


def _without_nan(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Unknown is null, as JSON has it."""
    if not pa.types.is_floating(column.type):
        return column
    return pc.if_else(pc.is_nan(column), pa.scalar(None, column.type), column)


def records(table: pa.Table) -> list[dict[str, Any]]:
    """Rows as JSON values: bytes as text."""
    rows: list[dict[str, Any]] = table.to_pylist()
    for column in table.schema:
        if pa.types.is_binary(column.type) or pa.types.is_large_binary(column.type):
            for row in rows:
                value = row[column.name]
                row[column.name] = None if value is None else value.decode("utf-8", "replace")
    return rows
