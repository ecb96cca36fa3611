"""Pieces of inverted lists, and the similarities of queries to them."""

from collections import deque
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from index_builder.lists.best_k import BestK, Similarities
from index_builder.lists.exact_ranking import inner_products, pair_products
from index_builder.lists.inverted_lists import Codes
from index_builder.lists.list_codes import ListDecoder
from index_builder.lists.list_pairs import Numbers
from index_builder.lists.list_screen import WORTH, Screen
from index_builder.metadata.metadata_rows import Rows
from index_builder.numerics.faiss_library import load_faiss
from spine.tables import Vectors

SCANNED_BELOW = {"flat": 3, "scalar": 3, "product": 5}
"""Queries that share a list, by kind of codes, from which decoding and multiplying it costs less than FAISS's scan."""

_LOWEST = np.finfo(np.float32).min
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


class Scanners:
    """FAISS's scanners of one index, used again and again: Python can't free them."""

    def __init__(self, ivf: Any) -> None:
        self._ivf, self._idle = ivf, deque[Any]()

    def take(self) -> Any:
        """One that nobody else has until it is given back."""
        try:
            return self._idle.pop()
        except IndexError:
            return self._ivf.get_InvertedListScanner(False, None, None)

    def give(self, scanner: Any) -> None:
        """Let others take it."""
        self._idle.append(scanner)


class TileScorer:
    """Scores tiles of one index for one call's queries. Any number of threads may use it."""

    def __init__(
        self,
        ivf: Any,
        decoder: ListDecoder,
        scanners: Scanners,
        queries: Vectors,
        k: int,
        screen: Screen | None,
        *,
        l2: bool,
    ) -> None:
        """Get ready.

        Args:
            ivf: The FAISS IndexIVF that the tiles are of.
            decoder: Of its codes.
            scanners: Of its lists.
            queries: Shape (q, d), as the lists have them.
            k: Neighbours a query.
            screen: Of the same queries; None to score everything.
            l2: Whether a similarity is 1 - |q - v|² / 2, not the inner product.
        """
        self._scanners = scanners
        self._ivf, self._decoder, self._queries, self._k, self._screen = ivf, decoder, queries, k, screen
        self._norms = np.einsum("ij,ij->i", queries, queries) if l2 else None

    def wants_least(self, tile: Tile) -> bool:
        """Whether `score` wants to know what a row must have at least."""
        return self.scans(tile) or self._screens(tile)

    def scans(self, tile: Tile) -> bool:
        """Whether FAISS scans it query by query."""
        # Of an l2 index FAISS's scan gives squared distances, worst first.
        return self._norms is None and len(tile.queries) < SCANNED_BELOW[self._decoder.kind]

    def _screens(self, tile: Tile) -> bool:
        return self._screen is not None and len(tile.queries) * len(tile.rows) * self._screen.d >= WORTH

    def score(self, tile: Tile, least: Similarities | None) -> Scored:
        """What a tile offers to its queries.

        Args:
            tile: The tile.
            least: What a row must have at least to be of use to each of its queries; None where `wants_least` says no.
        """
        if least is not None and self.scans(tile):
            return self._scanned(tile, least)
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
        line, places = np.divmod(np.flatnonzero(may), len(tile.rows))  # ten times as fast as nonzero
        few = np.bincount(line, minlength=len(bounded)) <= _DENSE * len(tile.rows)
        dense = np.delete(np.arange(len(tile.queries)), bounded[few])
        asking, places = bounded[line[few[line]]], places[few[line]]
        scores = np.empty((0, len(tile.rows)), dtype=np.float32)
        if len(dense):
            vectors = self._decoder.decode(tile.codes) if vectors is None else vectors
            scores = self._scores(tile, dense, vectors)
        found = self._single(tile, asking, places, vectors)
        return Scored(tile, tile.queries[dense], scores, asking, places, found)

    def _scanned(self, tile: Tile, least: Similarities) -> Scored:
        """FAISS's own scan, query by query: where few want a list, decoding it costs more."""
        faiss, n = load_faiss(), len(tile.rows)
        scanner = self._scanners.take()
        codes, numbers = np.ascontiguousarray(tile.codes), np.arange(n)
        # FAISS takes what is more than the least so far; equals count too, the first rows of them.
        floor = np.maximum(np.nextafter(least, np.float32(-np.inf)), _LOWEST)
        values = np.repeat(floor[:, None], min(self._k, n), axis=1)
        places = np.full(values.shape, -1, dtype=np.int64)
        for i, query in enumerate(tile.queries.tolist()):
            scanner.set_query(faiss.swig_ptr(self._queries[query]))
            scanner.set_list(tile.number, float(tile.middles[i]))
            scanner.scan_codes(
                n,
                faiss.swig_ptr(codes),
                faiss.swig_ptr(numbers),
                faiss.swig_ptr(values[i]),
                faiss.swig_ptr(places[i]),
                values.shape[1],
            )
        self._scanners.give(scanner)
        asking, column = np.nonzero(places >= 0)
        nothing = np.empty((0, n), dtype=np.float32)
        found = values[asking, column], places[asking, column]
        return Scored(tile, tile.queries[:0], nothing, asking, found[1].astype(np.intp), found[0])

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


def _numbered(places: npt.NDArray[np.intp], n: int) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
    """The different places, of n there are, and which of them each is: `np.unique` without its sort."""
    there = np.zeros(n, dtype=np.bool_)
    there[places] = True
    return np.flatnonzero(there), (np.cumsum(there) - 1)[places]
