"""Functions that numba compiles for this machine's CPU when they are first called, and keeps for later processes.

The kernels of the retrieval core: many small steps on data that the CPU's cache holds, which no sequence of array
operations can do without writing out what is between them. No compiler is needed on the user's side.
"""

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar, cast

import numba
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

Function = TypeVar("Function", bound=Callable[..., Any])

_SUMS = {"reassoc", "contract", "nsz", "nnan", "arcp"}  # added up in any order: eight or sixteen at once


def cache_folder(package: Path, base: str) -> Path:
    """Where what is compiled of a package is kept, another place for each state of its code.

    numba itself looks at a function's own file alone: with a function that it calls from another file changed, what was
    compiled before would go on.

    Args:
        package: Its folder.
        base: The folder that the user named for numba's cache; empty is one beside the code.
    """
    digest = hashlib.sha256()
    for path in sorted(package.rglob("*.py")):
        digest.update(path.read_bytes())
    return Path(base or package / "__pycache__") / f"kernels-{digest.hexdigest()[:16]}"


numba.config.CACHE_DIR = str(cache_folder(Path(__file__).parents[1], numba.config.CACHE_DIR))


def compiled(function: Function) -> Function:
    """Compile a function of numbers and arrays; other threads run while it does."""
    return cast("Function", _compiled(function))


def compiled_sums(function: Function) -> Function:
    """The same where sums of floats may be added up in any order, always the same one; no NaN may come in."""
    return cast("Function", _compiled(function, fastmath=_SUMS))


def compiled_within(function: Function) -> Function:
    """Compile what is called often: it is made part of whatever calls it.

    A call costs more than a jump: numba counts who holds each array that is handed over, atomically each time.
    """
    return cast("Function", _compiled(function, forceinline=True))


def compiled_exactly(function: Function) -> Function:
    """The same where each operation must round by itself, as the source has it; no NaN may come in."""
    return cast("Function", _compiled(function, fastmath={"nnan", "nsz"}))


def _compiled(function: Any, **options: Any) -> Any:
    try:
        return numba.njit(cache=True, nogil=True, **options)(function)
    except RuntimeError:
        # Neither beside the code nor in the user's folder can anything be kept: compiled anew in each process.
        return numba.njit(nogil=True, **options)(function)


def generated(function: Callable[..., Any]) -> Callable[..., Any]:
    """What compiled functions call and LLVM's own language says: takes a typing context and types, gives both back."""
    made: Callable[..., Any] = intrinsic(function)
    return made


@generated
def address(_: Any, number: Any) -> Any:
    """A whole number as the address of an array, for `numba.carray`."""

    def generate(_: Any, builder: Any, __: Any, arguments: Any) -> Any:
        return builder.inttoptr(arguments[0], cgutils.voidptr_t)

    return types.voidptr(number), generate


@generated
def float_at(_: Any, place: Any) -> Any:
    """The float32 at an address, wherever it begins."""

    def generate(_: Any, builder: Any, __: Any, arguments: Any) -> Any:
        number = builder.load(builder.inttoptr(arguments[0], ir.FloatType().as_pointer()))
        number.align = 1
        return number

    return types.float32(place), generate


@generated
def float_of(_: Any, bits: Any) -> Any:
    """The float32 of 32 bits."""

    def generate(_: Any, builder: Any, __: Any, arguments: Any) -> Any:
        return builder.bitcast(arguments[0], ir.FloatType())

    return types.float32(bits), generate


@generated
def float_of_half(_: Any, number: Any) -> Any:
    """The float32 of a float16's 16 bits, many at once by the CPU's own instruction; a float32 as it is."""

    def generate(_: Any, builder: Any, __: Any, arguments: Any) -> Any:
        if number == types.float32:
            return arguments[0]
        return builder.fpext(builder.bitcast(arguments[0], ir.HalfType()), ir.FloatType())

    return types.float32(number), generate


@generated
def whole_of(_: Any, number: Any) -> Any:
    """A float32 cut off to a whole number of 32 bits, many at once, which Python's way to 64 bits isn't."""

    def generate(_: Any, builder: Any, __: Any, arguments: Any) -> Any:
        return builder.fptosi(arguments[0], ir.IntType(32))

    return types.int32(number), generate


@generated
def byte_of(_: Any, number: Any) -> Any:
    """The lowest 8 bits of a whole number."""

    def generate(_: Any, builder: Any, __: Any, arguments: Any) -> Any:
        return builder.trunc(arguments[0], ir.IntType(8))

    return types.int8(number), generate


@generated
def smaller_of(_: Any, first: Any, second: Any) -> Any:
    """The smaller of two float32, of which loops find that of many at once; no NaN."""
    return types.float32(first, second), _either("llvm.minnum")


@generated
def larger_of(_: Any, first: Any, second: Any) -> Any:
    """The larger one, likewise."""
    return types.float32(first, second), _either("llvm.maxnum")


def _either(instruction: str) -> Callable[..., Any]:
    def generate(_: Any, builder: Any, __: Any, arguments: Any) -> Any:
        number = ir.FloatType()
        function = builder.module.declare_intrinsic(
            instruction, (number,), ir.FunctionType(number, [number] * 2)
        )
        return builder.call(function, arguments, fastmath=("nnan", "nsz"))

    return generate


@generated
def bits_of(_: Any, number: Any) -> Any:
    """The 32 bits of a float32."""

    def generate(_: Any, builder: Any, __: Any, arguments: Any) -> Any:
        return builder.bitcast(arguments[0], ir.IntType(32))

    return types.int32(number), generate


@generated
def lowest_bit(_: Any, number: Any) -> Any:
    """Which bit of a whole number is the lowest that is set, from 0; one is."""

    def generate(_: Any, builder: Any, __: Any, arguments: Any) -> Any:
        return builder.cttz(arguments[0], ir.Constant(ir.IntType(1), 1))

    return types.int64(types.int64), generate


@generated
def wanted_soon(_: Any, place: Any) -> Any:
    """Have the bytes at an address brought into the CPU's second cache, which takes in more at once than the first."""

    def generate(_: Any, builder: Any, __: Any, arguments: Any) -> Any:
        number, byte = ir.IntType(32), ir.IntType(8).as_pointer()
        kind = ir.FunctionType(ir.VoidType(), [byte, number, number, number])
        fetch = builder.module.declare_intrinsic("llvm.prefetch", (byte,), kind)
        builder.call(fetch, [builder.inttoptr(arguments[0], byte), number(0), number(2), number(1)])
        return ir.Constant(ir.IntType(64), 0)

    return types.int64(place), generate
