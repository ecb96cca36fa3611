"""Rules out most of a list's rows for most queries by whole numbers, before anything is scored in full.

A product of 8-bit whole numbers takes a quarter of the time of one in float32, on CPUs that have it. Rounded to
whole numbers, a similarity is off by a known amount at most: where even so much more would not bring a row among a
query's best, it is left out. What is left is scored exactly, so that nothing is lost.

The bound is Cauchy and Schwarz's: with q = q' + e and v = v' + f, |q.v - q'.v'| <= |e| |v'| + |q| |f|.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from index_builder.lists.inverted_lists import Codes
from index_builder.lists.list_codes import ListDecoder
from spine.tables import Vectors

SCREENED_FROM = 2e10
"""Multiplications of a pass from which whole numbers save more than loading what multiplies them takes."""

WORTH = 8_000_000
"""Multiplications from which a tile is screened: below, the calls take longer than they save."""

_LEVELS = 127
_SLACK = 1e-5  # of the largest similarity there can be: what float32 rounds away, and more
_LIMIT = 2**30  # no product of 8-bit numbers with d up to 65,536 is beyond


@dataclass(frozen=True, slots=True)
class _Rounded:
    """Vectors as whole numbers, v = step · number + what is left of it."""

    numbers: npt.NDArray[np.int8]
    """Shape (n, d)."""
    step: float
    length: float
    """The longest vector's norm, after rounding."""
    error: float
    """The largest norm of what is left."""


class Screen:
    """What one call's queries need to be screened with.

    Attributes:
        d: Dimension of the queries.
    """

    def __init__(self, decoder: ListDecoder, queries: Vectors) -> None:
        """Round the queries.

        Args:
            decoder: Of the lists.
            queries: Shape (q, d).
        """
        self.d = queries.shape[1]
        self._grid = decoder.grid
        base = np.zeros(len(queries), dtype=np.float32)
        scaled = queries
        if self._grid is not None:
            scaled = queries * self._grid.weights
            base = queries @ self._grid.base
        largest = np.abs(scaled).max(axis=1, initial=0)
        self._steps = np.maximum(largest, 1e-30) / _LEVELS
        numbers = np.rint(scaled / self._steps[:, None])
        self._numbers = numbers.astype(np.int8)
        self._errors = _norms(scaled - numbers * self._steps[:, None])
        self._norms = _norms(scaled)
        self._base = base

    def rounded(self, codes: Codes, vectors: Vectors | None) -> _Rounded:
        """A tile's vectors as whole numbers: the codes themselves where these are a grid's, else `vectors` rounded."""
        if self._grid is not None:
            numbers = self._grid.numbers(codes)
            return _Rounded(numbers, 1.0, float(_norms(numbers.astype(np.float32)).max()), self._grid.error)
        assert vectors is not None
        step = max(float(vectors.max()), -float(vectors.min()), 1e-30) / _LEVELS
        near = vectors * np.float32(1 / step)
        np.rint(near, out=near)
        numbers, length = near.astype(np.int8), step * float(_norms(near).max())
        # In place: new memory costs more than the arithmetic.
        near *= np.float32(step)
        near -= vectors
        return _Rounded(numbers, step, length, float(_norms(near).max()))

    def passing(
        self,
        queries: npt.NDArray[np.int64],
        least: npt.NDArray[np.float32],
        middles: npt.NDArray[np.float32] | None,
        rounded: _Rounded,
    ) -> npt.NDArray[np.bool_]:
        """Which vectors may have a similarity of `least` to a query.

        Args:
            queries: Numbers of the queries, shape (m,).
            least: Of each query, finite; shape (m,).
            middles: What is added to all of a query's products, None for nothing; shape (m,).
            rounded: The vectors, n of them.

        Returns:
            Shape (m, n).
        """
        import torch

        steps = (self._steps[queries] * rounded.step).astype(np.float64)
        offset = self._base[queries].astype(np.float64)
        if middles is not None:
            offset = offset + middles
        reach = self._norms[queries] * (rounded.length + rounded.error)
        margin = self._errors[queries] * rounded.length + self._norms[queries] * rounded.error
        margin = margin + _SLACK * (np.abs(offset) + reach)
        bounds = np.clip(np.ceil((least - offset - margin) / steps), -_LIMIT, _LIMIT).astype(np.int32)
        asked = torch.from_numpy(np.take(self._numbers, queries, axis=0))
        products = torch._int_mm(asked, torch.from_numpy(rounded.numbers).T).numpy()
        may: npt.NDArray[np.bool_] = products >= bounds[:, None]
        return may


def _norms(rows: Vectors) -> Vectors:
    norms: Vectors = np.sqrt(np.einsum("ij,ij->i", rows, rows))
    return norms
