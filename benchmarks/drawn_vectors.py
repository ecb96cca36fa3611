"""Vectors drawn for benchmarks: CLIP-like in cone, spectrum and cluster sizes, though no picture was seen."""

from collections.abc import Iterator

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


def draw_fine_vectors(n: int, d: int, seed: int = 0, *, world: int = 0) -> Floats:
    """The vectors of `fine_blocks` in one array, shape (n, d), float32."""
    vectors = np.empty((n, d), dtype=np.float32)
    for start, block in fine_blocks(n, d, seed, world=world):
        vectors[start : start + len(block)] = block
    return vectors


def fine_blocks(n: int, d: int, seed: int = 0, *, world: int = 0) -> Iterator[tuple[int, Floats]]:
    """Unit vectors of sub-topics whose noise has rank 48, as CLIP's local dimension is low, 65,536 rows at a time.

    400 topics, 20,000 sub-topics of uneven size. Two vectors have a cosine of 0.50 on average, the nearest of 100,000
    one of 0.93, the 20th 0.86; 128 directions hold 0.80 of the variance (d = 768).

    Args:
        n: How many.
        d: Their dimension, 48 at least.
        seed: Of the vectors: others of the same world for another.
        world: Of the topics they are scattered around.

    Yields:
        Number of a block's first row, and the block (m, d), float32.
    """
    topics, fine, rank = 400, 20_000, 48
    fixed, random = np.random.default_rng([world, 1]), np.random.default_rng([world, seed, 1])
    spectrum = (np.arange(1, d + 1) ** -0.5).astype(np.float32)
    spectrum /= np.linalg.norm(spectrum)
    rotation = np.linalg.qr(fixed.standard_normal((d, d)))[0].astype(np.float32)
    cone = fixed.standard_normal(d, dtype=np.float32) * spectrum
    cone /= np.linalg.norm(cone)
    middles = 0.75 * fixed.standard_normal((topics, d), dtype=np.float32) * spectrum
    topic = fixed.integers(topics, size=fine)
    middles = cone + middles[topic] + 0.45 * fixed.standard_normal((fine, d), dtype=np.float32) * spectrum
    bases = 0.45 / rank**0.5 * fixed.standard_normal((topics, rank, d), dtype=np.float32) * spectrum
    weights = np.arange(1, fine + 1) ** -0.75
    for start in range(0, n, 65_536):
        count = min(65_536, n - start)
        own = random.choice(fine, size=count, p=weights / weights.sum())
        drawn = middles[own] + 0.1 * random.standard_normal((count, d), dtype=np.float32) * spectrum
        noise = random.standard_normal((count, rank), dtype=np.float32)
        order = np.argsort(topic[own], kind="stable")
        for rows in np.split(order, np.flatnonzero(np.diff(topic[own][order])) + 1):
            drawn[rows] += noise[rows] @ bases[topic[own[rows[0]]]]
        drawn = drawn @ rotation
        yield start, drawn / np.linalg.norm(drawn, axis=1, keepdims=True)
