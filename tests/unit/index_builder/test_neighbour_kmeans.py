import os
import subprocess
import sys

import numpy as np
import pytest

from benchmarks.drawn_vectors import draw_vectors
from index_builder.clustering import kmeans
from index_builder.clustering.exact_kmeans import exact_kmeans
from index_builder.clustering.kmeans import fit_centroids
from index_builder.clustering.neighbour_kmeans import neighbour_kmeans
from spine.progress import SILENT


def unit(vectors):
    return (vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)).astype(np.float32)


def scattered(sizes, d, spread, seed=0):
    """So many embeddings around each of some directions."""
    random = np.random.default_rng(seed)
    labels = np.repeat(np.arange(len(sizes)), sizes)
    concepts = unit(random.standard_normal((len(sizes), d)))
    noise = random.standard_normal((len(labels), d)) / np.sqrt(d)
    return concepts, random.permutation(unit(concepts[labels] + spread * noise))


def neighbours_of(embeddings, k, *, iterations=5, seed=1, spherical=True, progress=SILENT):
    return neighbour_kmeans(
        embeddings, k, iterations=iterations, seed=seed, spherical=spherical, progress=progress
    ).centroids


def exactly(embeddings, k, *, iterations=5, spherical=True):
    """The textbook's: from embeddings drawn evenly, as FAISS starts too."""
    random = np.random.default_rng(1)
    centroids = embeddings[random.choice(len(embeddings), k, replace=False)]
    for _ in range(iterations):
        nearness = embeddings @ centroids.T
        if not spherical:
            nearness -= (centroids**2).sum(axis=1) / 2
        labels = nearness.argmax(axis=1)
        sizes = np.bincount(labels, minlength=k)
        sums = np.zeros_like(centroids)
        np.add.at(sums, labels, embeddings)
        centroids = np.where(sizes[:, None] > 0, sums / np.maximum(sizes, 1)[:, None], centroids)
        if spherical:
            centroids = unit(centroids)
    return unit(centroids)


def objective(embeddings, centroids):
    return (embeddings @ centroids.T).max(axis=1).mean()


def sizes_of(embeddings, centroids):
    return np.bincount((embeddings @ centroids.T).argmax(axis=1), minlength=len(centroids))


@pytest.fixture
def few_candidates(monkeypatch):
    """As few as large problems have; small ones can afford to compare with all."""
    monkeypatch.setattr("index_builder.clustering.neighbour_kmeans._COMPARED", 0)


@pytest.mark.parametrize("spherical", [True, False])
@pytest.mark.parametrize(
    "embeddings",
    [
        pytest.param(draw_vectors(20_000, 96), id="CLIP-like"),
        pytest.param(scattered([40] * 500, 64, 0.5)[1], id="planted"),
        pytest.param(scattered(np.geomspace(4_000, 1, 80).astype(int), 64, 0.7)[1], id="uneven"),
    ],
)
def test_it_serves_embeddings_as_well_as_the_exact_iteration_does(embeddings, spherical, few_candidates):
    exact = objective(embeddings, exactly(embeddings, 1_500, spherical=spherical))

    centroids = neighbours_of(embeddings, 1_500, spherical=spherical)

    assert centroids.shape == (1_500, embeddings.shape[1]) and centroids.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(centroids, axis=1), 1, atol=1e-5)
    assert objective(embeddings, centroids) >= 0.997 * exact
    assert sizes_of(embeddings, centroids).min() > 0


def test_from_a_good_start_on_it_finds_what_lies_apart():
    concepts, embeddings = scattered([60] * 100, 64, 0.1)

    centroids = neighbours_of(embeddings, 400, iterations=10)

    assert (concepts @ centroids.T).max(axis=1).min() > 0.99


def test_more_iterations_serve_the_embeddings_better(few_candidates):
    embeddings = draw_vectors(15_000, 64)

    reached = [objective(embeddings, neighbours_of(embeddings, 1_200, iterations=n)) for n in (0, 1, 3, 8)]

    assert (np.diff(reached) > 0.0005).all()


def test_the_same_seed_gives_the_same_centroids_whatever_the_threads_and_the_kernel():
    code = """
import hashlib, sys
import torch
from benchmarks.drawn_vectors import draw_vectors
from index_builder.numerics import integer_products
from index_builder.clustering import neighbour_kmeans as module
from index_builder.clustering.neighbour_kmeans import neighbour_kmeans
from spine.progress import SILENT
if sys.argv[1] == "floats":
    integer_products.has_fast_integers = lambda: False
module._COMPARED = 0
found = neighbour_kmeans(
    draw_vectors(8_000, 128), 900, iterations=3, seed=2, spherical=True, progress=SILENT
).centroids
print(torch.get_num_threads(), hashlib.sha256(found.tobytes()).hexdigest())
"""
    told = [
        subprocess.run(
            [sys.executable, "-c", code, kernel],
            env={
                **os.environ,
                "OMP_NUM_THREADS": threads,
                "OPENBLAS_NUM_THREADS": threads,
                "OMP_WAIT_POLICY": "PASSIVE",
            },
            capture_output=True,
            text=True,
            check=True,
        ).stdout.split()
        for threads, kernel in (("1", "integers"), ("4", "integers"), ("3", "floats"))
    ]

    assert [threads for threads, _ in told] == ["1", "4", "3"]
    assert len({digest for _, digest in told}) == 1


def test_another_seed_starts_elsewhere():
    embeddings = draw_vectors(5_000, 32)

    assert not np.array_equal(neighbours_of(embeddings, 300, seed=1), neighbours_of(embeddings, 300, seed=2))


@pytest.mark.parametrize("missing", [0, 1, 200])
def test_almost_as_many_centroids_as_embeddings_are_almost_all_of_them(missing):
    embeddings = scattered([20] * 100, 32, 0.6)[1]

    centroids = neighbours_of(embeddings, 2_000 - missing)

    assert len(centroids) == 2_000 - missing and sizes_of(embeddings, centroids).min() > 0
    assert np.count_nonzero((centroids @ embeddings.T).max(axis=1) > 1 - 1e-5) >= 2_000 - 2 * missing


def test_repeated_embeddings_give_no_centroid_twice():
    distinct = scattered([10] * 60, 32, 0.6)[1]
    embeddings = np.random.default_rng(0).permutation(np.repeat(distinct, 7, axis=0))

    centroids = neighbours_of(embeddings, 1_000)

    assert len(centroids) == 600
    np.testing.assert_allclose((distinct @ centroids.T).max(axis=1), 1, atol=1e-5)


def test_some_repeated_embeddings_cost_no_centroid():
    distinct = draw_vectors(6_000, 48)
    embeddings = np.concatenate([distinct, np.repeat(distinct[:300], 10, axis=0)])

    centroids = neighbours_of(embeddings, 1_200)

    assert len(centroids) == 1_200 and sizes_of(embeddings, centroids).min() > 0


def test_one_point_many_times_is_one_centroid():
    embeddings = np.tile(unit(np.ones(16)), (3_000, 1))

    np.testing.assert_allclose(neighbours_of(embeddings, 1_100), embeddings[:1], atol=1e-6)


def test_it_ends_and_tells_of_all_iterations_when_nothing_changes_any_more():
    embeddings = scattered([50] * 40, 32, 0.6)[1]

    class Heard:
        def __init__(self):
            self.steps = []

        def advance(self, units, failures=None):
            self.steps.append(units)

    heard = Heard()
    neighbours_of(embeddings, 60, iterations=400, progress=heard)

    assert sum(heard.steps) == 400 and len(heard.steps) < 400


def test_small_problems_stay_exact_and_large_ones_are_shortened(monkeypatch):
    embeddings = draw_vectors(3_000, 24)
    exact = exact_kmeans(embeddings, 1_100, iterations=2, seed=0, spherical=True, progress=SILENT).centroids
    near = neighbours_of(embeddings, 1_100, iterations=2, seed=0)

    np.testing.assert_allclose(fit_centroids(embeddings, 1_100, iterations=2), exact, atol=1e-5)
    monkeypatch.setattr(kmeans, "LARGE", 3_000 * 1_100 - 1)
    np.testing.assert_allclose(fit_centroids(embeddings, 1_100, iterations=2), near, atol=1e-2)
    assert not np.allclose(near, exact, atol=1e-2)


def test_torch_is_loaded_for_large_problems_alone():
    code = """
import sys
import numpy as np
from index_builder.clustering.kmeans import fit_centroids
fit_centroids(np.eye(8, dtype=np.float32), 3)
sys.exit("torch" in sys.modules)
"""
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
