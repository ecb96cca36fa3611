"""What the compiled kernels need to know of an index and of one call's queries, and the memory they work in."""

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from index_builder.lists.best_k import Similarities
from index_builder.lists.inverted_lists import Codes, Numbers
from index_builder.lists.list_codes import ListDecoder, ProductGrid
from index_builder.lists.list_kernel import LEVELS, PLAIN, PRODUCT, by_pair, score_lists
from index_builder.lists.sign_kernel import SHARED, score_signs
from index_builder.metadata.metadata_rows import Rows
from index_builder.numerics.panel_products import LANES, QUERIES, ROWS, room
from index_builder.numerics.rounded_vectors import round_queries
from index_builder.numerics.sign_blocks import BLOCK, block_bytes, takes
from index_builder.numerics.sign_codes import SignCodes
from spine.tables import Vectors


@dataclass(frozen=True, slots=True)
class Piece:
    """Rows of one list, and all queries that want it."""

    number: int
    codes: Codes
    rows: Rows
    queries: Numbers
    middles: Similarities


Found = tuple[Numbers, Rows, Similarities]
"""Number of the query, row and similarity of each pair found, (p,) each."""


class ListScorer(Protocol):
    """Scores pieces of one index for one call's queries. Any number of threads may use it."""

    def score(self, pieces: Sequence[Piece], least: Similarities) -> Found:
        """All pairs of a query and a row that may be among the query's best; no row comes twice for a query.

        Args:
            pieces: What is scored.
            least: What a row must have at least to be of use to each query of the call, -inf for anything; shape (q,).
        """


class VectorScorer:
    """Scores codes that say what a vector is: plain ones, levels of each dimension, product codes."""

    def __init__(self, ivf: Any, decoder: ListDecoder, queries: Vectors, *, l2: bool) -> None:
        """Round the queries to 8-bit numbers.

        Args:
            ivf: The FAISS IndexIVF.
            decoder: Of its codes.
            queries: Shape (q, d), as the lists have them.
            l2: Whether a similarity is 1 - |q - v|² / 2, not the inner product.
        """
        self._ivf, self._decoder, self._l2 = ivf, decoder, l2
        grid = None if l2 else decoder.grid
        if l2:
            # 1 - |q - v|² / 2 is 1 - |q|² / 2 and the product of the two with one number more: 1, and -|v|² / 2.
            self._own = 1 - np.einsum("ij,ij->i", queries, queries) / 2
            queries = np.hstack([queries, np.ones((len(queries), 1), dtype=np.float32)])
        self._queries = np.ascontiguousarray(queries)
        d = queries.shape[1]
        self._kind, self._size = PLAIN, 4 * d
        weights, base = np.ones(0, np.float32), np.zeros(0, np.float32)
        books, entries, error = np.zeros((0, 1), np.float32), np.zeros((0, 1), np.uint8), 0.0
        scaled, added = queries, np.zeros(len(queries), dtype=np.float32)
        if grid is not None:
            self._size, error = int(ivf.code_size), grid.error
            scaled, added = queries * grid.weights, queries @ grid.base
            weights, base = np.ascontiguousarray(grid.weights), np.ascontiguousarray(grid.base)
            self._kind = LEVELS
        if isinstance(grid, ProductGrid):
            self._kind = PRODUCT
            books, entries = grid.books, (grid.entries.astype(np.int16) + 128).astype(np.uint8)
        self._codes = (
            self._kind,
            self._size,
            weights,
            base,
            _words(books, books),
            _words(entries, books),
            error,
        )
        rounded = np.zeros((len(queries), -(-d // 4) * 4), dtype=np.int8)
        steps, errors, norms = np.empty((3, len(queries)))
        sums = np.empty(len(queries), dtype=np.int32)
        round_queries(np.ascontiguousarray(scaled), rounded, steps, errors, norms, sums)
        self._asked = (self._queries, rounded, steps, errors, norms, sums, added.astype(np.float64))
        self._room = _Room(d, rounded.shape[1], books)

    def score(self, pieces: Sequence[Piece], least: Similarities) -> Found:
        """As a `ListScorer`."""
        if not pieces:
            return _nothing()
        lists, held, added = np.empty((len(pieces), 3), dtype=np.int64), [], []
        for i, piece in enumerate(pieces):
            codes, middle = self._prepared(piece)
            held.append(codes)  # what addresses point at must live on
            added.append(middle)
            lists[i] = codes.ctypes.data, piece.rows.ctypes.data, len(piece.rows)
        pairs = _pairs(pieces, least, np.concatenate(added))
        count = score_lists(
            lists,
            pairs,
            self._asked,
            self._codes,
            self._room.within(max(len(piece.queries) for piece in pieces)),
            found := self._room.found(pieces),
        )
        return _taken(found, count, pairs[1])

    def _prepared(self, piece: Piece) -> tuple[npt.NDArray[Any], Similarities]:
        """What the kernel reads of a piece, and what is added to each query's products."""
        middles = piece.middles if self._decoder.residual else np.zeros(len(piece.queries), dtype=np.float32)
        if self._kind != PLAIN:
            return piece.codes, middles
        vectors = self._decoder.decode(piece.codes)
        if not self._l2:
            return vectors, middles
        if self._decoder.residual:
            vectors = vectors + self._ivf.quantizer.reconstruct(piece.number)
        halves = np.einsum("ij,ij->i", vectors, vectors) / 2
        usual = halves.mean()  # what differs is small, and rounded to 8 bits with the rest
        return np.hstack([vectors, (usual - halves)[:, None]]), self._own[piece.queries] - usual


class SignScorer:
    """Scores RaBitQ's bits as FAISS estimates similarities from them."""

    def __init__(self, ivf: Any, codes: SignCodes, queries: Vectors, *, l2: bool) -> None:
        """Get ready.

        Args:
            ivf: The FAISS IndexIVF.
            codes: Its codes.
            queries: Shape (q, d), as the lists have them.
            l2: Whether a similarity is 1 - |q - v|² / 2, not the inner product.
        """
        self._ivf = ivf
        own = np.full(len(queries), 2, np.float32) if l2 else np.einsum("ij,ij->i", queries, queries)
        # An estimate of a distance may be below zero, which none is.
        self._asked = (np.ascontiguousarray(queries), own, np.float32(1 if l2 else np.inf))
        self._codes = codes.for_kernels
        self._in_blocks = takes(codes.width)
        self._room = _SignRoom(codes.width)

    def score(self, pieces: Sequence[Piece], least: Similarities) -> Found:
        """As a `ListScorer`."""
        shared = [piece for piece in pieces if self._in_blocks and len(piece.queries) >= SHARED]
        others = [piece for piece in pieces if not self._in_blocks or len(piece.queries) < SHARED]
        parts = [self._score(some, least, some is shared) for some in (shared, others) if some]
        if len(parts) == 1:
            return parts[0]
        return tuple(np.concatenate(each) for each in zip(_nothing(), *parts, strict=True))  # type: ignore[return-value]

    def _score(self, pieces: Sequence[Piece], least: Similarities, in_blocks: bool) -> Found:
        """The same of some pieces, one at least, in blocks or row by row."""
        lists = np.array(
            [(p.codes.ctypes.data, p.rows.ctypes.data, len(p.rows)) for p in pieces], dtype=np.int64
        )
        centroids = np.stack([self._ivf.quantizer.reconstruct(piece.number) for piece in pieces])
        nothing = np.zeros(0, dtype=np.float32)
        found, pairs = self._room.found(pieces), _pairs(pieces, least, nothing)
        blocks = self._room.blocks(max(len(piece.rows) for piece in pieces)) if in_blocks else None
        count = score_signs(lists, centroids, pairs, self._asked, self._codes, blocks, found)
        return _taken(found, count, pairs[1])


def _pairs(
    pieces: Sequence[Piece], least: Similarities, added: Similarities
) -> tuple[Numbers, Numbers, Similarities, Similarities]:
    starts = np.zeros(len(pieces) + 1, dtype=np.int64)
    np.cumsum([len(piece.queries) for piece in pieces], out=starts[1:])
    return starts, np.concatenate([piece.queries for piece in pieces]), least, added


def _nothing() -> Found:
    none = np.empty(0, dtype=np.int64)
    return none, none, np.empty(0, dtype=np.float32)


def _taken(found: Found, count: int, numbers: Numbers) -> Found:
    taken = (
        np.empty(count, dtype=np.int64),
        np.empty(count, dtype=np.int64),
        np.empty(count, dtype=np.float32),
    )
    by_pair(found, count, numbers, *taken)
    return taken


def _words(rows: npt.NDArray[Any], books: Vectors) -> npt.NDArray[Any]:
    """The same memory in the largest words that entries of codebooks are made of, in float32 and in 8 bits."""
    part = books.shape[1]
    if rows.dtype == np.float32:
        return rows.view(np.int64) if len(books) and part % 2 == 0 else rows
    return rows.view(np.int64) if part % 8 == 0 else rows.view(np.int32) if part % 4 == 0 else rows


class _FoundRoom(threading.local):
    """Where one thread's kernel writes what it found; used again and again: new memory costs more than the work."""

    def __init__(self) -> None:  # in each thread anew
        self._found: Found | None = None

    def found(self, pieces: Sequence[Piece]) -> Found:
        """Room for every pair there can be."""
        needed = sum(len(piece.queries) * len(piece.rows) for piece in pieces)
        if self._found is None or len(self._found[0]) < needed:
            self._found = (
                np.empty(needed, dtype=np.int64),
                np.empty(needed, dtype=np.int64),
                np.empty(needed, dtype=np.float32),
            )
        return self._found


class _SignRoom(_FoundRoom):
    """Of a `SignScorer`."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self._width = width
        self._blocks = np.zeros(0, dtype=np.uint8)

    def blocks(self, rows: int) -> npt.NDArray[np.uint8]:
        """Room for so many rows in blocks."""
        needed = -(-rows // BLOCK) * block_bytes(self._width)
        if len(self._blocks) < needed:
            self._blocks = np.zeros(needed, dtype=np.uint8)  # what rows a last block lacks must be numbers
        return self._blocks


class _Room(_FoundRoom):
    """Of a `VectorScorer`."""

    def __init__(self, d: int, padded: int, books: Vectors) -> None:
        super().__init__()
        self._most = 0
        vectors, eights = np.empty((ROWS, d), dtype=np.float32), np.zeros((ROWS, padded), dtype=np.uint8)
        self._words = (_words(eights, books), _words(vectors, books))
        self._fixed = (
            vectors,
            eights,
            room(2 * (padded // 4) * LANES),
            room(QUERIES, ROWS),
            np.zeros(QUERIES, dtype=np.int64),
        )
        self._decoded = np.zeros(ROWS, dtype=np.bool_)

    def within(self, queries: int) -> tuple[Any, ...]:
        """What `score_lists` works in; `queries` is how many want a list at most."""
        if queries > self._most:
            self._most = queries
            of_pairs = np.empty((4, queries), dtype=np.float32), *np.empty((2, queries), dtype=np.int32)
            may = np.empty((2, queries * ROWS), dtype=np.int64)
            self._of_pairs = of_pairs, *may
        return (*self._fixed, *self._of_pairs, self._decoded, *self._words)
