import numpy as np
import pytest

from retrieval_server.duplicates import first_of_component
from retrieval_server.likeness import dimensions_to_compare


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


def drawn(n: int, seed: int, d: int = 384) -> np.ndarray:
    """Around few topics, in turned directions of falling width, with near-duplicates of both sides of 0.94."""
    fixed, random = np.random.default_rng(0), np.random.default_rng(seed)
    width = np.arange(1, d + 1) ** -0.7
    turned = np.linalg.qr(fixed.standard_normal((d, d)))[0]
    vectors = (
        fixed.standard_normal((5, d))[random.integers(5, size=n)] + random.standard_normal((n, d))
    ) * width
    vectors[::7] = vectors[3] * 0.2 + vectors[::7]
    vectors[1::9] = vectors[:-1:9] + 0.35 * random.standard_normal(vectors[1::9].shape) * width
    vectors = vectors @ turned
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def test_results_of_a_query_form_the_components_of_a_walk_over_the_graph():
    vectors = drawn(1200, seed=3)
    vectors[5] = 0
    expected = reference(vectors, 0.94)
    assert first_of_component(vectors, 0.94).tolist() == expected
    assert 100 < len(set(expected)) < 1150


@pytest.mark.parametrize("apart", [0.0, 0.3, 0.4, 0.6])
def test_results_that_nearly_all_resemble_each_other_are_told_apart_exactly(apart):
    vectors = drawn(1000, seed=4)
    vectors = apart * vectors + vectors[0]
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    assert first_of_component(vectors, 0.94).tolist() == reference(vectors, 0.94)


@pytest.mark.parametrize(("n", "d"), [(2, 1), (3, 5), (96, 33), (97, 33), (130, 768), (520, 99)])
def test_no_number_of_rows_or_dimensions_is_odd(n, d):
    generator = np.random.default_rng(n)
    vectors = generator.standard_normal((n, d)) + 3 * generator.standard_normal((5, d))[np.arange(n) % 5]
    vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    assert first_of_component(vectors, 0.9).tolist() == reference(vectors, 0.9)


def test_hardly_any_pair_of_a_querys_results_is_looked_at_in_full():
    vectors = drawn(1200, seed=3)
    widest = np.argsort(-vectors.var(axis=0))
    count = dimensions_to_compare(vectors, widest, 0.1201)
    compared = vectors[:, widest[:count]]
    squares = np.square(compared).sum(axis=1)
    apart = squares[:, None] + squares - 2 * compared @ compared.T
    similar = np.count_nonzero(vectors @ vectors.T > 0.94)
    assert count < 384
    assert np.count_nonzero(apart <= 0.1201) < similar + 0.01 * len(vectors) ** 2
