"""A heap of rows by a float32 key, the lowest first, each entry one whole number; for what is compiled.

A key's bits, put in the order of what they stand for, lie above the row: entries compare as whole numbers do.
"""

from typing import Any

import numpy as np

from index_builder.numerics.compiled import bits_of, compiled, float_of


@compiled
def entry_of(key: Any, row: int) -> Any:
    """A key and its row as one whole number in the order of the keys."""
    bits = bits_of(np.float32(key))
    return (np.int64(bits ^ ((bits >> np.int32(31)) & np.int32(0x7FFFFFFF))) << 32) | np.int64(row)


@compiled
def key_of(entry: int) -> Any:
    """The key of an entry, float32."""
    ordered = np.int32(entry >> 32)
    return float_of(np.int32(ordered ^ ((ordered >> np.int32(31)) & np.int32(0x7FFFFFFF))))


@compiled
def before(entries: Any, count: int, entry: int) -> int:
    """How many have a lower key."""
    lowest, before = entry >> 32 << 32, 0
    for i in range(count):
        before += entries[i] < lowest
    return before


@compiled
def pushed(heap: Any, size: int, entry: int) -> int:
    """Put an entry into the heap, whose least comes first; give its size."""
    place = size
    while place and entry < heap[(place - 1) >> 1]:
        heap[place] = heap[(place - 1) >> 1]
        place = (place - 1) >> 1
    heap[place] = entry
    return size + 1


@compiled
def popped(heap: Any, size: int) -> int:
    """Take the first entry out of the heap; give its size."""
    size -= 1
    entry, place = heap[size], 0
    # The gap goes down to the end without a comparison that the CPU would have to guess, the last entry up from there.
    while 2 * place + 2 < size:
        child = 2 * place + 1
        child += heap[child + 1] < heap[child]
        heap[place] = heap[child]
        place = child
    if 2 * place + 1 < size:
        heap[place] = heap[2 * place + 1]
        place = 2 * place + 1
    pushed(heap, place, entry)
    return size
