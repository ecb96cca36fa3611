"""How much a set of pictures resembles the concepts, by their embeddings alone: plain NumPy.

A picture's reach is its similarity to its k-th nearest in its own set. Precision: pictures of the set that lie
within the reach of a concept picture. Recall: concept pictures within the reach of one of the set. Coverage:
concept pictures that have one of the set within their own reach. All three are shares, higher is better.
The Fréchet distance compares mean and spread of the two sets, lower is nearer. Diversity: one minus the mean
similarity of two different pictures; and the Vendi score, how many pictures as good as unlike each other
would spread as much.

All of them depend on the number of pictures: sets are compared at one size only.

Source: Kynkäänniemi et al., "Improved Precision and Recall Metric for Assessing Generative Models", 2019;
Naeem et al., "Reliable Fidelity and Diversity Metrics for Generative Models", 2020; Heusel et al., "GANs
Trained by a Two Time-Scale Update Rule Converge to a Local Nash Equilibrium", 2017; Friedman and Dieng, "The
Vendi Score", 2023.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from spine.tables import Vectors

NEAREST = 5
"""The k of a picture's reach, where sets are large enough."""

LEAST = 10
"""Pictures that a set must have for its figures to say anything."""

_BLOCK = 1024


@dataclass(frozen=True, kw_only=True, slots=True)
class Resemblance:
    """The figures of one set."""

    pictures: int
    """Of the set, and of the concepts it is compared with."""
    precision: float
    recall: float
    coverage: float
    frechet: float
    similarity: float
    """Mean similarity of a picture to its nearest concept picture."""
    diversity: float
    vendi: float


def nearest_of(n: int) -> int:
    """The k of a picture's reach in sets of n: of few pictures the fifth nearest is anywhere."""
    return min(NEAREST, max(1, n // 15))


def resemblance(pictures: Vectors, concepts: Vectors, nearest: int = NEAREST) -> Resemblance:
    """The figures of a set beside the concepts.

    Args:
        pictures: Shape (n, d), rows of L2 norm 1; n above `nearest`.
        concepts: Shape (n, d) likewise.
        nearest: The k of a picture's reach.
    """
    reach_of_concepts, reach_of_pictures = reach(concepts, nearest), reach(pictures, nearest)
    best_concept = np.empty(len(pictures), dtype=np.float32)
    precise = np.zeros(len(pictures), dtype=bool)
    recalled, covered = np.zeros((2, len(concepts)), dtype=bool)
    for start in range(0, len(pictures), _BLOCK):
        rows = slice(start, start + _BLOCK)
        similar = pictures[rows] @ concepts.T
        best_concept[rows] = similar.max(axis=1)
        precise[rows] = (similar >= reach_of_concepts).any(axis=1)
        covered |= (similar >= reach_of_concepts).any(axis=0)
        recalled |= (similar >= reach_of_pictures[rows, None]).any(axis=0)
    return Resemblance(
        pictures=len(pictures),
        precision=float(precise.mean()),
        recall=float(recalled.mean()),
        coverage=float(covered.mean()),
        frechet=frechet_distance(pictures, concepts),
        similarity=float(best_concept.mean(dtype=np.float64)),
        diversity=diversity(pictures),
        vendi=vendi_score(pictures),
    )


def reach(vectors: Vectors, nearest: int) -> npt.NDArray[np.float32]:
    """Each row's similarity to its `nearest`-th nearest other row, shape (n,)."""
    found = np.empty(len(vectors), dtype=np.float32)
    for start in range(0, len(vectors), _BLOCK):
        similar = vectors[start : start + _BLOCK] @ vectors.T
        similar[np.arange(len(similar)), start + np.arange(len(similar))] = -np.inf  # not to itself
        found[start : start + _BLOCK] = np.partition(similar, -nearest, axis=1)[:, -nearest]
    return found


def nearest_similarities(pictures: Vectors, concepts: Vectors) -> npt.NDArray[np.float32]:
    """Each picture's similarity to its nearest concept picture, shape (n,)."""
    blocks = (pictures[start : start + _BLOCK] @ concepts.T for start in range(0, len(pictures), _BLOCK))
    found = [block.max(axis=1) for block in blocks]
    return np.concatenate(found) if found else np.empty(0, dtype=np.float32)


def frechet_distance(first: Vectors, second: Vectors) -> float:
    """Between two sets taken as normal distributions: |m - n|² + tr(A + B - 2 (A B)^½)."""
    one, other = first.astype(np.float64), second.astype(np.float64)
    apart = one.mean(axis=0) - other.mean(axis=0)
    spread, spread_of_other = np.cov(one, rowvar=False), np.cov(other, rowvar=False)
    root = _root(spread)
    # The eigenvalues of A B are those of A^½ B A^½, which is symmetric.
    product = np.linalg.eigvalsh(root @ spread_of_other @ root)
    traces = np.trace(spread) + np.trace(spread_of_other) - 2 * np.sqrt(np.clip(product, 0, None)).sum()
    return float(max(apart @ apart + traces, 0.0))


def diversity(vectors: Vectors) -> float:
    """One minus the mean similarity of two different rows."""
    n = len(vectors)
    total = vectors.astype(np.float64).sum(axis=0)
    return float(1 - (total @ total - n) / (n * (n - 1)))


def vendi_score(vectors: Vectors) -> float:
    """The exponential of the entropy of the similarities' eigenvalues: from 1 (all alike) to n or d."""
    plain = vectors.astype(np.float64)
    # The eigenvalues of X Xᵀ other than 0 are those of Xᵀ X: take the smaller.
    product = plain.T @ plain if plain.shape[0] > plain.shape[1] else plain @ plain.T
    shares = np.clip(np.linalg.eigvalsh(product / len(plain)), 0, None)
    shares = shares[shares > 1e-12]
    return float(np.exp(-(shares * np.log(shares)).sum()))


def _root(matrix: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    values, axes = np.linalg.eigh(matrix)
    root: npt.NDArray[np.float64] = (axes * np.sqrt(np.clip(values, 0, None))) @ axes.T
    return root
