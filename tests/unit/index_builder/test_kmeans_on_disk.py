"""K-means of embeddings on disk: the same centroids as of those in memory, whatever the shards."""

import numpy as np
import pytest

from benchmarks.drawn_vectors import draw_vectors
from index_builder.clustering import exact_kmeans
from index_builder.clustering.kmeans import fit_clusters
from index_builder.numerics import integer_products, stored_vectors
from index_builder.numerics.stored_vectors import StoredVectors
from spine.errors import DataError

N, D = 6_000, 32


@pytest.fixture(scope="module")
def halves():
    return draw_vectors(N, D).astype(np.float16)


def in_shards(folder, halves, count):
    folder.mkdir()
    for number, rows in enumerate(np.array_split(halves, count)):
        np.save(folder / f"{number:03d}.npy", rows)
    return StoredVectors(sorted(folder.glob("*.npy")))


@pytest.mark.parametrize("method", ["exact", "neighbours"])
@pytest.mark.parametrize("spherical", [True, False])
def test_memory_or_disk_and_however_sharded_makes_no_difference(
    tmp_path, halves, monkeypatch, method, spherical
):
    monkeypatch.setattr(integer_products, "_BLOCK_VALUES", 2_500 * D)  # three blocks
    monkeypatch.setattr(integer_products, "_READ", 700)
    monkeypatch.setattr(stored_vectors, "BLOCK_BYTES", 4 * D * 1_000)
    sources = [
        halves.astype(np.float32),
        in_shards(tmp_path / "1", halves, 1),
        in_shards(tmp_path / "7", halves, 7),
    ]

    found = [fit_clusters(x, 300, method=method, spherical=spherical, iterations=4, seed=3) for x in sources]

    for other in found[1:]:
        np.testing.assert_array_equal(other.centroids, found[0].centroids)
        np.testing.assert_array_equal(other.labels, found[0].labels)
        np.testing.assert_allclose(other.similarities, found[0].similarities, atol=1e-6)


@pytest.mark.parametrize("method", ["exact", "neighbours", "faiss-kmeans", "faiss-superkmeans"])
@pytest.mark.parametrize("exact_assignment", [True, False])
def test_labels_and_similarities_are_those_of_the_centroids(
    tmp_path, halves, monkeypatch, method, exact_assignment
):
    monkeypatch.setattr(
        "index_builder.clustering.neighbour_kmeans._COMPARED", 0
    )  # few candidates, as large problems have
    stored = in_shards(tmp_path / "shards", halves, 3)

    found = fit_clusters(stored, 800, method=method, iterations=3, exact_assignment=exact_assignment)

    similarities = stored[:] @ found.centroids.T
    own = similarities[np.arange(N), found.labels]
    np.testing.assert_allclose(found.similarities, own, atol=1e-5)
    assert np.bincount(found.labels, minlength=800).min() > 0 and len(found.centroids) == 800
    best = similarities.max(axis=1)
    if exact_assignment or method != "neighbours":
        np.testing.assert_allclose(own, best, atol=1e-5)
    else:
        assert (own > best - 1e-5).mean() > 0.9 and own.mean() > 0.995 * best.mean()


def test_a_start_from_a_part_of_the_embeddings_finds_the_concepts_as_well(tmp_path, monkeypatch):
    random = np.random.default_rng(0)
    concepts = np.linalg.qr(random.standard_normal((D, 20)))[0].T
    vectors = concepts[random.integers(20, size=N)] + 0.05 * random.standard_normal((N, D))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    monkeypatch.setattr(exact_kmeans, "_STARTED_BY", 400)

    found = fit_clusters(in_shards(tmp_path / "shards", vectors.astype(np.float16), 5), 40)

    assert (concepts @ found.centroids.T).max(axis=1).min() > 0.99


def test_a_wrong_row_on_disk_is_told_with_its_file(tmp_path, halves):
    wrong = halves.copy()
    wrong[5_999] = 0

    with pytest.raises(DataError, match=r"006\.npy: 1 of .* embeddings have not norm 1"):
        fit_clusters(in_shards(tmp_path / "shards", wrong, 7), 30)
