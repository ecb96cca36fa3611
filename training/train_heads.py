"""Scorer heads for the drawn world, in the file forms of LAION's own.

    python -m training.train_heads --clip index_builder/models/demo-clip --out index_builder/models/demo-heads

Writes aesthetic_linear.pth (as LAION-Aesthetics V1), ratings/rating0.npy to rating9.npy (as its
mean embeddings), unsafe.npz and watermark.npz (as the NSFW detector's arrays). A minute or two on
one core.
"""

import argparse
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import nn

from popfactory.demo_world import Scene
from training.embedding import DemoClip
from training.pictures import training_picture, training_scene

SEED = 5
RATING_AT_LEAST = 20
"""Pictures a score bin needs for its mean to count."""

Floats = NDArray[np.float32]


def labelled_embeddings(clip: DemoClip, seed: int, n: int) -> tuple[Floats, list[Scene]]:
    """Float16-rounded unit embeddings (n, d) of training pictures, and their scenes."""
    scenes = [training_scene(seed, k) for k in range(n)]
    return clip.images(Image.fromarray(training_picture(seed, k)) for k in range(n)), scenes


def fit_aesthetic(embeddings: Floats, beauty: Floats, ridge: float = 0.1) -> tuple[Floats, float]:
    """Weight (d,) and bias of the linear score, 0 to 10, by ridge regression on beauty (n,), 0 to 1."""
    rows = embeddings.astype(np.float64)
    middle, target = rows.mean(axis=0), 10 * beauty.astype(np.float64)
    centred = rows - middle
    gram = centred.T @ centred + ridge * np.eye(rows.shape[1])
    weight = np.linalg.solve(gram, centred.T @ (target - target.mean()))
    return weight.astype(np.float32), float(target.mean() - middle @ weight)


def rating_embeddings(embeddings: Floats, scores: Floats) -> Floats:
    """Mean unit embedding of each score bin [k, k + 1], shape (10, d).

    Bins of fewer than RATING_AT_LEAST pictures are put on the straight line through the two nearest
    bins that have enough.
    """
    means: dict[int, NDArray[np.float64]] = {}
    for k in range(10):
        inside = embeddings[(scores >= k) & (scores < k + 1)]
        if len(inside) >= RATING_AT_LEAST:
            means[k] = inside.astype(np.float64).mean(axis=0)
    known = sorted(means)
    for k in sorted(set(range(10)) - set(known)):
        near, next_near = sorted(known, key=lambda other: abs(other - k))[:2]
        step = (means[near] - means[next_near]) / (near - next_near)
        means[k] = means[near] + (k - near) * step
        print(f"rating{k}: too few pictures, extrapolated from {next_near} and {near}")
    ratings = np.stack([means[k] for k in range(10)])
    unit: Floats = (ratings / np.linalg.norm(ratings, axis=1, keepdims=True)).astype(np.float32)
    return unit


def fit_detector(
    embeddings: Floats, truth: Floats, hidden: int = 32, steps: int = 1500
) -> dict[str, NDArray[np.generic]]:
    """A small network d-hidden-1 with ReLU and sigmoid, as the arrays of LAION's NSFW detector."""
    torch.manual_seed(0)
    mean, var = embeddings.mean(axis=0), embeddings.var(axis=0)
    rows = torch.from_numpy((embeddings - mean) / np.maximum(np.sqrt(var), 1e-7))
    wanted = torch.from_numpy(truth)
    dense = (nn.Linear(rows.shape[1], hidden), nn.Linear(hidden, 1))
    layers = nn.Sequential(dense[0], nn.ReLU(), dense[1])
    optimizer = torch.optim.AdamW(layers.parameters(), lr=3e-3, weight_decay=0.05)
    for _ in range(steps):
        chosen = torch.randint(len(rows), (256,))
        loss = nn.functional.binary_cross_entropy_with_logits(layers(rows[chosen])[:, 0], wanted[chosen])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    arrays: dict[str, NDArray[np.generic]] = {
        "cat_columns": np.zeros(0, dtype=np.int32),
        "norm_mean": mean.astype(np.float32),
        "norm_var": var.astype(np.float32),
    }
    for k, layer in enumerate(dense):
        arrays[f"dense_{k}_kernel"] = np.ascontiguousarray(layer.weight.detach().numpy().T)
        arrays[f"dense_{k}_bias"] = layer.bias.detach().numpy()
    return arrays


def train(clip: Path, out: Path, n: int) -> None:
    """Fit all heads on n pictures and write them."""
    embeddings, scenes = labelled_embeddings(DemoClip(clip), SEED, n)
    beauty = np.array([scene.beauty for scene in scenes], dtype=np.float32)
    weight, bias = fit_aesthetic(embeddings, beauty)
    (out / "ratings").mkdir(parents=True, exist_ok=True)
    state = {"weight": torch.from_numpy(weight)[None], "bias": torch.tensor([bias], dtype=torch.float32)}
    torch.save(state, out / "aesthetic_linear.pth")
    ratings = rating_embeddings(embeddings, embeddings @ weight + bias)
    for k, rating in enumerate(ratings):
        np.save(out / "ratings" / f"rating{k}.npy", rating[None])
    for name in ("unsafe", "watermark"):
        truth = np.array([getattr(scene, name) for scene in scenes], dtype=np.float32)
        np.savez(out / f"{name}.npz", allow_pickle=False, **fit_detector(embeddings, truth))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--clip", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--pictures", type=int, default=20_000)
    given = parser.parse_args()
    torch.set_num_threads(1)
    train(given.clip, given.out, given.pictures)
