"""K-means of many embeddings into many centroids: each is compared with the centroids around it alone.

Embeddings that lie together form a group. The centroids near a group's mean are the candidates of all
its members: one small product of matrices a group, instead of a large one with all centroids. How near
is near enough is the same everywhere, so that a group in a crowd gets many candidates and one in the
open few. The products are of 8-bit whole numbers, the means of the embeddings themselves.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from index_builder.clustering.exact_kmeans import Clusters, Labels, fill_empty, scaled
from index_builder.clustering.witnesses import Assigned, with_witnesses
from index_builder.numerics.integer_products import (
    Block,
    Codes,
    Grid,
    Space,
    most_similar,
    product_threads,
    products,
)
from index_builder.numerics.stored_vectors import VectorSource
from spine.progress import Progress
from spine.tables import Vectors

Rows = npt.NDArray[np.intp]
"""Rows of the embeddings that belong together."""

_CANDIDATES = 384  # centroids that an embedding is compared with on average, at least
_COMPARED = 2**26  # similarities in one iteration, at least: few embeddings can afford more candidates
_CENTROIDS_A_GROUP = 10
_LEAST_GROUPS = 1_000
_LEAST_ROWS = 48  # members of a group on average, at least: else products are too small to be fast
_SAMPLED_ROWS = 48  # embeddings for each group that the groups are found from
_GROUPING_ROUNDS = 3
_TASK = 16  # groups that a thread takes at once
_BLOCK = 512  # members compared at once
_ROUND_ROWS, _ROUND_CANDIDATES = 32, 64  # products come in few shapes: each new one costs a kernel's making
_CELLS = 2**22  # similarities held at once
_MULTIPLIED = 4_096  # pairs of vectors multiplied at once


@dataclass(frozen=True)
class Groups:
    """Embeddings that lie together."""

    labels: Labels
    """Group of each embedding, shape (n,)."""

    sizes: npt.NDArray[np.int64]
    """Members of each; none is empty."""

    means: Vectors
    """Shape (groups, d)."""


class Sums:
    """What the means of clusters are made of, added up block by block."""

    def __init__(self, k: int, d: int) -> None:
        self.sums = np.zeros((k, d), dtype=np.float32)
        self.sizes = np.zeros(k, dtype=np.int64)

    def add(self, vectors: Vectors, labels: Labels) -> None:
        """Add vectors (m, d) to their clusters."""
        import torch

        sizes = np.bincount(labels, minlength=len(self.sizes))
        # One thread adds up one cluster, its rows in their order: as many threads as there are change nothing.
        self.sums += torch.nn.functional.embedding_bag(
            torch.from_numpy(np.argsort(labels, kind="stable")),
            torch.from_numpy(vectors),
            torch.from_numpy(np.cumsum(sizes) - sizes),
            mode="sum",
        ).numpy()
        self.sizes += sizes

    def add_block(self, block: Block, labels: Labels) -> None:
        """Add a block's vectors to their clusters."""
        self.add(block.vectors, labels)

    def move(self, vectors: Vectors, before: Labels, after: Labels) -> None:
        """Take vectors (m, d) out of their clusters before and put them into those after."""
        np.subtract.at(self.sums, before, vectors)
        np.add.at(self.sums, after, vectors)
        self.sizes += np.bincount(after, minlength=len(self.sizes)) - np.bincount(
            before, minlength=len(self.sizes)
        )

    def means(self) -> Vectors:
        """Shape (k, d); of an empty cluster zeros."""
        means: Vectors = np.divide(self.sums, np.maximum(self.sizes, 1)[:, None], dtype=np.float32)
        return means


def neighbour_kmeans(
    embeddings: VectorSource, k: int, *, iterations: int, seed: int, spherical: bool, progress: Progress
) -> Clusters:
    """Unit centroids, each embedding compared with those near it; `fit_clusters` says the parameters' meaning.

    Cost in products: n·d for each group once, n·d·384 or a little more an iteration; docs/centroids.md has
    it in seconds. Embeddings are read in order, once an iteration. Holds n·d bytes beside embeddings in memory;
    of embeddings on disk a block of 335 MB, and 44 bytes each. Either way the centroids are the same.

    Args:
        embeddings: Shape (n, d), float32, rows of L2 norm 1 in C order.
        k: Centroids to find, 1 to n.
        iterations: Rounds of assigning and averaging; fewer when nothing changes any more.
        seed: Same seed and data, same centroids, whatever the number of threads.
        spherical: Scale centroids to unit length in each round.
        progress: Told of each iteration.
    """
    random = np.random.default_rng(seed)
    space, (n, d) = Space.of(embeddings), embeddings.shape
    wanted = max(_LEAST_GROUPS, k // _CENTROIDS_A_GROUP)
    with product_threads() as pool:
        groups, offsets = _groups(space, max(1, min(wanted, n // _LEAST_ROWS)), random, pool)
        centroids, before = _start(embeddings, groups, k, random), np.empty(0, dtype=np.int64)
        worked = iterations
        for done in range(iterations):
            sums = Sums(k, d)
            found = _assign_near(space, groups, centroids, pool, sums.add_block, spherical=spherical)
            labels = fill_empty(found.labels, space.grid.nearness(found.products, offsets), k)
            if np.array_equal(labels, before):
                progress.advance(iterations - done)
                worked = done
                break
            moved = np.flatnonzero(labels != found.labels)
            sums.move(embeddings[moved], found.labels[moved], labels[moved])
            before = labels
            centroids = scaled(sums.means(), centroids) if spherical else sums.means()
            progress.advance(1)
        centroids, similarities = scaled(centroids, centroids), np.empty(n, dtype=np.float32)

        def compare(block: Block, labels: Labels) -> None:
            similarities[block.rows] = _similarities(block.vectors, centroids, labels)

        found = _assign_near(space, groups, centroids, pool, compare, spherical=True)
        return replace(with_witnesses(space, centroids, found, similarities), iterations=worked)


def _groups(
    space: Space, count: int, random: np.random.Generator, pool: ThreadPoolExecutor
) -> tuple[Groups, Vectors]:
    """Up to `count` groups, by a rough k-means of a sample; and the grid's offsets of all embeddings."""
    n, d = space.embeddings.shape
    rows = np.sort(random.choice(n, min(n, _SAMPLED_ROWS * count), replace=False))
    sample, codes = space.embeddings[rows], space.codes(rows)
    middles = sample[np.sort(random.choice(len(sample), count, replace=False))]
    for _ in range(_GROUPING_ROUNDS):
        sums = Sums(count, d)
        sums.add(sample, _nearest(space.grid, codes, middles, pool))
        middles = scaled(sums.means(), middles)
    labels, offsets, sums = np.empty(n, np.int64), np.empty(n, np.float32), Sums(count, d)
    for block in space.blocks(pool):
        labels[block.rows] = _nearest(space.grid, block.codes, middles, pool)
        offsets[block.rows] = space.grid.offsets(block.vectors)
        sums.add(block.vectors, labels[block.rows])
    filled, labels = np.unique(labels, return_inverse=True)
    return Groups(labels, sums.sizes[filled], sums.means()[filled]), offsets


def _start(embeddings: VectorSource, groups: Groups, k: int, random: np.random.Generator) -> Vectors:
    """Embeddings drawn one from each stretch of n / k rows, groups in order: each group gives its share."""
    in_order = np.argsort(groups.labels, kind="stable")
    ends = np.arange(k + 1) * len(in_order) // k
    return embeddings[in_order[random.integers(ends[:-1], ends[1:])]]


def _nearest(grid: Grid, codes: Codes, middles: Vectors, pool: ThreadPoolExecutor) -> Labels:
    """The most similar of some unit vectors to each embedding, all compared with all."""
    return most_similar(codes, grid.codes(middles), grid.constants(middles, spherical=True), pool)


def _assign_near(
    space: Space,
    groups: Groups,
    centroids: Vectors,
    pool: ThreadPoolExecutor,
    each: Callable[[Block, Labels], None],
    *,
    spherical: bool,
) -> Assigned:
    """The nearest of the candidates of each embedding's group; `each` is given every block with its labels."""
    codes, constants = space.grid.codes(centroids), space.grid.constants(centroids, spherical=spherical)
    candidates = _candidates(space.grid, groups, codes, constants)
    found = Assigned.none(len(space.embeddings))

    def compare(some: list[tuple[Block, Rows, npt.NDArray[np.intp]]]) -> None:
        for block, members, near in some:
            others = codes.take(near, axis=0)
            for start in range(0, len(members), _BLOCK):
                rows = members[start : start + _BLOCK]
                padded = block.codes.take(_rounded(rows, _ROUND_ROWS), axis=0)
                compared = products(padded, others)[: len(rows)]
                compared += constants[near]
                best = compared.argmax(axis=1)
                found.labels[block.start + rows] = near[best]
                found.products[block.start + rows] = compared[np.arange(len(rows)), best]

    for block in space.blocks(pool):
        in_order = np.argsort(groups.labels[block.rows], kind="stable")
        numbers, starts = np.unique(groups.labels[block.rows][in_order], return_index=True)
        members = np.split(in_order, starts[1:])
        work = [(block, rows, candidates[number]) for number, rows in zip(numbers, members, strict=True)]
        list(pool.map(compare, (work[at : at + _TASK] for at in range(0, len(work), _TASK))))
        each(block, found.labels[block.rows])
    return found


def _similarities(vectors: Vectors, centroids: Vectors, labels: Labels) -> Vectors:
    """Of each embedding to the centroid of its label, shape (m,)."""
    similarities = np.empty(len(labels), dtype=np.float32)
    for start in range(0, len(labels), _MULTIPLIED):
        part = slice(start, start + _MULTIPLIED)
        similarities[part] = np.einsum("ij,ij->i", vectors[part], centroids[labels[part]])
    return similarities


def _candidates(
    grid: Grid, groups: Groups, codes: Codes, constants: npt.NDArray[np.int32]
) -> list[npt.NDArray[np.intp]]:
    """The centroids near each group's mean, their numbers rising; the last ones may repeat."""
    means, found = grid.codes(groups.means), []
    gap, block = _gap(means, groups.sizes, codes, constants), max(1, _CELLS // len(codes))
    for start in range(0, len(means), block):
        compared = products(means[start : start + block], codes)
        compared += constants
        near = compared >= compared.max(axis=1, keepdims=True) - gap
        found += [_rounded(np.flatnonzero(row), _ROUND_CANDIDATES) for row in near]
    return found


def _gap(means: Codes, sizes: npt.NDArray[np.int64], codes: Codes, constants: npt.NDArray[np.int32]) -> int:
    """How far behind a group's nearest centroid its candidates may be, for enough of them on average."""
    few = slice(None, None, max(1, len(means) // 128))
    compared = products(means[few], codes)
    compared += constants
    behind, weights = compared.max(axis=1, keepdims=True) - compared, sizes[few]
    candidates = max(_CANDIDATES, _COMPARED // int(sizes.sum()))
    wanted = min(candidates, len(codes)) * int(weights.sum())
    low, high = 0, int(behind.max())
    while low < high:
        middle = (low + high) // 2
        if int(np.count_nonzero(behind <= middle, axis=1) @ weights) < wanted:
            low = middle + 1
        else:
            high = middle
    return low


def _rounded(rows: Rows, multiple: int) -> Rows:
    """The rows, the last one repeated until their number is a multiple."""
    missing = -len(rows) % multiple
    return np.concatenate([rows, np.repeat(rows[-1:], missing)]) if missing else rows
