import numpy as np
import pytest

from index_builder.clustering.witnesses import Assigned, Contest, with_witnesses
from index_builder.numerics.integer_products import Space


def unit(vectors):
    return (vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)).astype(np.float32)


@pytest.fixture(scope="module")
def space():
    """3,000 embeddings without any order in them."""
    return Space.of(unit(np.random.default_rng(0).standard_normal((3_000, 24)) + 0.3))


def assigned(space, centroids, among=None):
    """The exact nearest centroid, or that among some alone."""
    similarities = space.embeddings @ centroids.T
    if among is not None:
        similarities[:, np.setdiff1d(np.arange(len(centroids)), among)] = -2
    labels = similarities.argmax(axis=1)
    return Assigned(labels, (similarities.max(axis=1) * 1e6).astype(np.int32))


def served_by(space, centroids, found):
    similarities = np.einsum("ij,ij->i", space.embeddings, centroids[found.labels])
    clusters = with_witnesses(space, centroids.copy(), found, similarities)
    own = np.einsum("ij,ij->i", space.embeddings, clusters.centroids[clusters.labels])
    np.testing.assert_allclose(clusters.similarities, own, atol=1e-5)
    assert np.bincount(clusters.labels, minlength=len(clusters.centroids)).min() > 0
    return clusters.centroids


def sizes(space, centroids):
    return np.bincount((space.embeddings @ centroids.T).argmax(axis=1), minlength=len(centroids))


def test_a_contest_is_won_where_the_exact_similarities_say_so(space):
    centroids = space.embeddings[:300].copy()
    random = np.random.default_rng(1)
    rows, own = random.integers(3_000, size=2_000), random.integers(300, size=2_000)
    own[:1_000] = (space.embeddings[rows[:1_000]] @ centroids.T).argmax(axis=1)

    similarities = space.embeddings[rows].astype(np.float64) @ centroids.T.astype(np.float64)
    mine = similarities[np.arange(2_000), own].copy()
    similarities[np.arange(2_000), own] = -2
    for rivals in (np.arange(300), np.arange(0, 300, 7), np.array([5])):
        expected = mine > similarities[:, rivals].max(axis=1) + 1e-6

        np.testing.assert_array_equal(Contest(space, centroids).won(rows, own, rivals), expected)


def test_centroids_that_all_serve_an_embedding_stay_where_they_are(space):
    centroids = unit(np.random.default_rng(2).standard_normal((20, 24)) + 0.3)
    assert sizes(space, centroids).min() > 0

    np.testing.assert_array_equal(served_by(space, centroids, assigned(space, centroids)), centroids)


def test_idle_centroids_move_to_embeddings_that_were_served_badly(space):
    centroids = np.concatenate([space.embeddings[:50], np.repeat(-space.embeddings[:1], 30, axis=0)])
    worst = np.sort((space.embeddings @ centroids.T).max(axis=1))[:300].mean()

    served = served_by(space, centroids, assigned(space, centroids))

    assert served.shape == centroids.shape and sizes(space, served).min() > 0
    assert np.sort((space.embeddings @ served.T).max(axis=1))[:300].mean() > worst + 0.01


def test_what_was_assigned_to_a_centroid_that_is_not_the_nearest_is_no_proof(space):
    # Centroids 50 to 79 are empty in truth: twins of 0 to 29, though embeddings were assigned to them.
    centroids = np.concatenate([space.embeddings[:50], space.embeddings[:30]])
    found = assigned(space, centroids, among=np.arange(20, 80))

    served = served_by(space, centroids, found)

    assert len(served) == 80 and sizes(space, served).min() > 0
    assert len(np.unique(served, axis=0)) == 80


def test_a_centroid_too_many_is_left_out():
    points = unit(np.random.default_rng(0).standard_normal((6, 8)))
    space = Space.of(np.repeat(points, 50, axis=0))
    centroids = np.concatenate([points, points[:3]])

    served = served_by(space, centroids, assigned(space, centroids))

    assert len(served) == 6
    np.testing.assert_allclose(np.sort(served, axis=0), np.sort(points, axis=0), atol=1e-6)
