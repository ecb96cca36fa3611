"""Phase A: teach the vision tower to see, patch by patch, before it learns to speak.

Every patch says what stands in its cell (shape, colour, size, how many of its kind there are, which
group of the caption it is), the mean patch says what the whole picture is. Both are read where
LLaVA reads: after the last layer but one.

    python -m training.train_vision --out /tmp/demo-training
"""

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from popfactory.demo_world import (
    BACKGROUNDS,
    BANDS,
    COLOURS,
    LIGHTS,
    PATTERNS,
    SHAPES,
    SIZES,
    STYLES,
    WORDS,
    Scene,
)
from training.pictures import SIDE_PX, normalised, picture_array, training_picture, training_scene
from training.ranks import Clock, Optimizer, average_gradients, cpu_seconds, launch

PATCH_PX = 12
WIDTH = 128
CELL_HEADS = {"shape": 7, "colour": 12, "size": 3, "count": 5, "group": 4}
CELL_WEIGHTS = {"shape": 1.5, "colour": 1.0, "size": 0.7, "count": 0.5, "group": 0.5}
GLOBAL_HEADS = {
    "background": 8,
    "pattern": 4,
    "light": 5,
    "style": 4,
    "word": 13,
    "band": 3,
    "groups": 3,
    "watermark": 2,
    "unsafe": 2,
    "beauty": 10,
}
CELL_OF_PATCH = torch.tensor([(p // 6 // 2) * 3 + (p % 6) // 2 for p in range(36)])


def cell_labels(scene: Scene) -> np.ndarray:
    """What stands in each cell, shape (9, 5) in the order of CELL_HEADS, 0 for nothing."""
    labels = np.zeros((9, 5), dtype=np.int64)
    for rank, group in enumerate(scene.groups):
        kind = group.kind
        values = (
            SHAPES.index(kind.shape) + 1,
            list(COLOURS).index(kind.colour) + 1,
            SIZES.index(kind.size) + 1,
            len(group.cells),
            rank + 1,
        )
        labels[list(group.cells)] = values
    return labels


def global_labels(scene: Scene) -> np.ndarray:
    """What the whole picture is, shape (10,) in the order of GLOBAL_HEADS."""
    return np.array(
        (
            list(BACKGROUNDS).index(scene.background),
            PATTERNS.index(scene.pattern),
            LIGHTS.index(scene.light),
            STYLES.index(scene.style),
            WORDS.index(scene.word) + 1 if scene.word else 0,
            BANDS.index(scene.band) + 1 if scene.band else 0,
            len(scene.groups) - 1,
            int(scene.watermark),
            int(scene.unsafe),
            min(9, int(scene.beauty * 10)),
        )
    )


def sincos_positions(grid: int, width: int) -> Tensor:
    """2-D sine-cosine positions, shape (grid * grid + 1, width), the first row (class token) 0.

    Source: Dosovitskiy et al. 2020 in the form of He et al., "Masked autoencoders", 2021.
    """
    rates = 1 / 10_000 ** (torch.arange(width // 4) / (width // 4))
    y, x = torch.meshgrid(torch.arange(grid), torch.arange(grid), indexing="ij")
    turns = [torch.outer(axis.reshape(-1).float(), rates) for axis in (x, y)]
    positions = torch.cat([f(t) for t in turns for f in (torch.sin, torch.cos)], dim=1)
    return torch.cat([torch.zeros(1, width), positions]) * 0.25


class Perceiver(nn.Module):
    """The vision tower and the linear heads of phase A."""

    def __init__(self) -> None:
        super().__init__()
        from spine.torchvision_ops import declare_missing_operators

        declare_missing_operators()
        from transformers import CLIPVisionModel

        self.tower = CLIPVisionModel(vision_config())
        positions = dict(self.tower.named_parameters())["embeddings.position_embedding.weight"]
        positions.data.copy_(sincos_positions(SIDE_PX // PATCH_PX, WIDTH))
        self.cell_head = nn.Linear(WIDTH, sum(CELL_HEADS.values()))
        self.global_head = nn.Linear(WIDTH, sum(GLOBAL_HEADS.values()))

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """Logits of every patch, (n, 36, 31), and of every picture, (n, 54)."""
        hidden = self.tower(pixels, output_hidden_states=True).hidden_states[-2][:, 1:]
        return self.cell_head(hidden), self.global_head(hidden.mean(dim=1))


def vision_config() -> Any:
    """The tower of demo-llava; demo-clip's is its first four layers."""
    from transformers import CLIPVisionConfig

    return CLIPVisionConfig(
        hidden_size=WIDTH,
        intermediate_size=384,
        num_hidden_layers=5,
        num_attention_heads=4,
        image_size=SIDE_PX,
        patch_size=PATCH_PX,
        projection_dim=WIDTH,
        hidden_act="quick_gelu",
    )


def perception_loss(logits: tuple[Tensor, Tensor], scenes: list[Scene]) -> Tensor:
    """Cross-entropies of phase A, weighted; patches of empty cells count less."""
    cells = torch.from_numpy(np.stack([cell_labels(scene) for scene in scenes]))[:, CELL_OF_PATCH]
    whole = torch.from_numpy(np.stack([global_labels(scene) for scene in scenes]))
    weight = torch.where(cells[..., 0] > 0, 1.5, 0.5).reshape(-1)
    total = torch.zeros(())
    parts = logits[0].float().split(list(CELL_HEADS.values()), dim=-1)
    for k, (name, part) in enumerate(zip(CELL_HEADS, parts, strict=True)):
        losses = nn.functional.cross_entropy(
            part.reshape(-1, part.shape[-1]), cells[..., k].reshape(-1), reduction="none"
        )
        total = total + CELL_WEIGHTS[name] * (losses * weight).mean()
    for k, part in enumerate(logits[1].float().split(list(GLOBAL_HEADS.values()), dim=-1)):
        total = total + 0.3 * nn.functional.cross_entropy(part, whole[:, k])
    return total


def accuracies(model: Perceiver, seed: int, n: int) -> dict[str, float]:
    """Share right on n unseen pictures: of patches with an object for cells, of pictures for the rest."""
    scenes = [training_scene(seed, k) for k in range(n)]
    pictures = np.stack([training_picture(seed, k) for k in range(n)])
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        patch, whole = model(torch.from_numpy(normalised(pictures)))
    cells = torch.from_numpy(np.stack([cell_labels(scene) for scene in scenes]))[:, CELL_OF_PATCH]
    truth = torch.from_numpy(np.stack([global_labels(scene) for scene in scenes]))
    there = cells[..., 0] > 0
    result = {}
    for k, (name, part) in enumerate(
        zip(CELL_HEADS, patch.split(list(CELL_HEADS.values()), dim=-1), strict=True)
    ):
        result[name] = float((part.argmax(-1) == cells[..., k])[there].float().mean())
    for k, (name, part) in enumerate(
        zip(GLOBAL_HEADS, whole.split(list(GLOBAL_HEADS.values()), dim=-1), strict=True)
    ):
        result[name] = float((part.argmax(-1) == truth[:, k]).float().mean())
    return {name: round(value, 4) for name, value in result.items()}


def train(rank: int, ranks: int, out: Path, minutes: float, batch: int, n: int) -> None:
    """One rank of phase A; rank 0 writes vision.pt and vision.json."""
    torch.manual_seed(0)
    model = Perceiver()
    optimizer = Optimizer(list(model.named_parameters()), lr=2e-3)
    pictures = picture_array(out, 0, n)
    rng = np.random.default_rng(rank)
    clock, share, step, seen = Clock(minutes * 60), 0.0, 0, 0
    while share < 1.0:
        chosen = np.sort(rng.choice(n, batch, replace=False))
        scenes = [training_scene(0, int(k)) for k in chosen]
        with torch.autocast("cpu", torch.bfloat16):
            logits = model(torch.from_numpy(normalised(pictures[chosen])))
        loss = perception_loss(logits, scenes)
        loss.backward()
        share = average_gradients(optimizer.parameters, clock.share())
        optimizer.step(share)
        step, seen = step + 1, seen + batch * ranks
        if rank == 0 and step % 50 == 0:
            print(
                f"{time.monotonic() - clock.started:6.0f} s  step {step}  loss {loss.item():.3f}", flush=True
            )
    used = cpu_seconds()
    if rank == 0:
        torch.save(model.state_dict(), out / "vision.pt")
        report: dict[str, Any] = {
            "pictures_seen": seen,
            "steps": step,
            "cpu_s": round(used),
            "wall_s": round(minutes * 60),
        }
        report["accuracy"] = accuracies(model.eval(), 900, 1000)
        (out / "vision.json").write_text(json.dumps(report, indent=1))
        print(json.dumps(report), flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=5)
    parser.add_argument("--ranks", type=int, default=4)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--pictures", type=int, default=120_000)
    given = parser.parse_args()
    picture_array(given.out, 0, given.pictures)
    launch(train, given.ranks, given.out, given.minutes, given.batch, given.pictures)
