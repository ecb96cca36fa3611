"""Metadata of any pool in our own columns: LAION's, img2dataset's, clip-retrieval's names read as ours."""

import re
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from spine.entries import NAMES
from spine.errors import DataError
from spine.ids import laion_id
from spine.tables import METADATA

# Of each column the names it goes by, the best first, in lower case. What the source says of the
# original counts before what someone stored of it.
_NAMES = NAMES | {
    "image_path": ("image_path",),
    "sha256": ("sha256",),
    "width": ("original_width", "width"),
    "height": ("original_height", "height"),
}
_MORE = {"language": ("language",)}  # what a pool may be searched by, and we keep no column of
_IDS = ("id", "hash")
_SHA256 = re.compile("[0-9a-fA-F]{64}")


def our_columns(names: Sequence[str]) -> list[str]:
    """Those of a pool's columns that say something of ours, or of the id; in their own spelling and order."""
    wanted = {spelling for spellings in _NAMES.values() for spelling in spellings} | set(_IDS)
    return [name for name in names if name.lower() in wanted]


def column_of(names: Sequence[str], ours: str) -> str | None:
    """What a pool calls one of our columns, in its own spelling; None where it has none such."""
    found = (name for spelling in _NAMES[ours] for name in names if name.lower() == spelling)
    return next(found, None)


def as_our_metadata(table: pa.Table) -> pa.Table:
    """Rows of any pool's metadata as METADATA.

    The id is the pool's `id` or `hash` where that is a whole number, else LAION's join key over address
    (or place) and caption. What a pool doesn't say is null; what we have no column for is left out.

    Raises:
        DataError: A column's values are not what its name says, or nothing tells the rows' ids.
    """
    columns = _values(table)
    columns["id"] = _ids(table, columns)
    return pa.table([columns[name] for name in METADATA.names], schema=METADATA)


def as_new_metadata(table: pa.Table) -> pa.Table:
    """As as_our_metadata, with the ids that pictures get which are embedded here.

    LAION's join key over address and caption; without an address the first eight bytes of sha256; without both
    LAION's key over the place. What the pool calls its `id` may be a running number of each file, and doesn't
    count. The id is null where nothing tells it.

    Raises:
        DataError: A column's values are not what its name says.
    """
    columns = _values(table)
    said = (columns[name].to_pylist() for name in ("url", "caption", "sha256", "image_path"))
    columns["id"] = pa.chunked_array([pa.array(map(_new_id, *said), pa.int64())])
    return pa.table([columns[name] for name in METADATA.names], schema=METADATA)


def _new_id(url: str | None, caption: str | None, sha256: str | None, place: str | None) -> int | None:
    if url:
        return laion_id(url, caption)
    if sha256 and _SHA256.fullmatch(sha256):
        return int.from_bytes(bytes.fromhex(sha256[:16]), "big", signed=True)  # as spine.ids.content_id
    return laion_id(place, caption) if place else None


def _values(table: pa.Table) -> dict[str, pa.ChunkedArray]:
    """What a pool says in our columns, but for the id."""
    columns = {
        name: _first_of(table, spellings, METADATA.field(name).type) for name, spellings in _NAMES.items()
    }
    # clip-retrieval calls image_path what may be the key inside a tar that nobody has any more: beside an
    # address only what is a whole path or address counts as a place.
    path = columns["image_path"]
    bare = pc.and_(pc.invert(pc.match_substring_regex(path, "^(/|[a-z0-9]+://)")), columns["url"].is_valid())
    bare = bare.fill_null(False)
    columns["key"] = pc.coalesce(columns["key"], pc.if_else(bare, path, None))
    columns["image_path"] = pc.if_else(bare, None, path)
    return columns


def spelling_of(name: str, columns: Sequence[str]) -> list[str]:
    """Those of a pool's columns that tell what we call `name`, or the id; in their own spelling."""
    wanted = (_NAMES | _MORE).get(name) or (*_IDS, *_NAMES["url"], *_NAMES["image_path"], *_NAMES["caption"])
    return [column for column in columns if column.lower() in wanted]


def our_values(table: pa.Table, names: Sequence[str]) -> pa.Table:
    """Some of our columns, and language, as far as a pool's rows tell; one they say nothing of is left out.

    Raises:
        DataError: As `as_our_metadata`.
    """
    found: dict[str, pa.ChunkedArray] = {}
    for name in names:
        if name == "id":
            known = ("url", "image_path", "caption")
            found[name] = _ids(
                table, {each: _first_of(table, _NAMES[each], METADATA.field(each).type) for each in known}
            )
        elif spelling_of(name, table.column_names):
            kind = METADATA.field(name).type if name in METADATA.names else pa.string()
            found[name] = _first_of(table, (_NAMES | _MORE)[name], kind)
    # An empty mapping would make a table without rows.
    return pa.table(found) if found else table.select([])


def _first_of(table: pa.Table, spellings: Sequence[str], kind: pa.DataType) -> pa.ChunkedArray:
    """Each row's value of the first column of these names that has one."""
    found = [
        _as(table.column(name), kind, name)
        for spelling in spellings
        for name in table.column_names
        if name.lower() == spelling
    ]
    return pc.coalesce(*found) if found else pa.chunked_array([pa.nulls(table.num_rows, kind)])


def _as(column: pa.ChunkedArray, kind: pa.DataType, name: str) -> pa.ChunkedArray:
    try:
        if pa.types.is_floating(column.type):
            column = pc.if_else(pc.is_finite(column), column, None)
            if pa.types.is_integer(kind):
                column = pc.round(column)
        return column.cast(kind)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise DataError(
            f"the pool's column {name} ({column.type}) can't be read as {kind}: {error}"
        ) from None


def _ids(table: pa.Table, columns: dict[str, pa.ChunkedArray]) -> pa.ChunkedArray:
    known = [
        table.column(name).cast(pa.int64())
        for wanted in _IDS
        for name in table.column_names
        if name.lower() == wanted and pa.types.is_integer(table.column(name).type)
    ]
    ids = pc.coalesce(*known) if known else pa.chunked_array([pa.nulls(table.num_rows, pa.int64())])
    missing = np.flatnonzero(ids.is_null().to_numpy())
    if not missing.size:
        return ids
    take = pa.array(missing)
    places = pc.coalesce(columns["url"], columns["image_path"]).take(take).to_pylist()
    if any(place is None for place in places):
        raise DataError(
            f"rows of the pool have no id, hash, url or image_path; its columns: {', '.join(table.column_names)}"
        )
    filled = ids.fill_null(0).to_numpy().copy()
    captions = columns["caption"].take(take).to_pylist()
    filled[missing] = [laion_id(place, caption) for place, caption in zip(places, captions, strict=True)]
    return pa.chunked_array([pa.array(filled, pa.int64())])
