"""Codes of inverted lists back into vectors, a list at a time, by FAISS's own decoders; or into 8-bit whole numbers."""

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from index_builder.lists.inverted_lists import Codes
from index_builder.numerics.faiss_library import load_faiss
from spine.tables import Vectors

Numerals = npt.NDArray[np.int8]
"""Whole numbers that stand for vectors, shape (n, d)."""


@dataclass(frozen=True, slots=True)
class ScalarGrid:
    """Codes that are levels of each dimension themselves, one byte each: v = base + weights * (code - 128)."""

    base: Vectors
    """Shape (d,)."""
    weights: Vectors
    """Shape (d,)."""
    error: float = 0.0
    """As a ProductGrid has it."""


@dataclass(frozen=True, slots=True)
class ProductGrid:
    """Product codes of one byte each, by codebooks of which every entry was rounded: v = weights * (number + rest)."""

    weights: Vectors
    """Shape (d,)."""
    error: float
    """The norm that no vector's rest is beyond."""
    entries: Numerals
    """The codebooks one below the other, shape (M · 256, d / M)."""
    books: Vectors
    """The same before they were rounded."""

    @property
    def base(self) -> Vectors:
        """Nothing: shape (d,)."""
        return np.zeros_like(self.weights)

    @classmethod
    def of(cls, books: Vectors) -> "ProductGrid":
        """Round codebooks, shape (M, 256, d / M); of each dimension the largest entry is ±127."""
        weights = np.maximum(np.abs(books).max(axis=1, keepdims=True), 1e-30) / 127
        scaled = books / weights
        entries = np.rint(scaled)
        # No vector is off by more than if the worst entry of every codebook met in it.
        worst = np.square(scaled - entries, dtype=np.float64).sum(axis=2).max(axis=1)
        weights = np.ascontiguousarray(weights.ravel(), dtype=np.float32)
        whole = entries.astype(np.int8).reshape(-1, books.shape[2])
        return cls(weights, float(np.sqrt(worst.sum())), whole, books.reshape(whole.shape))


Grid = ScalarGrid | ProductGrid
"""How codes say in whole numbers what vectors are, without being decoded."""


class ListDecoder(Protocol):
    """Decodes one kind of codes."""

    kind: str
    """ "flat", "scalar" or "product": what decoding costs goes by it."""
    residual: bool
    """Whether the codes keep the difference to the list's centroid."""
    grid: Grid | None
    """What the codes say in whole numbers; None where they must be decoded and rounded."""

    def decode(self, codes: Codes) -> Vectors:
        """Shape (n, d), float32: the vectors, or their differences to the centroid."""


def list_decoder(ivf: Any) -> ListDecoder | None:
    """A decoder for the lists of this IVF index; None for a kind that FAISS alone can score.

    Those are codes that FAISS scores with a rounded query (fast scan, 8-bit direct, and RaBitQ, for which see
    `index_builder.numerics.sign_codes`), filters by Hamming distance (polysemous) or by an estimate before (RaBitQ of
    more bits), or refines (PQR): a product with decoded vectors would give others.

    Args:
        ivf: A FAISS index, downcast.
    """
    faiss = load_faiss()
    kind = type(ivf)
    if kind is faiss.IndexIVFFlat:
        return FlatDecoder(int(ivf.d))
    if kind is faiss.IndexIVFPQ and not ivf.polysemous_ht:
        if int(ivf.pq.nbits) == 8:
            return ProductDecoder(ivf.pq, residual=bool(ivf.by_residual))
        return QuantizerDecoder("product", ivf.pq, int(ivf.d), residual=bool(ivf.by_residual))
    if kind is faiss.IndexIVFScalarQuantizer and ivf.sq.qtype in _exact_scalar_kinds(faiss):
        return QuantizerDecoder("scalar", ivf.sq, int(ivf.d), residual=bool(ivf.by_residual))
    return None


class FlatDecoder:
    """Vectors kept as they are."""

    kind = "flat"
    residual = False
    grid: Grid | None = None

    def __init__(self, d: int) -> None:
        self._d = d

    def decode(self, codes: Codes) -> Vectors:
        """Shape (n, d): the vectors themselves, where they lie if alignment allows."""
        return np.ascontiguousarray(codes).view(np.float32).reshape(len(codes), self._d)


class ProductDecoder:
    """Product codes of one byte each, looked up in the codebooks: a third of the time of FAISS's decoder."""

    kind = "product"

    def __init__(self, quantizer: Any, *, residual: bool) -> None:
        books = load_faiss().vector_to_array(quantizer.centroids).reshape(quantizer.M, 256, quantizer.dsub)
        self.residual = residual
        self.grid: Grid | None = ProductGrid.of(books)
        self._entries = books.reshape(-1, quantizer.dsub)

    def decode(self, codes: Codes) -> Vectors:
        """Shape (n, d)."""
        return _looked_up(self._entries, codes)


class QuantizerDecoder:
    """Codes of a scalar or a product quantiser."""

    def __init__(self, kind: str, quantizer: Any, d: int, *, residual: bool) -> None:
        self.kind = kind
        self.residual = residual
        self.grid: Grid | None = _scalar_grid(quantizer, d) if kind == "scalar" else None
        self._quantizer = quantizer
        self._d = d

    def decode(self, codes: Codes) -> Vectors:
        """Shape (n, d)."""
        faiss = load_faiss()
        vectors = np.empty((len(codes), self._d), dtype=np.float32)
        codes = np.ascontiguousarray(codes)
        # The plain call: FAISS's wrapper checks and allocates, which for short lists takes longer.
        self._quantizer.decode_c(faiss.swig_ptr(codes), faiss.swig_ptr(vectors), len(codes))
        return vectors


def _looked_up(entries: npt.NDArray[Any], codes: Codes) -> npt.NDArray[Any]:
    """Vectors (n, d) of codes (n, M) from codebooks one below the other, shape (M · 256, d / M)."""
    places = codes + np.arange(0, len(entries), 256)
    vectors = np.take(entries, places, axis=0, mode="clip")
    return vectors.reshape(len(codes), codes.shape[1] * entries.shape[1])


def _scalar_grid(quantizer: Any, d: int) -> ScalarGrid | None:
    """FAISS decodes a byte c as lowest + (c + 0.5) / 255 * width, of all dimensions alike or of each its own."""
    of = load_faiss().ScalarQuantizer
    if quantizer.qtype not in (of.QT_8bit, of.QT_8bit_uniform):
        return None
    lowest, width = load_faiss().vector_to_array(quantizer.trained).reshape(2, -1)
    weights = np.broadcast_to(width / np.float32(255), d)
    return ScalarGrid(base=np.ascontiguousarray(lowest + weights * np.float32(128.5)), weights=weights)


def _exact_scalar_kinds(faiss: Any) -> set[int]:
    """Kinds that FAISS scores as the inner product or distance of the decoded vector."""
    of = faiss.ScalarQuantizer
    return {
        of.QT_8bit,
        of.QT_6bit,
        of.QT_4bit,
        of.QT_8bit_uniform,
        of.QT_4bit_uniform,
        of.QT_fp16,
        of.QT_bf16,
    }
