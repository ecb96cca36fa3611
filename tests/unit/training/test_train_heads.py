import numpy as np
import pytest

from index_builder.scoring.heads import load_head
from training.train_heads import fit_aesthetic, fit_detector, rating_embeddings


@pytest.fixture
def embeddings():
    rows = np.random.default_rng(0).standard_normal((3000, 16)).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def test_fit_aesthetic_finds_a_plane(embeddings):
    direction = np.eye(16, dtype=np.float32)[3]

    weight, bias = fit_aesthetic(embeddings, 0.5 + 0.4 * embeddings @ direction, ridge=1e-6)

    assert weight == pytest.approx(4 * direction, abs=1e-3)
    assert bias == pytest.approx(5, abs=1e-3)


def test_ratings_are_unit_and_rise_even_where_bins_are_empty(embeddings):
    scores = 5 + 4 * embeddings[:, 3]

    ratings = rating_embeddings(embeddings, scores)

    assert ratings.shape == (10, 16)
    assert np.linalg.norm(ratings, axis=1) == pytest.approx(1, abs=1e-5)
    assert (np.diff(ratings[:, 3]) > -0.05).all()
    assert ratings[9, 3] > 0.9 and ratings[0, 3] < -0.9


def test_a_detector_s_arrays_are_read_as_laion_s_are(embeddings, tmp_path):
    truth = (embeddings[:, 0] > 0).astype(np.float32)

    arrays = fit_detector(embeddings, truth, steps=300)
    np.savez(tmp_path / "unsafe.npz", **arrays)
    probability = load_head(str(tmp_path / "unsafe.npz"), "unsafe", 16).score(embeddings)

    assert ((probability > 0.5) == (truth > 0.5)).mean() > 0.95
    assert {name: value.shape for name, value in arrays.items()} == {
        "cat_columns": (0,),
        "norm_mean": (16,),
        "norm_var": (16,),
        "dense_0_kernel": (16, 32),
        "dense_0_bias": (32,),
        "dense_1_kernel": (32, 1),
        "dense_1_bias": (1,),
    }
