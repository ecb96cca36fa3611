"""Spherical k-means: concepts as unit centroids, none of them empty.

FAISS gives the nearest centroid of each embedding, in blocks of bounded memory; the rest is here,
since FAISS's own k-means splits an empty cluster by chance and returns the same centroid twice
where embeddings repeat.
"""

import numpy as np
import numpy.typing as npt

from index_builder.faiss_library import load_faiss
from index_builder.unit_vectors import unit_rows
from spine.errors import DataError
from spine.progress import SILENT, Progress
from spine.tables import Vectors

Labels = npt.NDArray[np.int64]
"""Centroid number of each embedding, shape (n,)."""

_TOLD_APART = 1e-6  # embeddings nearer to each other, as 1 - similarity, are one point to float32
_TRIED = 8  # embeddings drawn for each of the first centroids, of which the best is kept


def fit_centroids(
    embeddings: Vectors,
    k: int,
    *,
    iterations: int = 20,
    seed: int = 0,
    spherical: bool = True,
    progress: Progress = SILENT,
) -> Vectors:
    """Cluster embeddings into unit centroids by spherical k-means.

    Starts from k embeddings drawn as k-means++ draws them, so that small concepts are found too. A
    centroid that no embedding is nearest to moves to the embedding that is worst served. The start and
    each iteration cost 2·n·k·d operations.

    Args:
        embeddings: Shape (n, d), float32, rows of L2 norm 1.
        k: Centroids to find, 1 to n.
        iterations: Rounds of assigning and averaging; fewer when nothing changes any more. 0 gives the
            embeddings that it would start from.
        seed: Same seed and data, same centroids.
        spherical: Scale centroids to unit length in each round; false is plain k-means by Euclidean
            distance, scaled at the end.
        progress: Told of each iteration; all of them, should it end early.

    Returns:
        Shape (k, d), float32, rows of L2 norm 1, in no order; each is the nearest of one embedding at
        least. Fewer than k where the embeddings don't hold k points that float32 can tell apart.

    Raises:
        DataError: k is not in 1 to n, or a row's norm is not 1 within 1e-3.

    Source: Dhillon and Modha, "Concept decompositions for large sparse text
    data using clustering", Machine Learning 42, 2001; the start: Bahmani et
    al., "Scalable k-means++", PVLDB 5, 2012.
    """
    embeddings = unit_rows(embeddings)
    if not 1 <= k <= len(embeddings):
        raise DataError(
            f"k = {k:,} centroids of {len(embeddings):,} embeddings; 1 to as many as those was needed"
        )
    centroids, before = _start(embeddings, k, np.random.default_rng(seed)), np.empty(0, dtype=np.int64)
    for done in range(iterations):
        labels, nearness = _nearest(embeddings, centroids, spherical=spherical)
        labels = _fill_empty(labels, nearness, len(centroids))
        if np.array_equal(labels, before):
            progress.advance(iterations - done)
            break
        centroids, before = _means(embeddings, labels, centroids, spherical=spherical), labels
        progress.advance(1)
    return _served(embeddings, _scaled(centroids, centroids))


def assign(embeddings: Vectors, centroids: Vectors) -> tuple[Labels, npt.NDArray[np.float32]]:
    """The most similar centroid of each embedding.

    Args:
        embeddings: Shape (n, d), float32.
        centroids: Shape (k, d), float32, k at least 1.

    Returns:
        Numbers of the centroids (n,), and the similarities to them (n,).
    """
    return _nearest(np.ascontiguousarray(embeddings), np.ascontiguousarray(centroids), spherical=True)


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
    return np.where(distances < _TOLD_APART, np.float32(0), distances)


def _nearest(
    embeddings: Vectors, centroids: Vectors, *, spherical: bool
) -> tuple[Labels, npt.NDArray[np.float32]]:
    """The nearest centroid of each embedding, and how near it is: higher is nearer."""
    faiss = load_faiss()
    metric = faiss.METRIC_INNER_PRODUCT if spherical else faiss.METRIC_L2
    nearness, labels = faiss.knn(embeddings, centroids, 1, metric=metric)
    return labels[:, 0], nearness[:, 0] if spherical else -nearness[:, 0]


def _fill_empty(labels: Labels, nearness: npt.NDArray[np.float32], k: int) -> Labels:
    """Give each empty cluster one embedding: the worst served of a cluster that keeps another."""
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


def _means(embeddings: Vectors, labels: Labels, before: Vectors, *, spherical: bool) -> Vectors:
    """The mean of each cluster's embeddings; none is empty."""
    order = np.argsort(labels, kind="stable")
    members = np.split(order, np.cumsum(np.bincount(labels, minlength=len(before)))[:-1])
    means = np.stack([embeddings[rows].mean(axis=0, dtype=np.float64) for rows in members])
    return _scaled(means, before) if spherical else means.astype(np.float32)


def _scaled(means: npt.NDArray[np.floating], before: Vectors) -> Vectors:
    """Means at L2 norm 1. Where opposite embeddings cancel out there is no direction: then as before."""
    norms = np.linalg.norm(means, axis=1, keepdims=True)
    scaled: Vectors = np.where(norms > 1e-6, means / np.maximum(norms, 1e-6), before).astype(np.float32)
    return scaled


def _served(embeddings: Vectors, centroids: Vectors) -> Vectors:
    """The same centroids, those without an embedding moved to the worst served embeddings.

    A moved centroid may leave another without its last embedding, so this goes on until all have one.
    Each move brings some embedding nearer to its centroid, so it ends. A centroid that can go nowhere,
    since no embedding is apart from its own centroid, is left out.
    """
    while True:
        labels, similarities = assign(embeddings, centroids)
        sizes = np.bincount(labels, minlength=len(centroids))
        empty = np.flatnonzero(sizes == 0)
        worst = np.argsort(similarities, kind="stable")[: empty.size]
        worst = worst[similarities[worst] < 1 - _TOLD_APART]
        if not worst.size:
            return centroids[sizes > 0]
        centroids = centroids.copy()
        centroids[empty[: worst.size]] = embeddings[worst]
