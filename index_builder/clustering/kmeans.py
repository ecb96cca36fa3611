"""Spherical k-means: concepts as unit centroids, none of them empty."""

from dataclasses import replace
from typing import Any

import numpy as np

from index_builder.clustering.exact_kmeans import Clusters, Labels, all_served, assign, exact_kmeans, scaled
from index_builder.clustering.neighbour_kmeans import neighbour_kmeans
from index_builder.numerics.faiss_library import load_faiss
from index_builder.numerics.stored_vectors import VectorSource
from index_builder.numerics.unit_vectors import unit_rows
from spine.errors import DataError
from spine.progress import SILENT, Progress
from spine.tables import Vectors

__all__ = ["LARGE", "Clusters", "Labels", "assign", "fit_centroids", "fit_clusters"]

LARGE = 2**27
"""Similarities in one exact iteration, n·k, from which embeddings are compared with near centroids alone."""

_MANY = 1_024  # centroids from which that pays


def fit_centroids(embeddings: VectorSource, k: int, **options: Any) -> Vectors:
    """The centroids alone of `fit_clusters`, with the same options; shape (k, d)."""
    return fit_clusters(embeddings, k, **options).centroids


def fit_clusters(
    embeddings: VectorSource,
    k: int,
    *,
    method: str = "auto",
    iterations: int = 20,
    seed: int = 0,
    spherical: bool = True,
    exact_assignment: bool = False,
    progress: Progress = SILENT,
) -> Clusters:
    """Cluster embeddings into unit centroids by spherical k-means.

    Up to n·k = 134 million, or 1,023 centroids, each embedding is compared with every centroid, from a
    k-means++ start. Above, it is compared with some 384 centroids around it, in products of 8-bit whole
    numbers: a tiny part of the work for nearly the same objective; docs/centroids.md has the figures.
    In both, a centroid that no embedding is nearest to moves to the embedding that is worst served.

    Args:
        embeddings: Shape (n, d), float32, rows of L2 norm 1; or vectors on disk, which are read as they are needed.
        k: Centroids to find, 1 to n.
        method: auto; exact or neighbours, the two ways above; faiss-kmeans or faiss-superkmeans, FAISS's own, which
            hold all embeddings in memory, the first on GPUs where there are any.
        iterations: Rounds of assigning and averaging; fewer when nothing changes any more. 0 gives the
            embeddings that it would start from.
        seed: Same seed and data, same centroids.
        spherical: Scale centroids to unit length in each round; false is plain k-means by Euclidean
            distance, scaled at the end.
        exact_assignment: Compare every embedding with every centroid at the end. Otherwise `neighbours` leaves each
            with the nearest of those it was compared with.
        progress: Told of each iteration; all of them, should it end early.

    Returns:
        k centroids in no order; each is the nearest of one embedding at least. Fewer than k where the embeddings
        don't hold k points that float32 can tell apart. Labels and similarities of all embeddings.

    Raises:
        DataError: k is not in 1 to n, or a row's norm is not 1 within 1e-3.

    Source: Dhillon and Modha, "Concept decompositions for large sparse text
    data using clustering", Machine Learning 42, 2001.
    """
    embeddings = unit_rows(embeddings) if isinstance(embeddings, np.ndarray) else embeddings
    if not 1 <= k <= len(embeddings):
        raise DataError(
            f"k = {k:,} centroids of {len(embeddings):,} embeddings; 1 to as many as those was needed"
        )
    if method == "auto":
        method = "neighbours" if k >= _MANY and len(embeddings) * k > LARGE else "exact"
    if method.startswith("faiss-"):
        return _by_faiss(
            embeddings, k, method, iterations=iterations, seed=seed, spherical=spherical, progress=progress
        )
    fit = neighbour_kmeans if method == "neighbours" else exact_kmeans
    found = fit(embeddings, k, iterations=iterations, seed=seed, spherical=spherical, progress=progress)
    if method == "neighbours" and exact_assignment:
        return replace(all_served(embeddings, found.centroids), iterations=found.iterations)
    return found


def _by_faiss(
    embeddings: VectorSource,
    k: int,
    method: str,
    *,
    iterations: int,
    seed: int,
    spherical: bool,
    progress: Progress,
) -> Clusters:
    """FAISS's centroids; those without an embedding, which it may leave, are moved as ours are."""
    faiss, (n, d) = load_faiss(), embeddings.shape
    options = {
        "niter": iterations,
        "seed": seed + 1,
        "spherical": spherical,
        "min_points_per_centroid": 1,
        "max_points_per_centroid": -(-n // k),
    }
    if method == "faiss-superkmeans":
        kmeans = faiss.SuperKmeans(d, k, **options)
    else:
        kmeans = faiss.Kmeans(d, k, gpu=faiss.get_num_gpus() > 0, **options)
    kmeans.train(embeddings[:])
    progress.advance(iterations)
    centroids: Vectors = np.ascontiguousarray(kmeans.centroids)
    return replace(all_served(embeddings, scaled(centroids, centroids)), iterations=iterations)
