"""RaBitQ's codes: one bit a dimension, and two numbers a row; and what a query is rounded to for them.

Source: Gao and Long, "RaBitQ", SIGMOD 2024; the estimator is that of FAISS's `RaBitQuantizer`.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from index_builder.numerics.compiled import compiled, compiled_exactly, compiled_sums
from index_builder.numerics.faiss_library import load_faiss
from index_builder.numerics.pair_products import dot


@dataclass(frozen=True, slots=True)
class SignCodes:
    """What tells how they are scored."""

    width: int
    """Bytes of a row's bits; the two numbers follow, float32."""
    levels: int
    """What a query's values are rounded to, 0 to this."""
    kind: str = "signs"
    """What scoring costs goes by it."""

    @classmethod
    def of(cls, ivf: Any) -> "SignCodes | None":
        """Those of an IVF index; None for other kinds, more bits a dimension, and queries that aren't rounded.

        Args:
            ivf: A FAISS index, downcast.
        """
        if type(ivf) is not load_faiss().IndexIVFRaBitQ or ivf.rabitq.nb_bits != 1 or not 1 <= ivf.qb <= 8:
            return None
        return cls(-(-int(ivf.d) // 8), 2 ** int(ivf.qb) - 1)


@compiled
def round_query(
    query: Any, own: Any, centroid: Any, levels: int, shift: int, beyond: Any, rounded: Any, of_query: Any
) -> None:
    """Round what a query has beyond a centroid.

    Args:
        query: Shape (d,).
        own: 2 if similarities are 1 - |q - v|² / 2, the query's squared norm if they are inner products.
        centroid: Shape (d,).
        levels: The highest level of a query's numbers.
        shift: What is taken off the numbers.
        beyond: Takes what is rounded, float32, shape (d,).
        rounded: Takes the numbers, int8, shape (d,) or more.
        of_query: Takes what `estimate` needs of them, shape (4,).
    """
    d = len(query)
    unit = np.float32(1 / math.sqrt(d))
    lowest, step = _rounded(query, centroid, levels, shift, beyond, rounded)
    total = np.int32(0)
    for j in range(d):
        total += np.int32(rounded[j])
    # A query's value is lowest + step * number, a sum one of numbers less `shift`.
    lowest += np.float32(shift) * step
    of_query[0] = (own - dot(beyond, beyond)) / np.float32(2)
    of_query[1] = np.float32(2) * unit * lowest
    of_query[2] = -unit * (step * np.float32(total) + np.float32(d) * lowest)
    of_query[3] = np.float32(2) * unit * step


@compiled_exactly  # halves must round as FAISS rounds them
def _rounded(query: Any, centroid: Any, levels: int, shift: int, beyond: Any, numbers: Any) -> Any:
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
        numbers[j] = np.int8(np.int32((beyond[j] - lowest) * scale + np.float32(0.5)) - shift)
    return lowest, step


@compiled_sums
def estimate(total: Any, bits: Any, apart: Any, factor: Any, of_query: Any) -> Any:
    """A row's similarity to a query.

    Args:
        total: The query's whole numbers where the row's bits are set, added up.
        bits: How many of its bits are set.
        apart: The first number kept with it: its squared distance to the centroid, by inner product less its squared
            norm.
        factor: The second: what turns the inner product with its bits, as ±1/√d, into one with what it has beyond the
            centroid.
        of_query: As `round_query` leaves it.
    """
    with_bits = of_query[2] + of_query[1] * np.float32(bits) + of_query[3] * np.float32(total)
    return of_query[0] - apart / np.float32(2) + factor * with_bits
