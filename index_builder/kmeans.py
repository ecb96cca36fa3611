"""Spherical k-means: concepts as unit centroids, none of them empty."""

from index_builder.exact_kmeans import Labels, assign, exact_kmeans
from index_builder.neighbour_kmeans import neighbour_kmeans
from index_builder.unit_vectors import unit_rows
from spine.errors import DataError
from spine.progress import SILENT, Progress
from spine.tables import Vectors

__all__ = ["LARGE", "Labels", "assign", "fit_centroids"]

LARGE = 2**27
"""Similarities in one exact iteration, n·k, from which embeddings are compared with near centroids alone."""

_MANY = 1_024  # centroids from which that pays


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

    Up to n·k = 134 million, or 1,023 centroids, each embedding is compared with every centroid, from a
    k-means++ start. Above, it is compared with some 384 centroids around it, in products of 8-bit whole
    numbers: a tiny part of the work for nearly the same objective; docs/centroids.md has the figures.
    In both, a centroid that no embedding is nearest to moves to the embedding that is worst served.

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
    data using clustering", Machine Learning 42, 2001.
    """
    embeddings = unit_rows(embeddings)
    if not 1 <= k <= len(embeddings):
        raise DataError(
            f"k = {k:,} centroids of {len(embeddings):,} embeddings; 1 to as many as those was needed"
        )
    method = neighbour_kmeans if k >= _MANY and len(embeddings) * k > LARGE else exact_kmeans
    return method(embeddings, k, iterations=iterations, seed=seed, spherical=spherical, progress=progress)
