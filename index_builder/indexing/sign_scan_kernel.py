"""RaBitQ's lists gone through for a few queries, and for many in turns, compiled."""

from typing import Any

import numba
import numpy as np

from index_builder.indexing.nearest_lists import nearest_lists, products_of_few
from index_builder.numerics.compiled import address, compiled, compiled_within, lowest_bit, wanted_soon
from index_builder.numerics.pair_products import dot
from index_builder.numerics.selection import best_first, thin_out
from index_builder.numerics.sign_blocks import BLOCK, block_bytes, lay_out
from index_builder.numerics.sign_scores import room_for_scores, round_for, scored

_LINE = 64  # bytes that come from memory at once
_AHEAD = 8  # row numbers, which lie here and there
_TOGETHER = 32  # queries, as a number has bits: a list comes from memory once for all that want it


@compiled
def lay_out_lists(lists: Any, codes: Any, places: Any, blocks: Any) -> None:
    """Lay all lists out, each where `places` say."""
    for number in range(len(lists)):
        if lists[number, 2]:
            begin = places[number, 0] - blocks.ctypes.data
            lay_out(lists[number, 0], codes, lists[number, 2], blocks[begin:])


@compiled
def scan_lists(
    queries: Any, wanted: Any, lists: Any, centroids: Any, l2: bool, codes: Any, in_blocks: Any, values: Any, rows: Any
) -> None:  # fmt: skip
    """Find the rows with the highest estimates.

    Args:
        queries: Shape (q, d), as the lists have them; those that are alike one after the other.
        wanted: Numbers of lists, the nearest first; below 0 for none; (q, nprobe).
        lists: Of each list the addresses of its codes and of its row numbers, and how many rows; (nlist, 3), int64.
        centroids: Shape (nlist, d).
        l2: Whether a similarity is 1 - |q - v|² / 2, not the inner product.
        codes: As `SignCodes.for_kernels` gives them.
        in_blocks: True where lists are blocks of codes; None where they are as FAISS has them.
        values: Takes estimates, as far as there are rows; (q, depth).
        rows: Takes row numbers.
    """
    depth, together = values.shape[1], max(1, min(_TOGETHER, len(queries)))
    room = room_for_scores(queries.shape[1], codes)
    found = np.empty((together, 2 * depth + BLOCK), dtype=np.float32)
    found_at, counts = np.empty(found.shape, dtype=np.int64), np.empty(together, dtype=np.int64)
    turns = np.empty(together * wanted.shape[1] + 1, dtype=np.int64)
    whose = np.zeros(len(lists) if together > 1 else 0, dtype=np.uint32)  # a query alone wants them all
    for first in range(0, len(queries), together):
        some = slice(first, min(first + together, len(queries)))
        _take_turns(wanted[some], turns, whose)
        kept = found, found_at, counts, depth
        _go_through(queries[some], turns, whose, lists, centroids, l2, codes, in_blocks, room, kept)
        for j in range(some.stop - first):
            if counts[j] > depth:
                left, _ = thin_out(found[j], found_at[j], counts[j], depth)
                best_first(found[j], found_at[j], left, depth)
            _give(found[j], found_at[j], min(counts[j], depth), values[first + j], rows[first + j])


@compiled
def _go_through(
    queries: Any, turns: Any, whose: Any, lists: Any, centroids: Any, l2: bool, codes: Any, in_blocks: Any,
    room: Any, kept: Any,
) -> None:  # fmt: skip
    """Keep those rows of a few queries' lists that may have the highest estimates.

    Args:
        queries: Shape (q, d), _TOGETHER at most.
        turns: As `_take_turns` gives them.
        whose: Likewise; zeros again afterwards.
        lists: As of `scan_lists`, and so are the next four.
        centroids: Likewise.
        l2: Likewise.
        codes: Likewise.
        in_blocks: Likewise.
        room: As `room_for_scores` makes it.
        kept: Takes estimates, where the rows' numbers are, and how many there are of each query; and how many are
            wanted in the end.
    """
    # Views of these, a row each for every list, are counted by no one: it is the caller who holds them.
    queries = numba.carray(address(queries.ctypes.data), queries.shape, np.float32)
    centroids = numba.carray(address(centroids.ctypes.data), centroids.shape, np.float32)
    found, found_at, counts, depth = kept
    most = np.float32(1) if l2 else np.float32(np.inf)  # no distance is below zero
    stride = BLOCK * codes[0] if in_blocks is None else block_bytes(codes[1])
    near = room[2][2]
    least, own = np.full(len(queries), -np.inf, dtype=np.float32), np.full(len(queries), 2, dtype=np.float32)
    for j in range(len(queries)):
        counts[j] = 0
        if not l2:
            own[j] = dot(queries[j], queries[j])
    turn = 0
    while turns[turn] >= 0:
        number, turn = turns[turn], turn + 1
        place, ids, n = lists[number, 0], lists[number, 1], lists[number, 2]
        soon, end = _announce(turns[turn], lists, stride, centroids)
        asking = np.int64(whose[number]) if len(whose) else 1
        while asking:
            j = lowest_bit(asking)
            asking &= asking - 1
            rounded = round_for(queries[j], own[j], centroids[number], codes, in_blocks, room)
            for start in range(0, n, BLOCK):
                for line in range(soon, min(end, soon + stride), _LINE):
                    wanted_soon(line)
                soon += stride
                here = min(BLOCK, n - start)
                if scored(place, start, here, codes, in_blocks, rounded, room) < least[j]:
                    continue
                at, bar = counts[j], least[j]
                for r in range(here):  # without a branch, which the CPU would often guess wrong
                    similarity = min(near[r], most)
                    found[j, at], found_at[j, at] = similarity, ids + 8 * (start + r)
                    at += similarity >= bar
                counts[j] = at
                if at + BLOCK > found.shape[1]:
                    counts[j], least[j] = thin_out(found[j], found_at[j], at, depth)
        if len(whose):
            whose[number] = 0


@compiled
def _take_turns(wanted: Any, turns: Any, whose: Any) -> None:
    """The lists that some queries want, those that one of them has nearest first, and who wants each.

    Args:
        wanted: As of `scan_lists`, of these queries.
        turns: Takes the lists' numbers, and -1 after them.
        whose: Takes a bit for each query that wants a list; zeros, of each list; no place where there is but one query.
    """
    turn, alone = 0, not len(whose)
    for i in range(wanted.shape[1]):
        for j in range(len(wanted)):
            number = wanted[j, i]
            if number < 0:
                continue
            if alone or not whose[number]:
                turns[turn] = number
                turn += 1
            if not alone:
                whose[number] |= np.uint32(1 << j)
    turns[turn] = -1


@compiled_within
def _announce(number: int, lists: Any, stride: int, centroids: Any) -> Any:
    """Have a list's centroid brought from memory; from where to where the list lies, 0 for none, below 0."""
    if number < 0:
        return np.int64(0), np.int64(0)
    size = 4 * centroids.shape[1]
    centroid = centroids.ctypes.data + number * size
    for line in range(0, size, _LINE):
        wanted_soon(centroid + line)
    begin = lists[number, 0]
    return begin, begin + -(-lists[number, 2] // BLOCK) * stride


@compiled
def _give(found: Any, found_at: Any, count: int, values: Any, rows: Any) -> None:
    """Write down what was found, with the row numbers from where they are."""
    for i in range(count):
        if i + _AHEAD < count:
            wanted_soon(found_at[i + _AHEAD])
        values[i] = found[i]
        rows[i] = numba.carray(address(found_at[i]), (1,), np.int64)[0]


@compiled
def search_few(
    queries: Any, matrix: Any, coarse: Any, nprobe: int, l2: bool, codes: Any, in_blocks: Any, values: Any, rows: Any
) -> None:  # fmt: skip
    """All of a search for a few queries.

    Args:
        queries: Shape (q, d), as they are asked.
        matrix: What they are multiplied with first, (d, d); no rows for nothing.
        coarse: Lists and centroids, as `scan_lists` has them, and what `nearest_lists` has of these.
        nprobe: Lists a query.
        l2: As of `scan_lists`, and so are the others.
        codes: Likewise.
        in_blocks: Likewise.
        values: Likewise.
        rows: Likewise.
    """
    lists, centroids, rounded = coarse
    moved = products_of_few(queries, matrix) if len(matrix) else queries
    wanted = nearest_lists(moved, centroids, rounded, nprobe)
    scan_lists(moved, wanted, lists, centroids, l2, codes, in_blocks, values, rows)
