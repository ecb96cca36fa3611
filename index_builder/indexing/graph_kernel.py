"""The search of FAISS's HNSW graph, compiled: the same nodes in the same order, with less read from memory.

Nearly all of a search is waiting for vectors that lie anywhere in memory, and nine in ten of them turn out to be too
far away. That is told here by a code of one byte a dimension, a quarter of the memory: it says within which bounds a
distance lies. Nodes wait in a heap by the least that theirs can be. A vector itself is read when its node comes up,
which then still is the nearest or goes back into the heap by its distance: they leave it in the order of their
distances. What is to be read next is asked for ahead.

FAISS ends when `ef` nodes are nearer than the nearest that waits. All that are nearer have left the heap by then: they
are counted among those that left. Of FAISS's bounded queue nothing else is needed but a limit, beyond which a node need
not wait.

A key is a distance as the heap orders it, the nearest lowest: the squared distance, or less the inner product.
"""

import math
from typing import Any

import numba
import numpy as np

from index_builder.indexing.entry_heap import before, entry_of, key_of, popped, pushed
from index_builder.numerics.compiled import address, compiled, compiled_sums, wanted_soon
from index_builder.numerics.pair_products import dot

_LINE = 64  # bytes that come from memory at once
_SOON = 7  # first entries of the heap, whose nodes are likely to come up soon
# Of an entry below its key: the row, whether what its node needs was asked for, whether the key is the least it can be.
_ROW, _ASKED, _CODED = 0x3FFFFFFF, 1 << 30, 1 << 31
_FARTHEST = np.float32(np.finfo(np.float32).max)


@compiled
def search_graph(
    queries: Any, graph: Any, coded: Any, settings: Any, room: Any, distances: Any, rows: Any
) -> None:
    """Search for each query, one after the other.

    Args:
        queries: Shape (q, d), float32, finite.
        graph: Vectors (n, d), links, their offsets (n + 1,), and where each level's links begin among a node's.
        coded: Codes (n, d), int8; the middle and the step of each dimension (d,); the largest error of a row that is
            coded, and the largest norm that there can be.
        settings: Whether similarities are inner products, the row and the level that the search begins at, and
            efSearch.
        room: One search's at a time: generations (n,), of them the last (1,); room for n entries twice, for a query,
            for a node's links, and for two numbers; and for more keys than efSearch and k.
        distances: Takes those of the nearest, nearest first, shape (q, k).
        rows: Takes theirs, shape (q, k); -1 for none.
    """
    inner, entry, level, ef = settings
    codes, middle, step, error, reach = coded
    vectors, links, offsets, levels = graph
    visited, generation, heap, left, weights, fresh, state, seen = room
    bare = _bare(vectors), _bare(links), _bare(offsets), _bare(levels)
    places = _bare(visited), _bare(heap), _bare(left), _bare(fresh), _bare(state), _bare(seen)
    scales = _bare(codes), _bare(weights), _bare(step)
    k = rows.shape[1]
    for q in range(len(queries)):
        query = _bare(queries[q])
        row, key = _descended(query, bare, inner, entry, level)
        about = _weighed(query, middle, step, inner, error, reach, weights)
        now = _new_generation(visited, generation)
        count = _best_first(query, bare, scales, about, (inner, ef, k), row, key, places, now)
        _nearest(left[:count], inner, distances[q], rows[q])


@compiled
def _bare(array: Any) -> Any:
    """The same array without its owner, whose users numba would otherwise count at each call."""
    return numba.carray(address(array.ctypes.data), array.shape, array.dtype)


@compiled
def _descended(query: Any, graph: Any, inner: bool, row: int, level: int) -> Any:
    """The node that the lowest level's search begins at, and its key."""
    vectors, links, offsets, levels = graph
    best = _key(query, vectors[row], inner)
    while level > 0:
        begin, end, here = offsets[row] + levels[level], offsets[row] + levels[level + 1], row
        for place in range(begin, end):
            if links[place] < 0:
                break
            _fetch(vectors, links[place])
        for place in range(begin, end):
            if links[place] < 0:
                break
            key = _key(query, vectors[links[place]], inner)
            if key < best:
                best, row = key, int(links[place])
        if row == here:
            level -= 1
    return row, best


@compiled_sums
def _weighed(
    query: Any, middle: Any, step: Any, inner: bool, error: float, reach: float, weights: Any
) -> Any:
    """What codes are multiplied with, or taken from; a key's constant part; and how far from it the true one may be."""
    norm, constant = np.float32(0), np.float32(0)
    for i in range(len(query)):
        norm += query[i] * query[i]
        constant += query[i] * middle[i]
        weights[i] = query[i] * step[i] if inner else query[i] - middle[i]
    length = math.sqrt(norm)
    rounding = np.float32((len(query) + 16) * 6e-8)  # of a sum of so many, relative to what it can be
    slack = length * (error + rounding * reach) if inner else error + rounding * (length + reach)
    return constant, np.float32(slack), rounding


@compiled
def _best_first(
    query: Any, graph: Any, coded: Any, about: Any, settings: Any, row: int, key: float, room: Any, now: Any
) -> int:
    """Walk the lowest level from a node, and count the entries of those nodes that left the heap."""
    vectors, links, offsets, levels = graph
    inner, ef, k = settings
    visited, heap, left, fresh, state, seen = room
    heap[0], size, count, draining = entry_of(key, row), 1, 0, False
    seen[0], state[0], state[1] = key, 1, np.inf
    visited[row] = now
    while size:
        entry = heap[0]
        size = popped(heap, size)
        row = entry & _ROW
        if entry & _CODED:
            entry = entry_of(_key(query, vectors[row], inner), row) | (entry & _ASKED)
            if size and heap[0] < entry:
                size = pushed(heap, size, entry)
                continue
        if not draining and count >= ef and before(left, count, entry) >= ef:
            if k <= ef:
                break
            draining, ef = True, count + k  # of those that wait, the nearest k too are among the results
        left[count] = entry & ~_ASKED
        count += 1
        if not draining:
            found = _unseen(links, offsets[row], levels[1], visited, now, coded[0], fresh)
            _expect(graph, heap, size)
            size = _scored(fresh[:found], coded, about, inner, max(ef, k), heap, size, seen, state)
            _expect(graph, heap, size)
        elif count == ef:
            break
    return count


@compiled
def _new_generation(visited: Any, generation: Any) -> Any:
    """The number that marks what this search has seen."""
    generation[0] += np.uint8(1)
    if generation[0] == 0:
        visited[:] = 0
        generation[0] = 1
    return generation[0]


@compiled
def _unseen(links: Any, begin: int, most: int, visited: Any, now: Any, codes: Any, fresh: Any) -> int:
    """Note which nodes that one links to weren't seen yet, and ask for their codes."""
    found = 0
    for place in range(begin, begin + most):
        row = links[place]
        if row < 0:
            break
        if visited[row] != now:
            visited[row] = now
            fresh[found] = row
            found += 1
            _fetch(codes, row)
    return found


@compiled
def _expect(graph: Any, heap: Any, size: int) -> None:
    """Ask for what the nodes need that are likely to be next, once."""
    vectors, links, offsets, levels = graph
    for i in range(min(size, _SOON)):
        entry = heap[i]
        if not entry & _ASKED:
            heap[i] = entry | _ASKED
            row = entry & _ROW
            if entry & _CODED:
                _fetch(vectors, row)
            begin = links.ctypes.data + 4 * offsets[row]
            for place in range(begin, begin + 4 * levels[1], _LINE):
                wanted_soon(place)


@compiled
def _scored(
    fresh: Any,
    coded: Any,
    about: Any,
    inner: bool,
    room: int,
    heap: Any,
    size: int,
    seen: Any,
    state: Any,
) -> int:
    """Put nodes into the heap by the least that their keys can be; give its size.

    state: How many of the seen keys there are, each the most that it can be, and the limit.
    """
    codes, weights, step = coded
    constant, slack, rounding = about
    held, limit = int(state[0]), state[1]
    for row in fresh:
        if inner:
            middle = -(_product(codes[row], weights) + constant)
            least, most = middle - slack, middle + slack
        else:
            distance = math.sqrt(_distance(codes[row], weights, step))
            least = max(distance * (1 - rounding) - slack, np.float32(0))
            most = distance * (1 + rounding) + slack
            least, most = least * least * (1 - rounding), most * most * (1 + rounding)
        if least >= limit:
            continue
        size = pushed(heap, size, entry_of(np.float32(least), row) | _CODED)
        seen[held] = most
        held += 1
        if held == len(seen):  # at least so many are as near as the limit: what is farther plays no part
            seen[:] = np.partition(seen, room - 1)
            held, limit = room, seen[room - 1]
    state[0], state[1] = held, limit
    return size


@compiled
def _nearest(entries: Any, inner: bool, distances: Any, rows: Any) -> None:
    """The first of some entries."""
    k = len(rows)
    if k < len(entries):
        entries = entries[entries <= np.partition(entries, k - 1)[k - 1]]
    entries = np.sort(entries)
    for i in range(k):
        rows[i] = entries[i] & _ROW if i < len(entries) else -1
        key = key_of(entries[i]) if i < len(entries) else _FARTHEST
        distances[i] = -key if inner else key


@compiled
def _key(query: Any, vector: Any, inner: bool) -> Any:
    return -dot(query, vector) if inner else _squared(query, vector)


@compiled_sums
def _squared(query: Any, vector: Any) -> Any:
    total = np.float32(0)
    for i in range(len(query)):
        total += (query[i] - vector[i]) * (query[i] - vector[i])
    return total


@compiled_sums
def _product(code: Any, weights: Any) -> Any:
    total = np.float32(0)
    for i in range(len(code)):
        total += np.float32(code[i]) * weights[i]
    return total


@compiled_sums
def _distance(code: Any, weights: Any, step: Any) -> Any:
    total = np.float32(0)
    for i in range(len(code)):
        beyond = weights[i] - np.float32(code[i]) * step[i]
        total += beyond * beyond
    return total


@compiled
def _fetch(vectors: Any, row: int) -> None:
    """Ask for a row of a contiguous array."""
    size = vectors.strides[0]
    begin = vectors.ctypes.data + np.int64(row) * size
    for line in range(0, size, _LINE):
        wanted_soon(begin + line)
