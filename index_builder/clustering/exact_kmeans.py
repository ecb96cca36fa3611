"""Spherical k-means in which each embedding is compared with every centroid: Lloyd's, for small problems.

FAISS gives the nearest centroid of each embedding, in blocks of bounded memory; the rest is here,
since FAISS's own k-means splits an empty cluster by chance and returns the same centroid twice
where embeddings repeat.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from index_builder.numerics.faiss_library import load_faiss
from index_builder.numerics.gpu import nearest
from index_builder.numerics.near_duplicates import near_duplicate_groups
from index_builder.numerics.stored_vectors import VectorSource, block_rows
from spine.progress import Progress
from spine.tables import Vectors

Labels = npt.NDArray[np.int64]
"""Centroid number of each embedding, shape (n,)."""

TOLD_APART = 1e-6
"""Embeddings nearer to each other, as 1 - similarity, are one point to float32."""

_STARTED_BY = 2**16  # embeddings that the first centroids are drawn from, at most
_TRIED = 8  # embeddings drawn for each of the first centroids, of which the best is kept


@dataclass(frozen=True)
class Clusters:
    """Centroids, and which of them each embedding belongs to."""

    centroids: Vectors
    """Shape (k, d), rows of L2 norm 1; each is the nearest of one embedding at least."""

    labels: Labels
    """Shape (n,)."""

    similarities: npt.NDArray[np.float32]
    """Of each embedding to the centroid it belongs to, shape (n,)."""

    iterations: int = 0
    """Rounds that were worked before nothing changed any more, or as many as were asked for."""


def exact_kmeans(
    embeddings: VectorSource, k: int, *, iterations: int, seed: int, spherical: bool, progress: Progress
) -> Clusters:
    """Unit centroids by Lloyd's k-means; `fit_centroids` says what the parameters mean.

    Starts from k embeddings drawn as k-means++ draws them, so that small concepts are found too, from 65,536
    of them or 8·k at most. The start and each iteration cost 2·n·k·d operations. Embeddings on disk are read twice an
    iteration, 32 MiB at a time.

    Args:
        embeddings: Shape (n, d), float32, rows of L2 norm 1 in C order.
        k: Centroids to find, 1 to n.
        iterations: Rounds of assigning and averaging; fewer when nothing changes any more.
        seed: Same seed and data, same centroids.
        spherical: Scale centroids to unit length in each round.
        progress: Told of each iteration.

    Source: the start: Bahmani et al., "Scalable k-means++", PVLDB 5, 2012.
    """
    random = np.random.default_rng(seed)
    centroids, before = _start(_drawn(embeddings, k, random), k, random), np.empty(0, dtype=np.int64)
    worked = iterations
    for done in range(iterations):
        labels, nearness = _nearest(embeddings, centroids, spherical=spherical)
        labels = fill_empty(labels, nearness, len(centroids))
        if np.array_equal(labels, before):
            progress.advance(iterations - done)
            worked = done
            break
        centroids, before = _means(embeddings, labels, centroids, spherical=spherical), labels
        progress.advance(1)
    return replace(all_served(embeddings, scaled(centroids, centroids)), iterations=worked)


def assign(embeddings: VectorSource, centroids: Vectors) -> tuple[Labels, npt.NDArray[np.float32]]:
    """The most similar centroid of each embedding.

    Args:
        embeddings: Shape (n, d), float32.
        centroids: Shape (k, d), float32, k at least 1.

    Returns:
        Numbers of the centroids (n,), and the similarities to them (n,).
    """
    return _nearest(embeddings, np.ascontiguousarray(centroids), spherical=True)


def _drawn(embeddings: VectorSource, k: int, random: np.random.Generator) -> Vectors:
    """The embeddings, or as many of them, drawn evenly, as the start takes."""
    n, size = len(embeddings), max(_STARTED_BY, 8 * k)
    return embeddings[:] if n <= size else embeddings[np.sort(random.choice(n, size, replace=False))]


def _blocks(embeddings: VectorSource) -> Iterator[tuple[slice, Vectors]]:
    """All embeddings in order, 32 MiB at a time, with their numbers."""
    n, d = embeddings.shape
    for start in range(0, n, block_rows(d)):
        rows = slice(start, min(start + block_rows(d), n))
        yield rows, np.ascontiguousarray(embeddings[rows])


def _start(embeddings: Vectors, k: int, random: np.random.Generator) -> Vectors:
    """Up to k different embeddings, each drawn with a chance that grows with its distance from those before.

    The first ones are each the best of a few drawn. Then a fifth of the number so far is drawn at once:
    the distances cost a few large products instead of k small ones.
    """
    chosen = random.integers(len(embeddings), size=1)
    distances = _distances(embeddings, embeddings[chosen])
    while len(chosen) < k:
        left = int(np.count_nonzero(distances))
        if not left:
            break
        batch = max(1, len(chosen) // 5)
        # The smallest of exponential variates over weights: drawing by weight, without putting back.
        with np.errstate(divide="ignore"):
            order = np.argsort(random.standard_exponential(len(embeddings)) / distances, kind="stable")
        drawn = order[: min(batch if batch > 1 else _TRIED, left)]
        if batch == 1:
            left_over = np.minimum(distances[:, None], 1 - embeddings @ embeddings[drawn].T).sum(axis=0)
            drawn = drawn[[int(np.argmin(left_over))]]
        drawn = drawn[: k - len(chosen)]
        chosen = np.concatenate([chosen, drawn])
        distances = np.minimum(distances, _distances(embeddings, embeddings[drawn]))
    return embeddings[chosen]


def _distances(embeddings: Vectors, drawn: Vectors) -> npt.NDArray[np.float32]:
    """How far each embedding is from the nearest of those drawn, as 1 - similarity; 0 where it is one of them."""
    distances = 1 - _nearest(embeddings, drawn, spherical=True)[1]
    return np.where(distances < TOLD_APART, np.float32(0), distances)


def _nearest(
    embeddings: VectorSource, centroids: Vectors, *, spherical: bool
) -> tuple[Labels, npt.NDArray[np.float32]]:
    """The nearest centroid of each embedding, and how near it is: higher is nearer."""
    faiss = load_faiss()
    metric = faiss.METRIC_INNER_PRODUCT if spherical else faiss.METRIC_L2
    labels, nearness = np.empty(len(embeddings), np.int64), np.empty(len(embeddings), np.float32)
    for rows, block in _blocks(embeddings):
        near, numbers = nearest(block, centroids, 1, metric)
        labels[rows], nearness[rows] = numbers[:, 0], near[:, 0] if spherical else -near[:, 0]
    return labels, nearness


def fill_empty(labels: Labels, nearness: npt.NDArray[np.float32], k: int) -> Labels:
    """Give each empty cluster one embedding: the worst served of a cluster that keeps another.

    Args:
        labels: Cluster of each embedding.
        nearness: Of each embedding to its centroid, shape (n,); higher is nearer.
        k: Clusters, at most as many as embeddings.
    """
    sizes = np.bincount(labels, minlength=k)
    empty = np.flatnonzero(sizes == 0)
    if not empty.size:
        return labels
    labels, waiting = labels.copy(), list(empty[::-1])
    for row in np.argsort(nearness, kind="stable"):
        if not waiting:
            break
        if sizes[labels[row]] > 1:
            sizes[labels[row]] -= 1
            labels[row] = waiting.pop()
    return labels


def _means(embeddings: VectorSource, labels: Labels, before: Vectors, *, spherical: bool) -> Vectors:
    """The mean of each cluster's embeddings; none is empty."""
    means = np.zeros(before.shape)
    for rows, block in _blocks(embeddings):
        order = np.argsort(labels[rows], kind="stable")
        numbers, starts = np.unique(labels[rows][order], return_index=True)
        means[numbers] += np.add.reduceat(block[order].astype(np.float64), starts)
    means /= np.bincount(labels, minlength=len(before))[:, None]
    return scaled(means, before) if spherical else means.astype(np.float32)


def scaled(means: npt.NDArray[np.floating], before: Vectors) -> Vectors:
    """Means at L2 norm 1. Where opposite embeddings cancel out there is no direction: then as before.

    Args:
        means: Shape (k, d).
        before: The centroids before, shape (k, d).
    """
    norms = np.linalg.norm(means, axis=1, keepdims=True)
    scaled: Vectors = np.where(norms > 1e-6, means / np.maximum(norms, 1e-6), before).astype(np.float32)
    return scaled


def all_served(embeddings: VectorSource, centroids: Vectors) -> Clusters:
    """The same centroids, those without an embedding moved to the worst served embeddings.

    A moved centroid may leave another without its last embedding, so this goes on until all have one.
    Each move brings some embedding nearer to its centroid, so it ends. A centroid that can go nowhere,
    since no embedding is apart from its own centroid, is left out.

    Args:
        embeddings: Shape (n, d), float32, rows of L2 norm 1.
        centroids: Shape (k, d), float32, rows of L2 norm 1.
    """
    while True:
        labels, similarities = assign(embeddings, centroids)
        sizes = np.bincount(labels, minlength=len(centroids))
        empty = np.flatnonzero(sizes == 0)
        worst = np.argsort(similarities, kind="stable")[: empty.size]
        worst = worst[similarities[worst] < 1 - TOLD_APART]
        if not worst.size and empty.size:
            centroids = _apart(centroids[sizes > 0])
            return Clusters(centroids, *assign(embeddings, centroids))
        if not worst.size:
            return Clusters(centroids, labels, similarities)
        centroids = centroids.copy()
        centroids[empty[: worst.size]] = embeddings[worst]


def _apart(centroids: Vectors) -> Vectors:
    """One of each point: to rounding, copies of an embedding can be nearest to several equal centroids."""
    stands_for = near_duplicate_groups(centroids, 1 - TOLD_APART)
    kept: Vectors = centroids[stands_for == np.arange(len(centroids))]
    return kept
