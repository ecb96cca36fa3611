"""RaBitQ's rows scored for one query after another, compiled: in blocks, or one by one as FAISS has them.

A place that is None where a caller has no blocks tells numba which of the two to compile: the other needs an
instruction that the CPU may lack.
"""

from typing import Any

from index_builder.numerics.compiled import compiled, compiled_within
from index_builder.numerics.sign_blocks import (
    BLOCK,
    block_bytes,
    estimate_block,
    into_tables,
    room_for_tables,
)
from index_builder.numerics.sign_codes import estimate_rows, room_for_query, round_query
from index_builder.numerics.sign_sums import into_planes, room_for_planes


@compiled
def room_for_scores(d: int, codes: Any) -> Any:
    """What `round_for` and `scored` work in.

    Args:
        d: Dimensions.
        codes: As `SignCodes.for_kernels` gives them.
    """
    rounding = room_for_query(d, codes)
    return rounding, room_for_planes(codes[1]), room_for_tables(rounding[1])


@compiled_within
def round_for(query: Any, own: Any, centroid: Any, codes: Any, in_blocks: Any, room: Any) -> Any:
    """Round a query for a list, and give what `scored` takes of it.

    Args:
        query: As `round_query` has it, and so are the next three.
        own: Likewise.
        centroid: Likewise.
        codes: Likewise.
        in_blocks: None where the list's rows are as FAISS has them, anything else where they lie in blocks.
        room: As `room_for_scores` makes it.
    """
    rounding, planes, tables = room
    rounded = round_query(query, own, centroid, codes, rounding)
    if in_blocks is None:
        into_planes(rounding[1], planes)
    else:
        into_tables(rounding[1], tables)
    return rounded


@compiled_within
def scored(place: int, start: int, count: int, codes: Any, in_blocks: Any, rounded: Any, room: Any) -> Any:
    """The largest similarity of some of a list's rows; that of each is left in the last of the room's tables.

    In blocks what a last one lacks may be the largest: it is an upper bound there.

    Args:
        place: Address of the list's first row, or of its first block.
        start: The first of the rows, a multiple of BLOCK.
        count: How many, up to BLOCK.
        codes: As `SignCodes.for_kernels` gives them.
        in_blocks: As of `round_for`.
        rounded: The query, as `round_for` gives it.
        room: Where that worked.
    """
    _, planes, tables = room
    if in_blocks is None:
        return estimate_rows(place + start * codes[0], count, codes, planes, rounded, tables[2])
    return estimate_block(place + start // BLOCK * block_bytes(codes[1]), codes[1], rounded, tables)
