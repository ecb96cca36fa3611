"""Pieces of inverted lists, and the similarities of queries to them."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from index_builder.best_k import BestK, Similarities
from index_builder.exact_ranking import inner_products, pair_products
from index_builder.inverted_lists import Codes
from index_builder.list_codes import ListDecoder
from index_builder.list_pairs import Numbers
from index_builder.list_screen import WORTH, Screen
from index_builder.metadata_rows import Rows
from spine.tables import Vectors

_DENSE = 0.12  # of a tile's rows left to a query, from which it costs less to score them all


@dataclass(frozen=True, slots=True)
class Tile:
    """A piece of one list, and all queries that want it."""

    number: int
    codes: Codes
    rows: Rows
    queries: Numbers
    middles: Similarities
    last: bool
    """Whether it ends its list."""


@dataclass(frozen=True, slots=True)
class Scored:
    """What a tile offers: to some queries all of its rows, to others single ones."""

    tile: Tile
    all_of: Numbers
    """Queries, shape (m,)."""
    scores: Similarities
    """Shape (m, rows of the tile)."""
    asking: npt.NDArray[np.intp]
    """Of each single row offered the place of its query in the tile, ascending; shape (p,)."""
    places: npt.NDArray[np.intp]
    """Its place in the tile, shape (p,)."""
    single: Similarities
    """Its score, shape (p,)."""

    def offer(self, best: BestK, first: int) -> None:
        """Offer them; `first` is the number that query 0 of the tile's has in `best`."""
        if len(self.all_of):
            best.add(self.all_of + first, self.scores, self.tile.rows)
        best.add_pairs(self.tile.queries + first, self.asking, self.single, self.tile.rows[self.places])


class TileScorer:
    """Scores tiles of one index for one call's queries. Any number of threads may use it."""

    def __init__(
        self, ivf: Any, decoder: ListDecoder, queries: Vectors, screen: Screen | None, *, l2: bool
    ) -> None:
        """Get ready.

        Args:
            ivf: The FAISS IndexIVF that the tiles are of.
            decoder: Of its codes.
            queries: Shape (q, d), as the lists have them.
            screen: Of the same queries; None to score everything.
            l2: Whether a similarity is 1 - |q - v|² / 2, not the inner product.
        """
        self._ivf, self._decoder, self._queries, self._screen = ivf, decoder, queries, screen
        self._norms = np.einsum("ij,ij->i", queries, queries) if l2 else None

    def screens(self, tile: Tile) -> bool:
        """Whether `score` wants to know what a row must have at least."""
        return self._screen is not None and len(tile.queries) * len(tile.rows) * self._screen.d >= WORTH

    def score(self, tile: Tile, least: Similarities | None) -> Scored:
        """What a tile offers to its queries.

        Args:
            tile: The tile.
            least: What a row must have at least to be of use to each of its queries; None where `screens` says no.
        """
        none = np.empty(0, dtype=np.intp)
        if least is None or self._screen is None:
            scores = self._scores(tile, slice(None), self._decoder.decode(tile.codes))
            return Scored(tile, tile.queries, scores, none, none, np.empty(0, dtype=np.float32))
        vectors = None if self._decoder.grid is not None else self._decoder.decode(tile.codes)
        bounded = np.flatnonzero(np.isfinite(least))
        may = self._screen.passing(
            tile.queries[bounded],
            least[bounded],
            tile.middles[bounded] if self._decoder.residual else None,
            self._screen.rounded(tile.codes, vectors),
        )
        few = np.count_nonzero(may, axis=1) <= _DENSE * len(tile.rows)
        single = bounded[few]
        dense = np.delete(np.arange(len(tile.queries)), single)
        line, places = np.divmod(np.flatnonzero(may[few]), len(tile.rows))  # ten times as fast as nonzero
        scores = np.empty((0, len(tile.rows)), dtype=np.float32)
        if len(dense):
            vectors = self._decoder.decode(tile.codes) if vectors is None else vectors
            scores = self._scores(tile, dense, vectors)
        found = self._single(tile, single[line], places, vectors)
        return Scored(tile, tile.queries[dense], scores, single[line], places, found)

    def _scores(self, tile: Tile, some: Numbers | slice, vectors: Vectors) -> Similarities:
        """Similarities of some of the tile's queries to its vectors, shape (queries, vectors)."""
        asking = tile.queries[some]
        if self._norms is not None:
            if self._decoder.residual:
                vectors = vectors + self._ivf.quantizer.reconstruct(tile.number)
            lengths = np.einsum("ij,ij->i", vectors, vectors)
            scores = inner_products(self._queries, asking, vectors)
            scores += 1 - (lengths + self._norms[asking, None]) / 2  # 1 - |q - v|² / 2
            return scores
        scores = inner_products(self._queries, asking, vectors)
        if self._decoder.residual:
            scores += tile.middles[some, None]
        return scores

    def _single(
        self, tile: Tile, asking: npt.NDArray[np.intp], places: npt.NDArray[np.intp], vectors: Vectors | None
    ) -> Similarities:
        """Similarities of single pairs of a query and a vector of a tile."""
        if not len(asking):
            return np.empty(0, dtype=np.float32)
        if vectors is None:
            needed, places = np.unique(places, return_inverse=True)
            vectors = self._decoder.decode(tile.codes[needed])
        some, counts = np.unique(asking, return_counts=True)
        queries = np.take(self._queries, tile.queries[some], axis=0)
        scores = pair_products(queries, counts, vectors, places)
        if self._decoder.residual:
            scores += tile.middles[asking]
        return scores
