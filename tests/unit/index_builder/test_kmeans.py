import os
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from index_builder.clustering.kmeans import assign, fit_centroids
from spine.errors import DataError


def unit(vectors):
    return (vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)).astype(np.float32)


@pytest.fixture(scope="module")
def clustered():
    """Eight orthogonal concepts in 64 dimensions, 4,000 embeddings scattered around them."""
    random = np.random.default_rng(3)
    concepts = np.linalg.qr(random.standard_normal((64, 8)))[0].T.astype(np.float32)
    labels = random.integers(8, size=4_000)
    return concepts, unit(concepts[labels] + 0.05 * random.standard_normal((4_000, 64))), labels


def slow_k_means(embeddings, start, iterations):
    """Spherical k-means as in the textbook, in float64."""
    centroids = start.astype(np.float64)
    for _ in range(iterations):
        labels = (embeddings @ centroids.T).argmax(axis=1)
        for i in range(len(centroids)):
            centroids[i] = embeddings[labels == i].sum(axis=0)
        centroids /= np.linalg.norm(centroids, axis=1, keepdims=True)
    return centroids


def objective(embeddings, centroids):
    return (embeddings @ centroids.T).max(axis=1).mean()


def test_fit_centroids_finds_the_planted_concepts(clustered):
    concepts, embeddings, _ = clustered

    centroids = fit_centroids(embeddings, 8)

    assert (concepts @ centroids.T).max(axis=1).min() > 0.99


def test_the_start_finds_small_concepts_more_often_than_chance():
    random = np.random.default_rng(0)
    labels = np.repeat(np.arange(10), [5_000, *[20] * 9])
    embeddings = unit(np.eye(32)[labels] + 0.05 * random.standard_normal((len(labels), 32)))

    found = [
        len(set(fit_centroids(embeddings, 10, seed=seed, iterations=0).argmax(axis=1))) for seed in range(20)
    ]

    assert np.mean(found) > 6  # drawn evenly it is 1.3 on average


@pytest.mark.parametrize("spherical", [True, False])
def test_centroids_have_norm_one_and_each_is_the_nearest_of_some_embedding(clustered, spherical):
    _, embeddings, _ = clustered

    for k in (1, 7, 100, 1_000):
        centroids = fit_centroids(embeddings, k, iterations=5, spherical=spherical)

        assert centroids.shape == (k, 64) and centroids.dtype == np.float32
        np.testing.assert_allclose(np.linalg.norm(centroids, axis=1), 1, atol=1e-5)
        assert np.bincount((embeddings @ centroids.T).argmax(axis=1), minlength=k).min() > 0


def test_it_is_the_textbook_iteration():
    embeddings = unit(np.random.default_rng(0).standard_normal((600, 16)))
    start = fit_centroids(embeddings, 12, iterations=0, seed=4)

    centroids = fit_centroids(embeddings, 12, iterations=6, seed=4)

    np.testing.assert_allclose(centroids, slow_k_means(embeddings, start, 6), atol=1e-4)


def test_more_iterations_never_serve_the_embeddings_worse():
    embeddings = unit(np.random.default_rng(0).standard_normal((2_000, 16)))

    reached = [objective(embeddings, fit_centroids(embeddings, 30, iterations=n)) for n in range(1, 12)]

    assert (np.diff(reached) > -1e-6).all() and reached[-1] > reached[0] + 0.01


def test_plain_k_means_minimises_euclidean_distance():
    # One long cluster and a short one: the mean of unit vectors is shorter the wider they scatter.
    embeddings = unit(np.random.default_rng(1).standard_normal((1_000, 8)) + 0.5)

    plain = fit_centroids(embeddings, 10, spherical=False)
    spherical = fit_centroids(embeddings, 10, spherical=True)

    assert not np.allclose(plain, spherical, atol=1e-3)
    assert objective(embeddings, plain) > objective(embeddings, embeddings[:10]) + 0.05


def test_the_same_seed_gives_the_same_centroids_whatever_the_number_of_threads():
    code = """
import hashlib, numpy as np
from index_builder.clustering.kmeans import fit_centroids
x = np.random.default_rng(0).standard_normal((3000, 64)).astype("float32")
x /= np.linalg.norm(x, axis=1, keepdims=True)
print(hashlib.sha256(fit_centroids(x, 50, seed=2).tobytes()).hexdigest())
"""
    digests = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "OMP_NUM_THREADS": threads, "OPENBLAS_NUM_THREADS": threads},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for threads in ("1", "1", "2", "3")
    }

    assert len(digests) == 1


def test_another_seed_starts_elsewhere(clustered):
    _, embeddings, _ = clustered

    assert not np.array_equal(fit_centroids(embeddings, 50, seed=0), fit_centroids(embeddings, 50, seed=1))


def test_repeated_embeddings_give_no_centroid_twice():
    distinct = unit(np.random.default_rng(0).standard_normal((7, 16)))
    embeddings = np.repeat(distinct, [500, 1, 1, 30, 1, 400, 1], axis=0)

    centroids = fit_centroids(embeddings, 10)

    assert len(centroids) == 7
    np.testing.assert_allclose(np.sort(centroids, axis=0), np.sort(distinct, axis=0), atol=1e-5)


def test_one_point_many_times_is_one_centroid():
    embeddings = np.tile(unit(np.ones(16)), (50, 1))

    np.testing.assert_allclose(fit_centroids(embeddings, 5), embeddings[:1], atol=1e-6)


def test_opposite_embeddings_that_cancel_out_leave_a_centroid_of_norm_one():
    embeddings = np.repeat(np.eye(4, dtype=np.float32)[:1], 10, axis=0) * np.array(
        [[1], [-1]] * 5, dtype=np.float32
    )

    centroids = fit_centroids(embeddings, 1)

    np.testing.assert_allclose(np.linalg.norm(centroids, axis=1), 1)


def test_as_many_centroids_as_embeddings_are_the_embeddings():
    embeddings = unit(np.random.default_rng(0).standard_normal((40, 16)))

    centroids = fit_centroids(embeddings, 40)

    np.testing.assert_allclose((centroids @ embeddings.T).max(axis=1), 1, atol=1e-5)
    assert len(np.unique((centroids @ embeddings.T).argmax(axis=1))) == 40


@settings(max_examples=30, deadline=None)
@given(
    n=st.integers(1, 60),
    share=st.floats(0, 1),
    d=st.integers(1, 6),
    distinct=st.integers(1, 60),
    seed=st.integers(0, 999),
)
def test_no_centroid_is_ever_empty_or_wrong(n, share, d, distinct, seed):
    random = np.random.default_rng(seed)
    points = random.standard_normal((distinct, d))
    # As stored in float16, the norms are not quite 1.
    embeddings = unit(points[random.integers(distinct, size=n)]) * np.float32(random.uniform(0.9992, 1.0008))
    k = max(1, round(share * n))

    centroids = fit_centroids(embeddings, k, iterations=3, seed=seed)

    assert 1 <= len(centroids) <= k
    assert np.isfinite(centroids).all()
    np.testing.assert_allclose(np.linalg.norm(centroids, axis=1), 1, atol=1e-5)
    assert np.bincount(assign(embeddings, centroids)[0], minlength=len(centroids)).min() > 0
    if len(centroids) < k:  # then each point has its own
        np.testing.assert_allclose((embeddings @ centroids.T).max(axis=1), 1, atol=1e-3)


def test_assign_gives_the_most_similar_centroid(clustered):
    concepts, embeddings, labels = clustered

    found, similarities = assign(embeddings, concepts)

    np.testing.assert_array_equal(found, labels)
    np.testing.assert_allclose(similarities, (embeddings @ concepts.T).max(axis=1), atol=1e-6)


@pytest.mark.parametrize(
    ("change", "k", "message"),
    [
        (lambda embeddings: embeddings, 0, "k = 0"),
        (lambda embeddings: embeddings, 4_001, "k = 4,001 centroids of 4,000"),
        (lambda embeddings: embeddings[:0], 1, "one row at least"),
        (lambda embeddings: embeddings[0], 1, "one row at least"),
        (lambda embeddings: embeddings * 1.01, 5, "norm 1"),
        (
            lambda embeddings: np.where(np.arange(4_000)[:, None] == 17, np.nan, embeddings),
            5,
            "row 17 has nan",
        ),
        (
            lambda embeddings: np.where(np.arange(4_000)[:, None] == 17, np.inf, embeddings),
            5,
            "row 17 has inf",
        ),
        (lambda embeddings: np.where(np.arange(4_000)[:, None] == 17, 0, embeddings), 5, "row 17 has 0"),
    ],
)
def test_what_can_not_be_clustered_is_refused(clustered, change, k, message):
    with pytest.raises(DataError, match=message):
        fit_centroids(change(clustered[1]), k)
