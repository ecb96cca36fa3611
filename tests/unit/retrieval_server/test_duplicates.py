import numpy as np
import pytest

from retrieval_server.duplicates import first_of_component


def reference(vectors: np.ndarray, threshold: float) -> list[int]:
    """Walk the graph from each row in turn."""
    connected = vectors @ vectors.T > threshold
    first = [-1] * len(vectors)
    for start in range(len(vectors)):
        waiting = [start] if first[start] < 0 else []
        while waiting:
            row = waiting.pop()
            if first[row] < 0:
                first[row] = start
                waiting += np.flatnonzero(connected[row]).tolist()
    return first


@pytest.mark.parametrize("n", [0, 1, 2, 300, 2500])
@pytest.mark.parametrize("spread", [0.1, 0.35, 3.0])
def test_components_are_those_of_a_walk_over_the_graph(n, spread):
    generator = np.random.default_rng(n)
    vectors = np.eye(16)[generator.integers(16, size=n)] + spread * generator.standard_normal((n, 16)) / 4
    vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    assert first_of_component(vectors, 0.94).tolist() == reference(vectors, 0.94)


def test_a_chain_is_one_component():
    angles = np.arange(8) * 0.3  # neighbours have similarity cos 0.3 = 0.955, the next but one 0.825
    vectors = np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)
    shuffled = [3, 7, 0, 5, 1, 6, 2, 4]
    assert first_of_component(vectors[shuffled], 0.94).tolist() == [0] * 8
    assert first_of_component(vectors[::2], 0.94).tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize("apart", [0.1, 0.3, 0.35, 0.36, 0.9])
def test_wide_vectors_around_the_threshold_are_told_apart_exactly(apart):
    """Only some of their dimensions are looked at first, and those where they differ may be the others."""
    generator = np.random.default_rng(7)
    vectors = generator.standard_normal((700, 400)) * np.arange(1, 401) ** -0.4
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    step = np.zeros((350, 400))
    step[:, 300:] = generator.standard_normal((350, 100))  # the narrow dimensions
    vectors[350:] = vectors[:350] + apart * step / np.linalg.norm(step, axis=1, keepdims=True)
    vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    vectors[5] = 0  # a code of zeros is like nothing, itself included
    assert first_of_component(vectors, 0.94).tolist() == reference(vectors, 0.94)
