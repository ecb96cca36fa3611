"""Unit vectors for tests, scattered around middles as embeddings are around concepts."""

import numpy as np


def unit(vectors):
    """Rows at L2 norm 1, float32."""
    vectors = np.asarray(vectors)
    return (vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)).astype(np.float32)


def scattered(n, d, *, middles=40, noise=0.4, seed=5):
    """n unit vectors around so many middles."""
    random = np.random.default_rng(seed)
    drawn = random.standard_normal((middles, d))
    return unit(drawn[random.integers(middles, size=n)] + noise * random.standard_normal((n, d)))


def near(vectors, count, *, noise=0.1, seed=6):
    """Unit vectors that ask: each a little beside one of these."""
    n, d = vectors.shape
    random = np.random.default_rng(seed)
    return unit(vectors[random.integers(n, size=count)] + noise * random.standard_normal((count, d)))
