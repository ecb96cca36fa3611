"""Pieces of inverted lists, and the similarities of queries to them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from index_builder.lists.best_k import Offer, Similarities
from index_builder.lists.exact_ranking import inner_products, pair_products
from index_builder.lists.inverted_lists import Codes
from index_builder.lists.list_codes import ListDecoder
from index_builder.lists.list_pairs import Numbers
from index_builder.lists.list_screen import WORTH, Screen
from index_builder.metadata.metadata_rows import Rows
from spine.tables import Vectors

LIGHT = 2_000
"""Scores up to which a tile isn't worth calls of its own."""

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


BoundedTile = tuple[Tile, Similarities | None]
"""A tile, and what a row must have at least to be of use to each of its queries; None where that isn't asked."""


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

    def offers(self, first: int) -> list[Offer]:
        """The same for the heaps; `first` is the number that query 0 of the tile's has there."""
        found = []
        if len(self.all_of):
            found.append(Offer.of_all(self.all_of + first, self.scores, self.tile.rows))
        if len(self.asking):
            queries, rows = self.tile.queries + first, self.tile.rows[self.places]
            found.append(Offer.of_pairs(queries, self.asking, self.single, rows))
        return found


class TileScorer:
    """Scores tiles of one index for one call's queries. Any number of threads may use it."""

    def __init__(
        self,
        ivf: Any,
        decoder: ListDecoder,
        queries: Vectors,
        screen: Screen | None,
        *,
        l2: bool,
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

    def wants_least(self, tile: Tile) -> bool:
        """Whether `score` wants to know what a row must have at least."""
        return self._screen is not None and len(tile.queries) * len(tile.rows) * self._screen.d >= WORTH

    def is_light(self, tile: Tile) -> bool:
        """Whether it is better scored together with others."""
        # What scores them loads torch, as screening does: not for a few queries.
        return self._screen is not None and len(tile.queries) * len(tile.rows) <= LIGHT

    def score_share(self, share: Sequence[BoundedTile]) -> list[Scored]:
        """What tiles offer, all of them light or none."""
        if self.is_light(share[0][0]):
            return [self.score_together([tile for tile, _ in share])]
        return [self.score(tile, least) for tile, least in share]

    def score_together(self, tiles: Sequence[Tile]) -> Scored:
        """What light tiles offer: all rows of each to all of its queries, pair by pair, as if they were one tile."""
        codes, rows, asked, middles = (
            np.concatenate(each)
            for each in zip(*((t.codes, t.rows, t.queries, t.middles) for t in tiles), strict=True)
        )
        sizes = [len(tile.rows) for tile in tiles]
        counts = np.array([len(tile.queries) for tile in tiles])
        # Row after row, the places in `asked` of all the queries of its tile.
        firsts, counts = np.repeat(np.cumsum(counts) - counts, sizes), np.repeat(counts, sizes)
        places = np.arange(counts.sum()) + np.repeat(firsts - (np.cumsum(counts) - counts), counts)
        scores = pair_products(self._decoder.decode(codes), counts, self._queries, asked[places])
        if self._decoder.residual:
            scores += middles[places]
        queries, asking = np.unique(asked, return_inverse=True)
        by_query = np.argsort(asking[places], kind="stable")
        none = np.empty(0, dtype=np.int64)
        return Scored(
            Tile(
                -1, codes, rows, queries, middles[:0], last=False
            ),  # of no list; nothing asks for its middles
            none,
            np.empty((0, len(rows)), dtype=np.float32),
            asking[places][by_query],
            np.repeat(np.arange(len(rows)), counts)[by_query],
            scores[by_query],
        )

    def score(self, tile: Tile, least: Similarities | None) -> Scored:
        """What a tile offers to its queries.

        Args:
            tile: The tile.
            least: What a row must have at least to be of use to each of its queries; None where `wants_least` says no.
        """
        if least is None or self._screen is None:
            return _all(tile, self._scores(tile, slice(None), self._decoder.decode(tile.codes)))
        vectors = None if self._decoder.grid is not None else self._decoder.decode(tile.codes)
        bounded = np.flatnonzero(np.isfinite(least))
        may = self._screen.passing(
            tile.queries[bounded],
            least[bounded],
            tile.middles[bounded] if self._decoder.residual else None,
            self._screen.rounded(tile.codes, vectors),
        )
        line, places = np.divmod(np.flatnonzero(may), len(tile.rows))  # ten times as fast as nonzero
        few = np.bincount(line, minlength=len(bounded)) <= _DENSE * len(tile.rows)
        dense = np.delete(np.arange(len(tile.queries)), bounded[few])
        asking, places = bounded[line[few[line]]], places[few[line]]
        scores = np.empty((0, len(tile.rows)), dtype=np.float32)
        if len(dense):
            vectors = self._decoder.decode(tile.codes) if vectors is None else vectors
            scores = self._scores(tile, dense, vectors)
        found = self._single(tile, asking, places, vectors)
        better = found >= least[asking]
        return Scored(tile, tile.queries[dense], scores, asking[better], places[better], found[better])

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
            needed, places = _numbered(places, len(tile.rows))
            vectors = self._decoder.decode(tile.codes[needed])
        counts = np.bincount(asking)
        some = np.flatnonzero(counts)
        counts = counts[some]
        queries = np.take(self._queries, tile.queries[some], axis=0)
        scores = pair_products(queries, counts, vectors, places)
        if self._decoder.residual:
            scores += tile.middles[asking]
        return scores


def _all(tile: Tile, scores: Similarities) -> Scored:
    """Every row, to every query."""
    none = np.empty(0, dtype=np.intp)
    return Scored(tile, tile.queries, scores, none, none, np.empty(0, dtype=np.float32))


def _numbered(places: npt.NDArray[np.intp], n: int) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
    """The different places, of n there are, and which of them each is: `np.unique` without its sort."""
    there = np.zeros(n, dtype=np.bool_)
    there[places] = True
    return np.flatnonzero(there), (np.cumsum(there) - 1)[places]
