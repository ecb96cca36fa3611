"""Sums of a query's whole numbers over the bits of single rows: by planes of bits, counted many at once.

A number of four bits is its bits times 1, 2, 4 and 8. So the sum of a query's numbers where a row's bits are set is
what the row has in common with four planes, the first bits of all numbers, the second ones and so on, counted.
"""

from typing import Any

import numba
import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils

from index_builder.numerics.compiled import address, compiled, generated

PLANES = 4
"""Bits of a number."""

TOGETHER = 4  # words of a row that are counted at once
_I64 = ir.IntType(64)
_WORDS, _BYTES = ir.VectorType(_I64, TOGETHER), ir.VectorType(ir.IntType(8), 64)


@compiled
def room_for_planes(width: int) -> Any:
    """What `into_planes` writes to, and a last plane that stays: what bits there are.

    Args:
        width: Bytes of a row's bits.
    """
    words = -(-width // 8)
    planes = np.zeros((PLANES + 1, words), dtype=np.uint64)
    planes[PLANES] = ~np.uint64(0)
    if width % 8:
        planes[PLANES, words - 1] = (np.uint64(1) << np.uint64(8 * (width % 8))) - np.uint64(1)
    return planes


@compiled
def into_planes(numbers: Any, planes: Any) -> None:
    """Lay out a query's numbers.

    Args:
        numbers: 0 to 15, shape (64 · words,), int8; those beyond d are 0.
        planes: Takes them, see `room_for_planes`; bit j of word w of a plane is that of number 64 w + j.
    """
    _split(numbers.ctypes.data, planes.ctypes.data, planes.shape[1])


@compiled
def row_sum(place: int, planes: int, words: int, groups: Any) -> Any:
    """The sum of the numbers where a row's bits are set, and 2^32 times how many bits are.

    Args:
        place: Address of the row's bits. Up to 7 bytes after them are read.
        planes: Address of planes as `into_planes` leaves them, (PLANES + 1, words).
        words: Of a plane.
        groups: A tuple of as many places as there are TOGETHER whole words of bits.
    """
    total = _common(place, planes, words, groups)
    if len(groups) * TOGETHER < words:
        row = numba.carray(address(place), (words,), np.uint64)
        masks = numba.carray(address(planes), (PLANES + 1, words), np.uint64)
        for w in range(len(groups) * TOGETHER, words):
            for bit in range(PLANES):
                total += bits_set(row[w] & masks[bit, w]) << bit
            total += bits_set(row[w] & masks[PLANES, w]) << 32
    return total


@generated
def _split(_: Any, numbers: Any, planes: Any, words: Any) -> Any:
    """`into_planes`, by addresses."""

    def generate(_: Any, builder: Any, __: Any, arguments: Any) -> Any:
        numbers, planes, words = arguments
        first, target = (
            builder.inttoptr(place, kind.as_pointer()) for place, kind in ((numbers, _BYTES), (planes, _I64))
        )
        with cgutils.for_range(builder, words) as loop:
            some = builder.load(builder.gep(first, [loop.index]))
            some.align = 1
            for bit in range(PLANES):  # to where the sign is
                signs = builder.shl(some, ir.Constant(_BYTES, [7 - bit] * 64))
                word = builder.bitcast(builder.icmp_signed("<", signs, ir.Constant(_BYTES, [0] * 64)), _I64)
                place = builder.add(loop.index, builder.mul(words, _I64(bit)))
                builder.store(word, builder.gep(target, [place]))
        return _I64(0)

    return types.int64(numbers, planes, words), generate


@generated
def _common(_: Any, row: Any, planes: Any, words: Any, groups: Any) -> Any:
    """A row's first words counted against all planes, by addresses; as many groups of words as `groups` has places."""

    def generate(_: Any, builder: Any, __: Any, arguments: Any) -> Any:
        row, planes, words, _ = arguments
        name = f"llvm.ctpop.v{TOGETHER}i64"
        count = builder.module.declare_intrinsic(name, (), ir.FunctionType(_WORDS, [_WORDS]))
        begins = [row] + [builder.add(planes, builder.mul(words, _I64(8 * i))) for i in range(PLANES)]
        counts = [_everywhere(0)] * (PLANES + 1)
        for group in range(len(groups)):
            first = _I64(8 * TOGETHER * group)
            some = [
                builder.load(builder.inttoptr(builder.add(begin, first), _WORDS.as_pointer()))
                for begin in begins
            ]
            for each in some:
                each.align = 1
            shared = [builder.and_(some[0], plane) for plane in some[1:]] + [some[0]]
            counts = [
                builder.add(known, builder.call(count, [each]))
                for known, each in zip(counts, shared, strict=True)
            ]
        total = _everywhere(0)
        for counted, shift in zip(counts, (*range(PLANES), 32), strict=True):
            total = builder.add(total, builder.shl(counted, _everywhere(shift)))
        name = f"llvm.vector.reduce.add.v{TOGETHER}i64"
        add_up = builder.module.declare_intrinsic(name, (), ir.FunctionType(_I64, [_WORDS]))
        return builder.call(add_up, [total])

    return types.int64(row, planes, words, groups), generate


@generated
def bits_set(_: Any, word: Any) -> Any:
    """How many bits of a word are set."""

    def generate(_: Any, builder: Any, __: Any, arguments: Any) -> Any:
        count = builder.module.declare_intrinsic("llvm.ctpop", (_I64,), ir.FunctionType(_I64, [_I64]))
        return builder.call(count, [arguments[0]])

    return types.int64(word), generate


def _everywhere(number: int) -> Any:
    return ir.Constant(_WORDS, [number] * TOGETHER)
