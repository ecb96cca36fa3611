"""Products of a few vectors of 8-bit whole numbers with a panel of rows laid out for it, as the CPU does them fastest.

A panel is two groups of LANES rows. A group lies in memory as d / 4 times four numbers of each of its rows: what one
instruction multiplies with four numbers of a query. Sums are 32 bits wide and exact.
"""

from typing import Any

import numba
import numpy as np
import numpy.typing as npt
from llvmlite import ir
from numba import types
from numba.core import cgutils

from index_builder.numerics.blas import cpu_flags
from index_builder.numerics.compiled import address, compiled, generated

_FLAGS = cpu_flags()
_INSTRUCTION = (
    "llvm.x86.avx512.vpdpbusd.512"
    if {"avx512f", "avx512_vnni"} <= _FLAGS
    else "llvm.x86.avx512.vpdpbusd.256"
    if {"avx2", "avx_vnni"} <= _FLAGS
    else "llvm.x86.avx2.pmadd.wd"
    if "avx2" in _FLAGS
    else ""
)

LANES = 8 if _INSTRUCTION.endswith((".256", ".wd")) else 16
"""Rows of a group."""

QUERIES = 8 if LANES == 16 else 4
"""Queries multiplied at once."""

ROWS = 2 * LANES
"""Rows of a panel."""

_I32, _I64 = ir.IntType(32), ir.IntType(64)
_VECTOR = ir.VectorType(_I32, LANES)


def room(*shape: int) -> npt.NDArray[np.int32]:
    """New memory that begins where a register's worth of bytes does."""
    size = int(np.prod(shape))
    memory = np.zeros(size + 16, dtype=np.int32)
    begins = -memory.ctypes.data % 64 // 4
    return memory[begins : begins + size].reshape(shape)


@generated
def _multiply(_: Any, panel: Any, asked: Any, quarter: Any, products: Any) -> Any:
    """The loop over d: `panel`, `asked` and `products` are addresses, `quarter` is d / 4."""

    def generate(_: Any, builder: Any, __: Any, arguments: Any) -> Any:
        panel, asked, quarter, products = arguments
        numbers = [
            builder.inttoptr(
                builder.load(builder.gep(_pointer(builder, asked, _I64), [_I64(i)])), _I32.as_pointer()
            )
            for i in range(QUERIES)
        ]
        first = _pointer(builder, panel, _VECTOR)
        sums = [
            cgutils.alloca_once_value(builder, ir.Constant(_VECTOR, [0] * LANES)) for _ in range(2 * QUERIES)
        ]
        with cgutils.for_range(builder, quarter) as loop:
            groups = []
            for g in range(2):
                place = builder.add(loop.index, builder.mul(quarter, _I64(g)))
                group = builder.load(builder.gep(first, [place]))
                group.align = 4 * LANES
                groups.append(_split_rows(builder, group))
            for i in range(QUERIES):
                four = builder.load(builder.gep(numbers[i], [loop.index]))
                four.align = 1
                query = _split_query(builder, _everywhere(builder, four))
                for g in range(2):
                    total = sums[2 * i + g]
                    builder.store(_added(builder, builder.load(total), groups[g], query), total)
        out = _pointer(builder, products, _VECTOR)
        for i, total in enumerate(sums):
            builder.store(builder.load(total), builder.gep(out, [_I64(i)])).align = 4 * LANES
        return ir.Constant(_I64, 0)

    return types.int64(types.int64, types.int64, types.int64, types.int64), generate


def _pointer(builder: Any, number: Any, kind: Any) -> Any:
    return builder.inttoptr(number, kind.as_pointer())


def _everywhere(builder: Any, number: Any) -> Any:
    undefined = ir.Constant(_VECTOR, ir.Undefined)
    one = builder.insert_element(undefined, number, _I32(0))
    return builder.shuffle_vector(one, undefined, ir.Constant(_VECTOR, [0] * LANES))


def _constant(number: int) -> Any:
    return ir.Constant(_VECTOR, [number] * LANES)


def _split_rows(builder: Any, rows: Any) -> list[Any]:
    """Four bytes without a sign in each lane; for pmaddwd as two times two of 16 bits."""
    if not _INSTRUCTION.endswith(".wd"):
        return [rows]
    low = _constant(0x00FF00FF)
    return [builder.and_(rows, low), builder.and_(builder.lshr(rows, _constant(8)), low)]


def _split_query(builder: Any, query: Any) -> list[Any]:
    """Four bytes with a sign in each lane, likewise."""
    if not _INSTRUCTION.endswith(".wd"):
        return [query]
    half = ir.VectorType(ir.IntType(16), 2 * LANES)
    eight = ir.Constant(half, [8] * 2 * LANES)
    whole = builder.bitcast(query, half)
    return [
        builder.bitcast(builder.ashr(builder.shl(whole, eight), eight), _VECTOR),
        builder.bitcast(builder.ashr(whole, eight), _VECTOR),
    ]


def _added(builder: Any, total: Any, rows: list[Any], query: list[Any]) -> Any:
    """`total` and the products of four numbers a lane."""
    if not _INSTRUCTION.endswith(".wd"):
        kind = ir.FunctionType(_VECTOR, [_VECTOR] * 3)
        return builder.call(
            builder.module.declare_intrinsic(_INSTRUCTION, (), kind), [total, rows[0], query[0]]
        )
    half = ir.VectorType(ir.IntType(16), 2 * LANES)
    instruction = builder.module.declare_intrinsic(_INSTRUCTION, (), ir.FunctionType(_VECTOR, [half] * 2))
    for row, number in zip(rows, query, strict=True):
        pair = [builder.bitcast(each, half) for each in (row, number)]
        total = builder.add(total, builder.call(instruction, pair))
    return total


def _multiplied_plainly(panel: Any, asked: Any, quarter: int, products: Any) -> None:
    """The same where no instruction of the CPU's is known."""
    rows, byte = panel.reshape(2, quarter, LANES), np.int32(255)
    sums = np.empty(LANES, dtype=np.int32)
    for i in range(QUERIES):
        numbers = numba.carray(address(asked[i]), (quarter, 4), np.int8)
        for g in range(2):
            sums[:] = 0
            for place in range(quarter):
                first, second = np.int32(numbers[place, 0]), np.int32(numbers[place, 1])
                third, fourth = np.int32(numbers[place, 2]), np.int32(numbers[place, 3])
                for lane in range(LANES):  # all at once, in what registers there are
                    four = rows[g, place, lane]
                    total = (four & byte) * first + ((four >> np.int32(8)) & byte) * second
                    total += ((four >> np.int32(16)) & byte) * third + (
                        (four >> np.int32(24)) & byte
                    ) * fourth
                    sums[lane] += total
            for lane in range(LANES):
                products[i, g * LANES + lane] = sums[lane]


def _multiplied_by_instruction(panel: Any, asked: Any, quarter: int, products: Any) -> None:
    _multiply(panel.ctypes.data, asked.ctypes.data, quarter, products.ctypes.data)


multiplied = compiled(_multiplied_by_instruction if _INSTRUCTION else _multiplied_plainly)
"""Fill in products, shape (QUERIES, ROWS).

Args:
    panel: `room` of 2 · d / 4 · LANES, laid out by `laid_out`.
    asked: Addresses of QUERIES vectors of d numbers with a sign, shape (QUERIES,), int64.
    quarter: d / 4.
    products: `room` of (QUERIES, ROWS).
"""


@generated
def reaching(_: Any, products: Any, bound: Any) -> Any:
    """Which of one vector's products with a panel's rows are at least `bound`: of each row a bit.

    Args:
        products: Address of ROWS products, 32 bits each.
        bound: int32.
    """

    def generate(_: Any, builder: Any, __: Any, arguments: Any) -> Any:
        products, bound = arguments
        first, least, found = _pointer(builder, products, _VECTOR), _everywhere(builder, bound), _I64(0)
        for g in range(2):
            some = builder.load(builder.gep(first, [_I64(g)]))
            some.align = 4
            bits = builder.bitcast(builder.icmp_signed(">=", some, least), ir.IntType(LANES))
            found = builder.or_(found, builder.shl(builder.zext(bits, _I64), _I64(g * LANES)))
        return found

    return types.int64(products, types.int32), generate


@compiled
def laid_out(rows: Any, panel: Any, count: int) -> None:
    """Lay rows out as a panel.

    Args:
        rows: Shape (ROWS, d), uint8, contiguous.
        panel: `room` of 2 · d / 4 · LANES.
        count: How many of the rows count; what stands for the rest is not defined.
    """
    quarter = rows.shape[1] // 4
    fours = rows.view(np.int32)
    lanes = panel.reshape(2, quarter, LANES)
    for g in range(-(-count // LANES)):
        for place in range(quarter):
            for lane in range(LANES):
                lanes[g, place, lane] = fours[g * LANES + lane, place]
