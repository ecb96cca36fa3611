"""The figures of the release report, against plain loops and answers known by algebra."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curation.resemblance import (
    diversity,
    frechet_distance,
    nearest_similarities,
    resemblance,
    vendi_score,
)


def unit(vectors: np.ndarray) -> np.ndarray:
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def cloud(seed: int, n: int, d: int = 8) -> np.ndarray:
    return unit(np.random.default_rng(seed).standard_normal((n, d)) + 0.5)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000), st.integers(7, 40), st.integers(7, 40), st.integers(1, 5))
def test_precision_recall_and_coverage_are_those_of_plain_loops(seed, n, m, k):
    pictures, concepts = cloud(seed, n), cloud(seed + 1, m)
    figures = resemblance(pictures, concepts, nearest=k)

    def balls(vectors):
        return [
            sorted(float(v @ w) for j, w in enumerate(vectors) if j != i)[-k] for i, v in enumerate(vectors)
        ]

    of_concepts, of_pictures = balls(concepts), balls(pictures)
    near = np.array([[float(p @ c) for c in concepts] for p in pictures])
    eps = 1e-6
    low, high = near >= np.array(of_concepts) + eps, near >= np.array(of_concepts) - eps
    low_r, high_r = near >= np.array(of_pictures)[:, None] + eps, near >= np.array(of_pictures)[:, None] - eps
    assert low.any(axis=1).mean() <= figures.precision <= high.any(axis=1).mean()
    assert low.any(axis=0).mean() <= figures.coverage <= high.any(axis=0).mean()
    assert low_r.any(axis=0).mean() <= figures.recall <= high_r.any(axis=0).mean()
    assert figures.similarity == pytest.approx(near.max(axis=1).mean(), abs=1e-5)
    np.testing.assert_allclose(nearest_similarities(pictures, concepts), near.max(axis=1), atol=1e-5)


def test_the_frechet_distance_is_that_of_algebra_for_moved_and_scaled_sets():
    vectors = np.random.default_rng(0).standard_normal((200, 6)) @ np.diag([1, 2, 3, 0.1, 1, 0])
    moved = np.array([1.0, -2, 0, 0, 0, 0.5])
    spread = np.trace(np.cov(vectors, rowvar=False))

    assert frechet_distance(vectors, vectors) == pytest.approx(0, abs=1e-6)
    assert frechet_distance(vectors, vectors + moved) == pytest.approx(moved @ moved, rel=1e-6)
    scaled = 4 * vectors
    mean = vectors.mean(axis=0)
    assert frechet_distance(vectors, scaled) == pytest.approx(9 * (mean @ mean + spread), rel=1e-6)


def test_the_vendi_score_counts_what_is_unlike_and_diversity_is_the_mean_over_pairs():
    groups = np.repeat(np.eye(5, 12, dtype=np.float32), 8, axis=0)
    assert vendi_score(groups) == pytest.approx(5, rel=1e-6)
    assert vendi_score(groups[:8]) == pytest.approx(1, rel=1e-6)
    vectors = cloud(3, 30)
    pairs = [vectors[i] @ vectors[j] for i in range(30) for j in range(30) if i != j]
    assert diversity(vectors) == pytest.approx(1 - np.mean(pairs), abs=1e-6)


def test_pictures_of_the_concepts_are_told_from_others_by_every_figure():
    middles = unit(np.random.default_rng(4).standard_normal((6, 16)))

    def around(seed: int) -> np.ndarray:
        chance = np.random.default_rng(seed)
        return unit(middles[chance.integers(6, size=300)] + 0.1 * chance.standard_normal((300, 16)))

    concepts, alike = around(5), around(6)
    others = unit(np.random.default_rng(7).standard_normal((300, 16)))
    near, far = resemblance(alike, concepts), resemblance(others, concepts)

    assert near.precision > 0.8 > 0.2 > far.precision
    assert near.coverage > 0.9 > 0.2 > far.coverage
    assert near.frechet < far.frechet / 5
    assert near.similarity > far.similarity
    assert near.vendi < far.vendi
