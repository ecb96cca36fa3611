"""K-means of many embeddings into many centroids: each is compared with the centroids around it alone.

Embeddings that lie together form a group. The centroids near a group's mean are the candidates of all
its members: one small product of matrices a group, instead of a large one with all centroids. How near
is near enough is the same everywhere, so that a group in a crowd gets many candidates and one in the
open few. The products are of 8-bit whole numbers, the means of the embeddings themselves.
"""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from index_builder.exact_kmeans import Labels, fill_empty, scaled
from index_builder.integer_products import Codes, Grid, Space, product_threads, products
from index_builder.witnesses import Assigned, with_witnesses
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
_BLOCK = 512  # members compared at once
_ROUND_ROWS, _ROUND_CANDIDATES = 32, 64  # products come in few shapes: each new one costs a kernel's making
_CELLS = 2**22  # similarities held at once


@dataclass(frozen=True)
class Groups:
    """Embeddings that lie together."""

    rows: list[Rows]
    """Members of each; none is empty, each embedding is in one."""

    means: Vectors
    """Shape (groups, d)."""


def neighbour_kmeans(
    embeddings: Vectors, k: int, *, iterations: int, seed: int, spherical: bool, progress: Progress
) -> Vectors:
    """Unit centroids, each embedding compared with those near it; `fit_centroids` says the parameters' meaning.

    Cost in products: n·d for each group once, n·d·384 or a little more an iteration; docs/centroids.md has
    it in seconds. Holds n·d bytes beside the embeddings.

    Args:
        embeddings: Shape (n, d), float32, rows of L2 norm 1 in C order.
        k: Centroids to find, 1 to n.
        iterations: Rounds of assigning and averaging; fewer when nothing changes any more.
        seed: Same seed and data, same centroids, whatever the number of threads.
        spherical: Scale centroids to unit length in each round.
        progress: Told of each iteration.
    """
    random = np.random.default_rng(seed)
    space = Space.of(embeddings)
    wanted = max(_LEAST_GROUPS, k // _CENTROIDS_A_GROUP)
    with product_threads() as pool:
        groups = _groups(space, max(1, min(wanted, len(embeddings) // _LEAST_ROWS)), random, pool)
        centroids, before = _start(embeddings, groups, k, random), np.empty(0, dtype=np.int64)
        offsets = space.grid.offsets(embeddings)
        for done in range(iterations):
            found = _assign_near(space, groups, centroids, pool, spherical=spherical)
            labels = fill_empty(found.labels, space.grid.nearness(found.products, offsets), k)
            if np.array_equal(labels, before):
                progress.advance(iterations - done)
                break
            means, before = _means(embeddings, labels, k), labels
            centroids = scaled(means, centroids) if spherical else means
            progress.advance(1)
        centroids = scaled(centroids, centroids)
        found = _assign_near(space, groups, centroids, pool, spherical=True)
        return with_witnesses(space, centroids, found)


def _groups(space: Space, count: int, random: np.random.Generator, pool: ThreadPoolExecutor) -> Groups:
    """Up to `count` groups, by a rough k-means of a sample."""
    embeddings, codes = space.embeddings, space.codes
    sample = np.sort(random.choice(len(codes), min(len(codes), _SAMPLED_ROWS * count), replace=False))
    middles = embeddings[np.sort(random.choice(sample, count, replace=False))]
    for _ in range(_GROUPING_ROUNDS):
        labels = _nearest(space, sample, middles, pool)
        sums, sizes = _sums(embeddings, sample, labels, count)
        middles = scaled(sums / np.maximum(sizes, 1)[:, None], middles)
    labels = _nearest(space, np.arange(len(codes)), middles, pool)
    filled, labels = np.unique(labels, return_inverse=True)
    rows = np.split(np.argsort(labels, kind="stable"), np.cumsum(np.bincount(labels))[:-1])
    return Groups(rows, _means(embeddings, labels, len(filled)))


def _start(embeddings: Vectors, groups: Groups, k: int, random: np.random.Generator) -> Vectors:
    """Embeddings drawn one from each stretch of n / k rows, groups in order: each group gives its share."""
    in_order = np.concatenate(groups.rows)
    ends = np.arange(k + 1) * len(in_order) // k
    return embeddings[in_order[random.integers(ends[:-1], ends[1:])]]


def _nearest(space: Space, rows: Rows, middles: Vectors, pool: ThreadPoolExecutor) -> Labels:
    """The most similar of some unit vectors to each of the rows, all compared with all."""
    codes, constants = space.grid.codes(middles), space.grid.constants(middles, spherical=True)
    labels, block = np.empty(len(rows), dtype=np.int64), max(64, _CELLS // len(middles))

    def compare(start: int) -> None:
        compared = products(space.codes.take(rows[start : start + block], axis=0), codes)
        compared += constants
        labels[start : start + block] = compared.argmax(axis=1)

    list(pool.map(compare, range(0, len(rows), block)))
    return labels


def _assign_near(
    space: Space, groups: Groups, centroids: Vectors, pool: ThreadPoolExecutor, *, spherical: bool
) -> Assigned:
    """The nearest of the candidates of each embedding's group."""
    codes, constants = space.grid.codes(centroids), space.grid.constants(centroids, spherical=spherical)
    found = Assigned.none(len(space.codes))

    def compare(members: Rows, near: npt.NDArray[np.intp]) -> None:
        candidates = codes.take(near, axis=0)
        for start in range(0, len(members), _BLOCK):
            rows = members[start : start + _BLOCK]
            padded = space.codes.take(_rounded(rows, _ROUND_ROWS), axis=0)
            compared = products(padded, candidates)[: len(rows)]
            compared += constants[near]
            best = compared.argmax(axis=1)
            found.labels[rows] = near[best]
            found.products[rows] = compared[np.arange(len(rows)), best]

    list(pool.map(compare, groups.rows, _candidates(space.grid, groups, codes, constants)))
    return found


def _candidates(
    grid: Grid, groups: Groups, codes: Codes, constants: npt.NDArray[np.int32]
) -> list[npt.NDArray[np.intp]]:
    """The centroids near each group's mean, their numbers rising; the last ones may repeat."""
    means, found = grid.codes(groups.means), []
    sizes = np.array([len(rows) for rows in groups.rows])
    gap, block = _gap(means, sizes, codes, constants), max(1, _CELLS // len(codes))
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


def _means(embeddings: Vectors, labels: Labels, k: int) -> Vectors:
    """The mean of each cluster's embeddings, none of them empty; shape (k, d)."""
    sums, sizes = _sums(embeddings, np.arange(len(labels)), labels, k)
    sums /= sizes[:, None].astype(np.float32)
    return sums


def _sums(embeddings: Vectors, rows: Rows, labels: Labels, k: int) -> tuple[Vectors, npt.NDArray[np.int64]]:
    """The sum (k, d) of each cluster's rows, and its size (k,)."""
    import torch

    sizes = np.bincount(labels, minlength=k)
    # One thread adds up one cluster, its rows in their order: as many threads as there are change nothing.
    sums: Vectors = torch.nn.functional.embedding_bag(
        torch.from_numpy(rows[np.argsort(labels, kind="stable")]),
        torch.from_numpy(embeddings),
        torch.from_numpy(np.cumsum(sizes) - sizes),
        mode="sum",
    ).numpy()
    return sums, sizes
