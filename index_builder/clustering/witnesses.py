"""Proves that each of many centroids is the nearest of some embedding, without comparing all with all.

One embedding a centroid is enough, its witness: k embeddings are compared with k centroids, not n. Whole
numbers tell most pairs apart; float32 decides where they can't.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from index_builder.clustering.exact_kmeans import TOLD_APART, Clusters, Labels, all_served, assign
from index_builder.numerics.integer_products import Codes, Space, products
from spine.tables import Vectors

_TRIES = 3  # members of a cluster tried as witnesses
_MOVES = 20  # rounds of moving centroids before all embeddings are compared with all centroids after all
_CELLS = 2**22  # similarities held at once
_PAIRS = 4_096  # pairs of vectors multiplied at once

Flags = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Assigned:
    """The nearest candidate of each embedding."""

    labels: Labels
    """Its number, shape (n,)."""

    products: npt.NDArray[np.int32]
    """The product with it, its constant added, shape (n,)."""

    @classmethod
    def none(cls, n: int) -> "Assigned":
        """Room for n embeddings."""
        return cls(np.zeros(n, dtype=np.int64), np.zeros(n, dtype=np.int32))


class Contest:
    """Centroids of which any may be nearer to an embedding than its own."""

    def __init__(self, space: Space, centroids: Vectors) -> None:
        self.space = space
        self.centroids = centroids
        self.codes = space.grid.codes(centroids)
        self.constants = space.grid.constants(centroids, spherical=True)
        self.rounding, self.lengths = self._rounding(centroids, self.codes)

    def move(self, numbers: Labels, places: Vectors) -> None:
        """Put centroids elsewhere.

        Args:
            numbers: Which, shape (m,).
            places: Shape (m, d), rows of L2 norm 1.
        """
        self.centroids[numbers] = places
        self.codes[numbers] = self.space.grid.codes(places)
        self.constants[numbers] = self.space.grid.constants(places, spherical=True)
        self.rounding[numbers], self.lengths[numbers] = self._rounding(places, self.codes[numbers])

    def won(self, rows: Labels, own: Labels, rivals: Labels) -> Flags:
        """Whether embeddings are nearer to their own centroids than to all rivals, by more than rounding.

        Args:
            rows: Embeddings, shape (m,).
            own: The centroid of each, shape (m,).
            rivals: Centroids; an embedding's own among them doesn't count against it.
        """
        won = np.ones(len(rows), dtype=np.bool_)
        block = max(1, _CELLS // max(1, len(rivals)))
        for start in range(0, len(rows), block):
            part = slice(start, start + block)
            first, second = np.nonzero(self._doubtful(rows[part], own[part], rivals))
            pairs = self._lost(rows[part][first], own[part][first], rivals[second])
            won[start + first[pairs]] = False
        return won

    def _doubtful(self, rows: Labels, own: Labels, rivals: Labels) -> Flags:
        """Pairs of embedding and rival that whole numbers can't tell to be won; shape (rows, rivals)."""
        codes, grid = self.space.codes(rows), self.space.grid
        compared = products(codes, self.codes[rivals])
        compared += self.constants[rivals]
        mine = np.einsum("ij,ij->i", codes, self.codes[own], dtype=np.int32) + self.constants[own]
        # |x·c - x'·c'| <= |x - x'|·|c| + |x'|·|c - c'|, all from the middle; half a step for the constant.
        rounding, lengths = self._rounding(self.space.embeddings[rows], codes)
        coarsest = self.rounding.max()
        error = 2 * (rounding * (self.lengths.max() + coarsest) + lengths * coarsest)
        slack = np.ceil((error + TOLD_APART) / grid.step**2).astype(np.int32) + 2
        doubtful: Flags = compared >= (mine - slack)[:, None]
        doubtful &= own[:, None] != rivals
        return doubtful

    def _rounding(self, vectors: Vectors, codes: Codes) -> tuple[Vectors, Vectors]:
        """How far each vector was rounded, and the length of what it was rounded to; both (m,)."""
        grid = self.space.grid
        rounded = codes * np.float32(grid.step)
        return np.linalg.norm(vectors - grid.middle - rounded, axis=1), np.linalg.norm(rounded, axis=1)

    def _lost(self, rows: Labels, own: Labels, rivals: Labels) -> Flags:
        """Whether each embedding is as near to a rival as to its own centroid, in float32; shape (pairs,)."""
        lost = np.empty(len(rows), dtype=np.bool_)
        for start in range(0, len(rows), _PAIRS):
            part = slice(start, start + _PAIRS)
            ahead = self.centroids[own[part]] - self.centroids[rivals[part]]
            lost[part] = np.einsum("ij,ij->i", self.space.embeddings[rows[part]], ahead) <= TOLD_APART
        return lost


def with_witnesses(space: Space, centroids: Vectors, found: Assigned, similarities: Vectors) -> Clusters:
    """The same centroids, each the nearest of some embedding: those that aren't move to the worst served.

    Args:
        space: The embeddings.
        centroids: Shape (k, d), float32, rows of L2 norm 1.
        found: The nearest centroid of each embedding, or one almost as near.
        similarities: Of each embedding to it, shape (n,).

    Returns:
        k centroids; fewer where the embeddings don't hold k points that float32 can tell apart. Embeddings belong
        to what was found for them; those of a centroid that moved, to the nearest of all.
    """
    contest, everyone = Contest(space, centroids), np.arange(len(centroids))
    witnesses = _witnesses(contest, found)
    labels, similarities, gone = found.labels.copy(), similarities.copy(), np.zeros(len(centroids), np.bool_)
    for _ in range(_MOVES):
        idle = np.flatnonzero(witnesses < 0)
        if not idle.size:
            return _settled(space, contest.centroids, labels, similarities, gone, witnesses)
        rows = _worst_served(labels, similarities)[: idle.size]
        if not rows.size:
            break
        moved = idle[: rows.size]
        contest.move(moved, space.embeddings[rows])
        gone[moved] = True
        labels[rows], similarities[rows], witnesses[moved] = moved, 1, rows
        witnesses[moved[~contest.won(rows, moved, everyone)]] = -1
        held = np.flatnonzero(witnesses >= 0)
        witnesses[held[~contest.won(witnesses[held], held, moved)]] = -1
    return all_served(space.embeddings, contest.centroids)


def _settled(
    space: Space, centroids: Vectors, labels: Labels, similarities: Vectors, gone: Flags, witnesses: Labels
) -> Clusters:
    """The clusters, with what a moved centroid left behind compared with all centroids."""
    left = gone[labels]
    left[witnesses] = False
    rows = np.flatnonzero(left)
    if rows.size:
        labels[rows], similarities[rows] = assign(space.embeddings[rows], centroids)
    return Clusters(centroids, labels, similarities)


def _witnesses(contest: Contest, found: Assigned) -> Labels:
    """A row for each centroid that is nearest to this centroid of all, -1 where none of those tried is."""
    k = len(contest.centroids)
    sizes = np.bincount(found.labels, minlength=k)
    in_order = np.lexsort((-found.products, found.labels))
    starts = np.cumsum(sizes) - sizes
    witnesses = np.full(k, -1, dtype=np.int64)
    for tried in range(_TRIES):
        own = np.flatnonzero((witnesses < 0) & (sizes > tried))
        rows = in_order[starts[own] + tried]
        won = contest.won(rows, own, np.arange(k))
        witnesses[own[won]] = rows[won]
    return witnesses


def _worst_served(labels: Labels, similarities: Vectors) -> Labels:
    """The least similar row of each cluster, the least similar first; none that is its centroid already."""
    in_order = np.lexsort((similarities, labels))
    first = in_order[np.flatnonzero(np.diff(labels[in_order], prepend=-1))]
    first = first[similarities[first] < 1 - TOLD_APART]
    return first[np.argsort(similarities[first], kind="stable")]
