"""RaBitQ's codes: one bit a dimension, and two numbers a row; what a query is rounded to for them, and what they say.

Source: Gao and Long, "RaBitQ", SIGMOD 2024; the estimator is that of FAISS's `RaBitQuantizer`.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from index_builder.numerics.compiled import compiled, compiled_exactly, compiled_sums, float_at
from index_builder.numerics.faiss_library import load_faiss
from index_builder.numerics.pair_products import dot
from index_builder.numerics.sign_sums import PLANES, TOGETHER, into_planes, row_sum


@dataclass(frozen=True, slots=True)
class SignCodes:
    """What tells how they are scored."""

    size: int
    """Bytes from one row to the next: its bits, then its two numbers, float32."""
    width: int
    """Bytes of bits."""
    levels: int
    """What a query's values are rounded to, 0 to this."""
    kind: str = "signs"
    """What scoring costs goes by it."""

    @classmethod
    def of(cls, ivf: Any) -> "SignCodes | None":
        """Those of an IVF index; None for other kinds, more bits a dimension, and queries of no or more than four bits.

        Args:
            ivf: A FAISS index, downcast.
        """
        if (
            type(ivf) is not load_faiss().IndexIVFRaBitQ
            or ivf.rabitq.nb_bits != 1
            or not 1 <= ivf.qb <= PLANES
        ):
            return None
        return cls(int(ivf.code_size), -(-int(ivf.d) // 8), 2 ** int(ivf.qb) - 1)

    @property
    def for_kernels(self) -> tuple[int, int, int, tuple[int, ...]]:
        """Size, width and levels, and as many zeros as there are groups of whole words of bits, see `row_sum`."""
        return self.size, self.width, self.levels, (0,) * (self.width // (8 * TOGETHER))


@compiled
def room_for_query(d: int, codes: Any) -> Any:
    """What `round_query` writes to: of a query what is beyond a centroid, the numbers, and their planes.

    Args:
        d: Dimensions.
        codes: As `SignCodes.for_kernels` gives them.
    """
    width = codes[1]
    words = -(-width // 8)
    planes = np.zeros((PLANES + 1, words), dtype=np.uint64)
    planes[PLANES] = ~np.uint64(0)
    if width % 8:
        planes[PLANES, words - 1] = (np.uint64(1) << np.uint64(8 * (width % 8))) - np.uint64(1)
    return np.empty(d, dtype=np.float32), np.zeros(64 * words, dtype=np.int8), planes


@compiled
def round_query(query: Any, own: Any, centroid: Any, codes: Any, room: Any) -> Any:
    """Round what a query has beyond a centroid, and give what `estimate_at` takes of it.

    Args:
        query: Shape (d,).
        own: 2 if similarities are 1 - |q - v|² / 2, the query's squared norm if they are inner products.
        centroid: Shape (d,).
        codes: As `SignCodes.for_kernels` gives them.
        room: As `room_for_query` makes it.
    """
    beyond, numbers, planes = room
    d = len(query)
    unit = np.float32(1 / math.sqrt(d))
    lowest, step = _rounded(query, centroid, codes[2], beyond, numbers)
    total = np.int32(0)
    for j in range(d):
        total += np.int32(numbers[j])
    into_planes(numbers, planes)
    # A query's value is lowest + step * number.
    constant = (own - dot(beyond, beyond)) / np.float32(2)
    alone = -unit * (step * np.float32(total) + np.float32(d) * lowest)
    by_bits, by_sum = np.float32(2) * unit * lowest, np.float32(2) * unit * step
    return planes.ctypes.data, planes.shape[1], constant, alone, by_bits, by_sum


@compiled_exactly  # halves must round as FAISS rounds them
def _rounded(query: Any, centroid: Any, levels: int, beyond: Any, numbers: Any) -> Any:
    """What a query has beyond a centroid, and the same as whole numbers: lowest + step * number."""
    for j in range(len(query)):
        beyond[j] = query[j] - centroid[j]
    # As whole numbers in the order of what they stand for: of these the ends are found many at once.
    bits, ends = beyond.view(np.int32), np.empty(2, dtype=np.int32)
    least, most = np.int32(0x7FFFFFFF), np.int32(-0x80000000)
    for j in range(len(query)):
        ordered = bits[j] ^ ((bits[j] >> np.int32(31)) & np.int32(0x7FFFFFFF))
        least, most = min(least, ordered), max(most, ordered)
    ends[0] = least ^ ((least >> np.int32(31)) & np.int32(0x7FFFFFFF))
    ends[1] = most ^ ((most >> np.int32(31)) & np.int32(0x7FFFFFFF))
    lowest, highest = ends.view(np.float32)
    step = (highest - lowest) / np.float32(levels)
    scale = np.float32(1) / max(step, np.float32(1e-30))
    for j in range(len(query)):
        # None is below zero: cutting off then rounds, halves up, as FAISS does.
        numbers[j] = np.int8(np.int32((beyond[j] - lowest) * scale + np.float32(0.5)))
    return lowest, step


@compiled_sums
def estimate_at(place: int, codes: Any, rounded: Any) -> Any:
    """The similarity of a row to a query.

    Args:
        place: The row's address.
        codes: As `SignCodes.for_kernels` gives them.
        rounded: The query, as `round_query` gives it.
    """
    planes, words, constant, alone, by_bits, by_sum = rounded
    total = row_sum(place, planes, words, codes[3])
    # The row's squared distance to the centroid, by inner product less its squared norm; and what turns the inner
    # product with its bits, as ±1/√d, into one with what it has beyond the centroid.
    apart, factor = float_at(place + codes[1]), float_at(place + codes[1] + 4)
    bits, numbers = np.float32(total >> 32), np.float32(total & 0xFFFFFFFF)
    return constant - apart / np.float32(2) + factor * (alone + by_bits * bits + by_sum * numbers)
