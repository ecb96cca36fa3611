"""Codes of inverted lists back into vectors, a list at a time, by FAISS's own decoders."""

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from index_builder.lists.inverted_lists import Codes
from index_builder.numerics.faiss_library import load_faiss
from spine.tables import Vectors


@dataclass(frozen=True, slots=True)
class Grid:
    """Codes that are levels of each dimension: v = base + weights * (code - 128)."""

    base: Vectors
    """Shape (d,)."""
    weights: Vectors
    """Shape (d,)."""


class ListDecoder(Protocol):
    """Decodes one kind of codes."""

    kind: str
    """ "flat", "scalar" or "product": what decoding costs goes by it."""
    residual: bool
    """Whether the codes keep the difference to the list's centroid."""
    grid: Grid | None
    """What the codes say as they are, one byte a dimension; None where they must be decoded."""

    def decode(self, codes: Codes) -> Vectors:
        """Shape (n, d), float32: the vectors, or their differences to the centroid."""


def list_decoder(ivf: Any) -> ListDecoder | None:
    """A decoder for the lists of this IVF index; None for a kind that FAISS alone can score.

    Those are codes that FAISS scores with a rounded query (RaBitQ, fast scan, 8-bit direct), filters by
    Hamming distance (polysemous) or refines (PQR): a product with decoded vectors would give others.

    Args:
        ivf: A FAISS index, downcast.
    """
    faiss = load_faiss()
    kind = type(ivf)
    if kind is faiss.IndexIVFFlat:
        return FlatDecoder(int(ivf.d))
    if kind is faiss.IndexIVFPQ and not ivf.polysemous_ht:
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


class QuantizerDecoder:
    """Codes of a scalar or a product quantiser."""

    def __init__(self, kind: str, quantizer: Any, d: int, *, residual: bool) -> None:
        self.kind = kind
        self.residual = residual
        self.grid = _grid(quantizer, d) if kind == "scalar" else None
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


def _grid(quantizer: Any, d: int) -> Grid | None:
    """FAISS decodes a byte c as lowest + (c + 0.5) / 255 * width, of all dimensions alike or of each its own."""
    faiss = load_faiss()
    of = faiss.ScalarQuantizer
    if quantizer.qtype not in (of.QT_8bit, of.QT_8bit_uniform):
        return None
    lowest, width = faiss.vector_to_array(quantizer.trained).reshape(2, -1)
    weights = np.broadcast_to(width / np.float32(255), d)
    return Grid(base=np.ascontiguousarray(lowest + weights * np.float32(128.5)), weights=weights)


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
