"""RaBitQ's codes: one bit a dimension, and two numbers a row; what a query is rounded to for them, and what they say.

Source: Gao and Long, "RaBitQ", SIGMOD 2024; the estimator is that of FAISS's `RaBitQuantizer`.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from index_builder.numerics.compiled import (
    byte_of,
    compiled,
    compiled_exactly,
    compiled_sums,
    compiled_within,
    float_at,
    larger_of,
    smaller_of,
    whole_of,
)
from index_builder.numerics.faiss_library import load_faiss
from index_builder.numerics.sign_sums import PLANES, TOGETHER, row_sum


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
    """What a query is rounded in: what it has beyond a centroid, and the numbers, as many as there are bits in words.

    Args:
        d: Dimensions.
        codes: As `SignCodes.for_kernels` gives them.
    """
    return np.empty(d, dtype=np.float32), np.zeros(64 * -(-codes[1] // 8), dtype=np.int8)


@compiled_within
def round_query(query: Any, own: Any, centroid: Any, codes: Any, room: Any) -> Any:
    """Round what a query has beyond a centroid, and give what `estimated` takes of it.

    Args:
        query: Shape (d,).
        own: 2 if similarities are 1 - |q - v|² / 2, the query's squared norm if they are inner products.
        centroid: Shape (d,).
        codes: As `SignCodes.for_kernels` gives them.
        room: As `room_for_query` makes it; the numbers are left in it.
    """
    beyond, numbers = room
    d = len(query)
    unit = np.float32(1 / math.sqrt(d))
    lowest, highest, squared = _beyond(query, centroid, beyond)
    step = (highest - lowest) / np.float32(codes[2])
    total = _numbers(beyond, lowest, np.float32(1) / max(step, np.float32(1e-30)), numbers)
    # A query's value is lowest + step * number.
    constant = (own - squared) / np.float32(2)
    alone = -unit * (step * np.float32(total) + np.float32(d) * lowest)
    by_bits, by_sum = np.float32(2) * unit * lowest, np.float32(2) * unit * step
    return constant, alone, by_bits, by_sum


@compiled_sums
def _beyond(query: Any, centroid: Any, beyond: Any) -> Any:
    """What a query has beyond a centroid; of that the least, the most and the squared norm."""
    lowest, highest, squared = np.float32(np.inf), np.float32(-np.inf), np.float32(0)
    for j in range(len(query)):
        value = query[j] - centroid[j]
        beyond[j] = value
        lowest, highest = smaller_of(lowest, value), larger_of(highest, value)
        squared += value * value
    return lowest, highest, squared


@compiled_exactly  # halves must round as FAISS rounds them
def _numbers(beyond: Any, lowest: Any, scale: Any, numbers: Any) -> Any:
    """The same as whole numbers of steps above the least, and their sum."""
    total = np.int32(0)
    for j in range(len(beyond)):
        # None is below zero: cutting off then rounds, halves up, as FAISS does.
        number = whole_of((beyond[j] - lowest) * scale + np.float32(0.5))
        numbers[j] = byte_of(number)
        total = np.int32(total + number)
    return total


@compiled_exactly  # alike wherever it is made part of a loop
def estimated(rounded: Any, apart: Any, factor: Any, bits: Any, total: Any) -> Any:
    """The similarity of a row to a query.

    Args:
        rounded: The query, as `round_query` gives it.
        apart: The row's squared distance to the centroid, by inner product less its squared norm.
        factor: What turns the inner product with its bits, as ±1/√d, into one with what it has beyond the centroid.
        bits: How many of its bits are set.
        total: The sum of the query's numbers where they are.
    """
    constant, alone, by_bits, by_sum = rounded
    return constant - apart / np.float32(2) + factor * (alone + by_bits * bits + by_sum * total)


@compiled_within
def estimate_rows(place: int, count: int, codes: Any, planes: Any, rounded: Any, similarities: Any) -> Any:
    """The largest similarity of some rows to a query; all of them are written down.

    Args:
        place: Address of the first row.
        count: How many.
        codes: As `SignCodes.for_kernels` gives them.
        planes: Of the query's numbers, as `into_planes` leaves them.
        rounded: The query, as `round_query` gives it.
        similarities: Takes them.
    """
    largest = np.float32(-np.inf)
    for r in range(count):
        row = place + r * codes[0]
        total = row_sum(row, planes.ctypes.data, planes.shape[1], codes[3])
        apart, factor = float_at(row + codes[1]), float_at(row + codes[1] + 4)
        bits, numbers = np.float32(total >> 32), np.float32(total & 0xFFFFFFFF)
        similarities[r] = estimated(rounded, apart, factor, bits, numbers)
        largest = larger_of(largest, similarities[r])
    return largest
