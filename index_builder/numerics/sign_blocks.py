"""Sums of a query's whole numbers over the bits of many rows: sixty-four rows at a time, by tables.

Four bits of a row have a sum of four of the query's numbers, one of sixteen that a table holds; one instruction looks
up as many rows as a register has bytes. For that the rows lie in blocks: of all of them the first eight bits, then the
next. It takes a third of the time that counting the bits of one row after another does (`sign_sums`).

Source: André, Kermarrec and Le Scouarnec, "Cache locality is not enough", VLDB 2015, for tables in registers.
"""

from typing import Any

import numba
import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils

from index_builder.numerics.blas import cpu_flags
from index_builder.numerics.compiled import (
    address,
    compiled,
    compiled_sums,
    compiled_within,
    float_at,
    generated,
    larger_of,
)
from index_builder.numerics.sign_codes import estimated
from index_builder.numerics.sign_sums import bits_set

BLOCK = 64
"""Rows of a block."""

_FLAGS = cpu_flags()
_WIDE = {"avx512f", "avx512bw"} <= _FLAGS
_INSTRUCTION = "llvm.x86.avx512.pshuf.b.512" if _WIDE else "llvm.x86.avx2.pshuf.b" if "avx2" in _FLAGS else ""
_LANES = 64 if _WIDE else 32  # bytes of a register
_FACTS = 3  # numbers of each row that follow the bits of a block: apart, factor, and how many bits are set
_WIDEST = (2**16 - 1) // (15 * 8)  # bytes of bits: sums are counted in 16 bits
_I64 = ir.IntType(64)
_BYTES = ir.VectorType(ir.IntType(8), _LANES)
_PAIRS = ir.VectorType(ir.IntType(16), _LANES // 2)
_TABLE = ir.VectorType(ir.IntType(8), 16)


def takes(width: int) -> bool:
    """Whether this CPU has the instruction, and sums of rows of so many bytes of bits stay within their room."""
    return bool(_INSTRUCTION) and width <= _WIDEST


@compiled
def block_bytes(width: int) -> int:
    """What a block takes of rows with so many bytes of bits."""
    return BLOCK * (-(-width // 2) * 2 + 4 * _FACTS)


@compiled
def lay_out(place: int, codes: Any, n: int, blocks: Any) -> None:
    """Lay rows out in blocks.

    Args:
        place: Address of the first row.
        codes: As `SignCodes.for_kernels` gives them.
        n: How many rows.
        blocks: Takes them, bytes; `block_bytes` for each BLOCK rows. Of rows that a last block lacks there stays what
            was there, which must be numbers.
    """
    size, width = codes[0], codes[1]
    even = -(-width // 2) * 2
    for start in range(0, n, BLOCK):
        begin = start // BLOCK * block_bytes(width)
        end = begin + even * BLOCK
        facts = blocks[end : end + 4 * _FACTS * BLOCK].view(np.float32)
        if even > width:
            blocks[begin + width * BLOCK : end] = 0
        for r in range(min(BLOCK, n - start)):
            row = place + (start + r) * size
            stored = numba.carray(address(row), (width,), np.uint8)
            for j in range(width):
                blocks[begin + j * BLOCK + r] = stored[j]
            whole = width // 8
            words, count = numba.carray(address(row), (whole,), np.int64), np.int64(0)
            for w in range(whole):
                count += bits_set(words[w])
            for j in range(8 * whole, width):
                count += bits_set(np.int64(stored[j]))
            facts[r] = float_at(row + width)
            facts[BLOCK + r] = float_at(row + width + 4)
            facts[2 * BLOCK + r] = count


@compiled
def room_for_tables(numbers: Any) -> Any:
    """What `into_tables` writes to, and the sums and similarities of a block.

    Args:
        numbers: As `into_tables` has them.
    """
    return np.empty(4 * len(numbers), dtype=np.uint8), np.empty(BLOCK, np.uint16), np.empty(BLOCK, np.float32)


@compiled_within
def into_tables(numbers: Any, room: Any) -> None:
    """Add up a query's numbers, four by four, for each four bits that a row can have.

    Args:
        numbers: 0 to 15, int8, as many as a whole number of 64-bit words has bits.
        room: As `room_for_tables` makes it.
    """
    _add_up(numbers.ctypes.data, room[0].ctypes.data, 4 * len(numbers) // _LANES)


@compiled_within
def estimate_block(block: int, width: int, rounded: Any, room: Any) -> Any:
    """The largest similarity of a block's rows to a query; all of them are left in the room.

    Args:
        block: The block's address.
        width: Bytes of a row's bits.
        rounded: The query, as `index_builder.numerics.sign_codes.round_query` gives it.
        room: Where `into_tables` left its tables.
    """
    tables, sums, similarities = room
    pairs = -(-width // 2)
    _look_up(block, tables.ctypes.data, pairs, sums.ctypes.data)
    facts = numba.carray(address(block + 2 * pairs * BLOCK), (_FACTS, BLOCK), np.float32)
    return _estimated(facts, sums, rounded, similarities)


@compiled_sums
def _estimated(facts: Any, sums: Any, rounded: Any, similarities: Any) -> Any:
    largest = np.float32(-np.inf)
    for r in range(BLOCK):
        apart, factor, bits = facts[0, r], facts[1, r], facts[2, r]
        similarity = estimated(rounded, apart, factor, bits, np.float32(sums[r]))
        similarities[r] = similarity
        largest = larger_of(largest, similarity)
    return largest


@generated
def _add_up(_: Any, numbers: Any, tables: Any, steps: Any) -> Any:
    """`into_tables`, by addresses; a step is as many tables as a register holds."""

    def generate(_: Any, builder: Any, __: Any, arguments: Any) -> Any:
        numbers, tables, steps = arguments
        own = _LANES // 4  # numbers of a step
        few = ir.VectorType(ir.IntType(8), own)
        with cgutils.for_range(builder, steps) as loop:
            place = builder.add(numbers, builder.mul(loop.index, _I64(own)))
            some = _loaded(builder, place, few)
            # All of them in each sixteen bytes, since an instruction looks up within these.
            spread = _shuffled(builder, some, [lane % own for lane in range(_LANES)])
            total = ir.Constant(_BYTES, [0] * _LANES)
            for bit in range(4):
                picked = [
                    4 * (lane // 16) + bit if lane % 16 >> bit & 1 else -128 for lane in range(_LANES)
                ]  # -128 looks up nothing
                total = builder.add(total, _looked_up(builder, spread, ir.Constant(_BYTES, picked)))
            target = builder.add(tables, builder.mul(loop.index, _I64(_LANES)))
            builder.store(total, builder.inttoptr(target, _BYTES.as_pointer())).align = 1
        return _I64(0)

    return types.int64(numbers, tables, steps), generate


@generated
def _look_up(_: Any, block: Any, tables: Any, pairs: Any, sums: Any) -> Any:
    """The sums of a block's rows, 16 bits each, by addresses; `pairs` of bytes of bits."""

    def generate(_: Any, builder: Any, __: Any, arguments: Any) -> Any:
        block, tables, pairs, sums = arguments
        parts = range(BLOCK // _LANES)
        low, none = ir.Constant(_BYTES, [15] * _LANES), ir.Constant(_PAIRS, [0] * (_LANES // 2))
        four, eight = (ir.Constant(_PAIRS, [number] * (_LANES // 2)) for number in (4, 8))
        # Bytes are added up two at a time in 16 bits: all of both in `both`, what the second has in `second`.
        both, second = ([cgutils.alloca_once_value(builder, none) for _ in parts] for _ in range(2))
        with cgutils.for_range(builder, pairs) as loop:
            few = [ir.Constant(_BYTES, [0] * _LANES) for _ in parts]  # of four tables: at most 240
            for byte in range(2):
                begin = builder.add(tables, builder.add(builder.mul(loop.index, _I64(64)), _I64(32 * byte)))
                halves = [
                    _shuffled(
                        builder,
                        _loaded(builder, builder.add(begin, _I64(16 * half)), _TABLE),
                        [lane % 16 for lane in range(_LANES)],
                    )
                    for half in range(2)
                ]
                begin = builder.add(block, builder.mul(loop.index, _I64(2 * BLOCK)))
                for part in parts:
                    bits = _loaded(builder, builder.add(begin, _I64(BLOCK * byte + _LANES * part)), _BYTES)
                    upper = builder.bitcast(builder.lshr(builder.bitcast(bits, _PAIRS), four), _BYTES)
                    for table, asked in zip(halves, (bits, upper), strict=True):
                        found = _looked_up(builder, table, builder.and_(asked, low))
                        few[part] = builder.add(few[part], found)
            for part in parts:
                found = builder.bitcast(few[part], _PAIRS)
                builder.store(builder.add(builder.load(both[part]), found), both[part])
                found = builder.lshr(found, eight)
                builder.store(builder.add(builder.load(second[part]), found), second[part])
        for part in parts:
            odd = builder.load(second[part])
            even = builder.sub(builder.load(both[part]), builder.shl(odd, eight))
            order = [lane // 2 + lane % 2 * (_LANES // 2) for lane in range(_LANES)]
            total = _shuffled(builder, even, order, odd)
            place = builder.add(sums, _I64(2 * _LANES * part))
            builder.store(total, builder.inttoptr(place, total.type.as_pointer())).align = 1
        return _I64(0)

    return types.int64(block, tables, pairs, sums), generate


def _loaded(builder: Any, place: Any, kind: Any) -> Any:
    loaded = builder.load(builder.inttoptr(place, kind.as_pointer()))
    loaded.align = 1
    return loaded


def _shuffled(builder: Any, numbers: Any, order: list[int], others: Any = None) -> Any:
    others = ir.Constant(numbers.type, ir.Undefined) if others is None else others
    places = ir.Constant(ir.VectorType(ir.IntType(32), len(order)), order)
    return builder.shuffle_vector(numbers, others, places)


def _looked_up(builder: Any, tables: Any, places: Any) -> Any:
    """Of each byte what the table in its sixteen bytes says."""
    kind = ir.FunctionType(_BYTES, [_BYTES] * 2)
    return builder.call(builder.module.declare_intrinsic(_INSTRUCTION, (), kind), [tables, places])
