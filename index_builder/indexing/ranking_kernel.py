"""Candidates of a query multiplied with the vectors themselves, float16 rows here and there in a file, compiled.

What takes the time is waiting for rows from memory. While one is multiplied, the CPU is told which come next.
"""

from typing import Any

import numpy as np
from llvmlite import ir
from numba import types

from index_builder.numerics.compiled import compiled, compiled_sums, generated
from index_builder.numerics.half_floats import EXPONENT
from index_builder.numerics.pair_products import widened_bits

_AHEAD = 4  # rows
_LINE = 64  # bytes that come from memory at once


@generated
def _wanted_soon(_: Any, place: Any) -> Any:
    """Have the bytes at an address brought into the CPU's cache; others go on meanwhile."""

    def generate(_: Any, builder: Any, __: Any, arguments: Any) -> Any:
        number, byte = ir.IntType(32), ir.IntType(8).as_pointer()
        kind = ir.FunctionType(ir.VoidType(), [byte, number, number, number])
        fetch = builder.module.declare_intrinsic("llvm.prefetch", (byte,), kind)
        builder.call(fetch, [builder.inttoptr(arguments[0], byte), number(0), number(3), number(1)])
        return ir.Constant(ir.IntType(64), 0)

    return types.int64(place), generate


@generated
def _as_float(_: Any, bits: Any) -> Any:
    """The float32 of these 32 bits."""

    def generate(_: Any, builder: Any, __: Any, arguments: Any) -> Any:
        return builder.bitcast(arguments[0], ir.FloatType())

    return types.float32(bits), generate


@compiled_sums
def products_with_halves(query: Any, rows: Any, vectors: Any, products: Any) -> None:
    """Inner products of a query with rows of float16 vectors; equal rows get equal ones.

    Args:
        query: Shape (d,), float32.
        rows: Row numbers, shape (m,); below 0 for none.
        vectors: Shape (n, d), float16, finite, as uint16; contiguous.
        products: Takes them, shape (m,), float32; -inf where there is no row.
    """
    d = vectors.shape[1]
    begin, size = vectors.ctypes.data, 2 * d
    for place in range(-_AHEAD, len(rows)):
        if place + _AHEAD < len(rows) and rows[place + _AHEAD] >= 0:
            soon = begin + rows[place + _AHEAD] * size
            for line in range(0, size, _LINE):
                _wanted_soon(soon + line)
        if place < 0:
            continue
        if rows[place] < 0:
            products[place] = -np.inf
            continue
        stored = vectors[rows[place]]
        total = np.float32(0)
        for i in range(d):
            total += _as_float(widened_bits(stored[i])) * query[i]
        products[place] = total * EXPONENT


@compiled
def rank_halves(query: Any, candidates: Any, vectors: Any, similarities: Any, rows: Any) -> None:
    """The nearest of candidates, highest similarity first, equals by row.

    Args:
        query: As of `products_with_halves`, and so are vectors.
        candidates: Row numbers, shape (m,); below 0 for none.
        vectors: Shape (n, d).
        similarities: Takes as many as it has room for, m at most; shape (k,).
        rows: Takes theirs, shape (k,).
    """
    k, numbers = len(rows), np.sort(candidates)  # in the order of the file
    exact = np.empty(len(numbers), dtype=np.float32)
    products_with_halves(query, numbers, vectors, exact)
    if k < len(exact):
        near = np.flatnonzero(exact >= np.partition(exact, len(exact) - k)[len(exact) - k])
        numbers, exact = numbers[near], exact[near]
    order = np.argsort(-exact, kind="mergesort")  # which leaves equals in their order
    for i in range(k):
        similarities[i], rows[i] = exact[order[i]], numbers[order[i]]
