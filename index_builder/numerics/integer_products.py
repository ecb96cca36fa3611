"""Inner products of vectors rounded to small whole numbers: several times faster, and the same on every machine.

A product of whole numbers has no rounding of its own, in whatever order it is added up. So neither the
kernel nor the number of threads changes what it gives, which no product of floats can promise.
"""

import math
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

import numpy as np
import numpy.typing as npt

from index_builder.numerics.blas import cpu_flags
from index_builder.numerics.stored_vectors import VectorSource
from spine.tables import Vectors

Codes = npt.NDArray[np.int8]
"""Vectors as whole numbers of a grid's steps from its middle, shape (n, d)."""

_REACH = 8.0  # standard deviations that the grid spans to each side; what lies beyond is cut off
_FINEST = 1e-4  # least step: keeps a centroid's constant part within 32 bits
_SAMPLED = 16_384  # vectors that the grid is laid by
_BLOCK_VALUES = 2**26  # of a block of embeddings
_READ = 2_048  # embeddings that a thread reads at once
_CACHED = 256  # vectors rounded at once: they stay in the CPU's cache
_PRODUCTS = 2**22  # held at once
_OTHERS = 2**14  # compared with at once
_VNNI = {"avx512_vnni", "avx_vnni", "amx_int8"}  # CPUs that multiply 8-bit numbers faster than floats


@dataclass(frozen=True)
class Grid:
    """A middle and a step in each direction from it.

    The middle is taken off since CLIP vectors lie in a cone, with single dimensions far from zero that
    would otherwise use up the few levels there are.
    """

    middle: Vectors
    """Shape (d,)."""

    step: float
    """Length of one level."""

    levels: int
    """Codes go from -levels to levels."""

    @classmethod
    def of(cls, vectors: Vectors) -> "Grid":
        """The grid for vectors like these.

        Args:
            vectors: Shape (n, d), n at least 1.
        """
        sample = vectors[:: max(1, len(vectors) // _SAMPLED)]
        middle = sample.mean(axis=0, dtype=np.float64).astype(np.float32)
        offsets = sample - middle
        deviation = math.sqrt(np.square(offsets).mean(dtype=np.float64))
        # At most so many that every product stays below 2^24: up to there float32 too counts exactly.
        levels = min(127, math.isqrt((2**24 - 1) // vectors.shape[1]))
        reach = min(float(np.abs(offsets).max()), _REACH * deviation)
        return cls(middle, max(reach / levels, _FINEST), levels)

    def codes(self, vectors: Vectors) -> Codes:
        """Vectors (n, d) rounded to the grid, shape (n, d)."""
        codes = np.empty(vectors.shape, dtype=np.int8)
        for start in range(0, len(vectors), _CACHED):
            steps = vectors[start : start + _CACHED] - self.middle
            steps *= np.float32(1 / self.step)
            np.rint(steps, out=steps)
            codes[start : start + _CACHED] = np.clip(steps, -self.levels, self.levels, out=steps)
        return codes

    def constants(self, centroids: Vectors, *, spherical: bool) -> npt.NDArray[np.int32]:
        """What to add to the products with each centroid, so that they order centroids by nearness; shape (k,)."""
        # einsum adds up in one fixed order; BLAS may add up in another with more threads.
        constants = np.einsum("ij,j->i", centroids, self.middle, dtype=np.float64)
        if not spherical:
            constants -= np.einsum("ij,ij->i", centroids, centroids, dtype=np.float64) / 2
        steps: npt.NDArray[np.int32] = np.rint(constants / self.step**2).astype(np.int32)
        return steps

    def nearness(self, products: npt.NDArray[np.int32], offsets: Vectors) -> npt.NDArray[np.float32]:
        """Similarities from products with their constants added, both (n,); lower by |c|²/2 in plain k-means."""
        return (products * self.step**2 + offsets).astype(np.float32)

    def offsets(self, vectors: Vectors) -> Vectors:
        """The part of each vector's similarity that is the same to all centroids, shape (n,)."""
        of_middle = np.einsum("i,i->", self.middle, self.middle)
        offsets: Vectors = np.einsum("ij,j->i", vectors, self.middle) - of_middle
        return offsets


@dataclass(frozen=True)
class Block:
    """Consecutive embeddings, and the whole numbers that stand for them."""

    start: int
    """Number of the first."""

    vectors: Vectors
    """Shape (m, d)."""

    codes: Codes
    """Shape (m, d)."""

    @property
    def rows(self) -> slice:
        """Their numbers."""
        return slice(self.start, self.start + len(self.vectors))


@dataclass(frozen=True)
class Space:
    """Embeddings, and the whole numbers that stand for them in products."""

    embeddings: VectorSource
    """Shape (n, d), float32, rows of L2 norm 1."""

    grid: Grid

    kept: Codes | None
    """Shape (n, d), of embeddings in memory. Those on disk are rounded whenever they are read."""

    room: Block
    """Where a block of embeddings on disk is read to; memory that is new each time costs more than reading."""

    @classmethod
    def of(cls, embeddings: VectorSource) -> "Space":
        """Lay a grid for the embeddings; n·d bytes where they are in memory."""
        n, d = embeddings.shape
        grid = Grid.of(embeddings[np.arange(0, n, max(1, n // _SAMPLED))])
        kept = grid.codes(embeddings) if isinstance(embeddings, np.ndarray) else None
        rows = min(n, _block_rows(d)) if kept is None else 0
        return cls(
            embeddings, grid, kept, Block(0, np.empty((rows, d), np.float32), np.empty((rows, d), np.int8))
        )

    def codes(self, rows: npt.NDArray[np.integer[Any]]) -> Codes:
        """The whole numbers of some embeddings, shape (m, d)."""
        return (
            self.kept.take(rows, axis=0) if self.kept is not None else self.grid.codes(self.embeddings[rows])
        )

    def blocks(self, pool: ThreadPoolExecutor) -> Iterator[Block]:
        """All embeddings in order, 5 bytes a value at once: 335 MB whatever n and d are. A block ends with the next.

        Args:
            pool: Threads that read what is on disk.
        """
        n, d = self.embeddings.shape
        for start in range(0, n, _block_rows(d)):
            stop = min(start + _block_rows(d), n)
            if self.kept is not None:
                yield Block(start, self.embeddings[start:stop], self.kept[start:stop])
                continue
            block = Block(start, self.room.vectors[: stop - start], self.room.codes[: stop - start])
            list(pool.map(partial(self._read, block), range(0, stop - start, _READ)))
            yield block

    def _read(self, block: Block, first: int) -> None:
        inside = slice(first, min(first + _READ, len(block.vectors)))
        block.vectors[inside] = self.embeddings[block.start + inside.start : block.start + inside.stop]
        block.codes[inside] = self.grid.codes(block.vectors[inside])


def _block_rows(d: int) -> int:
    return max(_READ, _BLOCK_VALUES // d)


def products(codes: Codes, others: Codes) -> npt.NDArray[np.int32]:
    """Inner products, exact; on 8-bit kernels where the CPU has them, else on float32's.

    Args:
        codes: Shape (n, d), of a grid for this d.
        others: Shape (m, d), of the same grid.

    Returns:
        Shape (n, m).
    """
    if not has_fast_integers():
        # Whole numbers below 2^24 in float32: as exact, and the fastest that this CPU has.
        return (codes.astype(np.float32) @ others.astype(np.float32).T).astype(np.int32)
    import torch

    result: npt.NDArray[np.int32] = torch._int_mm(torch.from_numpy(codes), torch.from_numpy(others).T).numpy()
    return result


def most_similar(
    codes: Codes, others: Codes, constants: npt.NDArray[np.int32], pool: ThreadPoolExecutor
) -> npt.NDArray[np.int64]:
    """Which of some others is nearest to each, all compared with all.

    Args:
        codes: Shape (n, d).
        others: Shape (m, d), of the same grid, m at least 1.
        constants: The grid's, of the others.
        pool: Threads of `product_threads`.

    Returns:
        Shape (n,), 0 to m - 1.
    """
    nearest = np.empty(len(codes), dtype=np.int64)
    block = max(64, _PRODUCTS // min(len(others), _OTHERS))

    def compare(start: int) -> None:
        some = codes[start : start + block]
        best, found = np.full(len(some), np.iinfo(np.int32).min), np.zeros(len(some), dtype=np.int64)
        for first in range(0, len(others), _OTHERS):
            tile = slice(first, first + _OTHERS)
            compared = products(some, others[tile])
            compared += constants[tile]
            own = compared.argmax(axis=1)
            values = compared[np.arange(len(some)), own]
            better = values > best
            best[better], found[better] = values[better], first + own[better]
        nearest[start : start + block] = found

    list(pool.map(compare, range(0, len(codes), block)))
    return nearest


@cache
def has_fast_integers() -> bool:
    """Whether this CPU multiplies 8-bit whole numbers faster than floats."""
    return bool(_VNNI & cpu_flags())


@contextmanager
def product_threads() -> Iterator[ThreadPoolExecutor]:
    """As many threads as torch may use, each multiplying alone; torch's own wait until the end.

    A small product shared out among threads that then wait for each other, spinning, takes many times
    the CPU that it needs, most of all on a machine that has other work.
    """
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        # A new thread would start with OpenMP's own number.
        with ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            yield pool
    finally:
        torch.set_num_threads(threads)
