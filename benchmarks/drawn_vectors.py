"""Vectors drawn for benchmarks: CLIP-like in cone, spectrum and cluster sizes, though no picture was seen."""

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]


def draw_vectors(n: int, d: int, seed: int = 0, *, world: int = 0) -> Floats:
    """Unit vectors around topics of uneven size, in a cone, with a falling spectrum; shape (n, d), float32.

    Args:
        n: How many.
        d: Their dimension.
        seed: Of the vectors: others of the same world for another.
        world: Of the topics they are scattered around.
    """
    topics = 2_000
    fixed, random = np.random.default_rng(world), np.random.default_rng([world, seed])
    spectrum = np.arange(1, d + 1) ** -0.35
    rotation = np.linalg.qr(fixed.standard_normal((d, d)))[0]
    middles = fixed.standard_normal((topics, d)) * spectrum
    cone = fixed.standard_normal(d) * spectrum
    weights = np.arange(1, topics + 1) ** -0.75
    vectors = np.empty((n, d), dtype=np.float32)
    for start in range(0, n, 65_536):
        count = min(65_536, n - start)
        drawn = middles[random.choice(topics, size=count, p=weights / weights.sum())]
        drawn = cone + drawn + 0.7 * random.standard_normal((count, d)) * spectrum
        drawn = drawn @ rotation
        vectors[start : start + count] = drawn / np.linalg.norm(drawn, axis=1, keepdims=True)
    return vectors
