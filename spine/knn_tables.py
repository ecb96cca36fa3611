"""Neighbours as Arrow tables, the same whichever server found them."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from spine.errors import ServiceError
from spine.tables import METADATA

_OURS = pa.schema(
    [("query", pa.int32()), ("rank", pa.int32()), ("id", pa.int64()), ("similarity", pa.float32())]
)


def table_of_results(results: Sequence[Mapping[str, Any]]) -> pa.Table:
    """One query's results, as POST /knn-batch gives them: query 0, rank, id, similarity and the metadata.

    Raises:
        ServiceError: A column has values of several kinds.
    """
    names = dict.fromkeys(name for result in results for name in result)
    ours = [
        pa.array([0] * len(results), pa.int32()),
        pa.array(range(len(results)), pa.int32()),
        pa.array([result["id"] for result in results], pa.int64()),
        pa.array([result["similarity"] for result in results], pa.float32()),
    ]
    table = pa.table(ours, schema=_OURS)
    for name in names:
        if name not in _OURS.names:
            table = table.append_column(name, _column(name, [result.get(name) for result in results]))
    return table


def joined(tables: Sequence[pa.Table], starts: Sequence[int], columns: Sequence[str] | None) -> pa.Table:
    """Answers to parts of the queries, as one.

    Args:
        tables: Each counts its queries from 0.
        starts: The number of each table's first query.
        columns: Metadata to keep; one that is missing is null. None keeps all.

    Returns:
        query, rank, row, similarity and the metadata; columns that we have a kind for are of it.

    Raises:
        ServiceError: A column can't be of its kind.
    """
    shifted = [_shifted(table, int(start)) for table, start in zip(tables, starts, strict=False)]
    # permissive: a column that is all null in one answer has no type there.
    table = pa.concat_tables(shifted, promote_options="permissive") if shifted else _OURS.empty_table()
    return _arranged(table, columns)


def _column(name: str, values: list[Any]) -> pa.Array:
    try:
        return pa.array(values, from_pandas=True)  # NaN of a clip-retrieval server is its null
    except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError) as error:
        raise ServiceError(f"the server's column {name!r} has values of several kinds ({error})") from None


def _column_type(name: str) -> pa.DataType | None:
    known = "id" if name == "hash" else name
    return METADATA.field(known).type if known in METADATA.names else None


def _shifted(table: pa.Table, start: int) -> pa.Table:
    numbers = np.asarray(table["query"]) + start
    return table.set_column(table.column_names.index("query"), "query", pa.array(numbers, pa.int32()))


def _arranged(table: pa.Table, columns: Sequence[str] | None) -> pa.Table:
    table = table.rename_columns(["row" if name == "id" else name for name in table.column_names])
    ours = ["query", "rank", "row", "similarity"]
    if columns is None:
        order = ["hash", *METADATA.names]
        found = [name for name in table.column_names if name not in ours]
        columns = sorted(found, key=lambda name: (order.index(name) if name in order else len(order), name))
    for name in columns:
        if name not in table.column_names:
            table = table.append_column(name, pa.nulls(table.num_rows, _column_type(name) or pa.null()))
    table = table.select([*ours, *columns])
    for place, name in enumerate(columns, start=len(ours)):
        kind = _column_type(name)
        if kind is not None:
            try:
                table = table.set_column(place, name, table[name].cast(kind))
            except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
                raise ServiceError(f"the server's column {name!r} is not {kind} ({error})") from None
    return table
