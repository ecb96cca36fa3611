"""Every figure the documentation states of the demo models, from the folders as shipped.

    python -m training.evaluate [--only clip,heads,llava] [--json figures.json]

All scenes are of seeds that no training script uses. Pictures are drawn at 320 to 960 px in formats
up to 3:2 and go through the models' own preprocessing.
"""

import argparse
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from index_builder.scoring.heads import DEMO_HEADS, load_head, load_rating_vector
from popfactory.demo_drawing import draw
from popfactory.demo_truth import caption_figures
from popfactory.demo_world import (
    BACKGROUNDS,
    COLOURS,
    LIGHTS,
    PATTERNS,
    SHAPES,
    STYLES,
    Kind,
    Scene,
    caption,
    random_scene,
    short_caption,
)
from spine.prompts import PROMPTS
from spine.torchvision_ops import declare_missing_operators
from training.embedding import DemoClip
from training.pictures import HELD_OUT_SEED

ROOT = Path(__file__).resolve().parent.parent
CLIP = ROOT / "index_builder/models/demo-clip"
LLAVA = ROOT / "captioner/models/demo-llava"
Figures = dict[str, float]


def held_out(block: int, n: int, **chances: Any) -> list[Scene]:
    """n scenes that no training saw; another block, other scenes."""
    return [random_scene(np.random.default_rng((HELD_OUT_SEED + block, k)), **chances) for k in range(n)]


def pictures(scenes: list[Scene]) -> Iterator[Image.Image]:
    """The scenes drawn at mixed sizes and formats."""
    for scene in scenes:
        rng = np.random.default_rng(scene.seed)
        side = int(rng.integers(320, 961))
        longer = int(side * rng.uniform(1, 1.5))
        yield draw(scene, *((longer, side) if rng.random() < 0.5 else (side, longer)))


def area_under_curve(scores: NDArray[Any], truth: NDArray[Any]) -> float:
    """Probability that a true row scores above a false one."""
    ranks = np.empty(len(scores))
    ranks[np.argsort(scores, kind="stable")] = np.arange(1, len(scores) + 1)
    positive, negative = int(truth.sum()), int((~truth).sum())
    return float((ranks[truth].sum() - positive * (positive + 1) / 2) / (positive * negative))


def clip_figures(n: int = 500) -> Figures:
    """Retrieval over n scenes, and what bare phrases find."""
    clip = DemoClip(CLIP)
    scenes = held_out(0, n)
    images = clip.images(pictures(scenes))
    texts = clip.texts([caption(scene) for scene in scenes])
    figures: Figures = {}
    for name, similarities in (
        ("full caption -> image", texts @ images.T),
        ("short caption -> image", clip.texts([short_caption(scene) for scene in scenes]) @ images.T),
        ("image -> full caption", images @ texts.T),
    ):
        rank = (similarities > np.diag(similarities)[:, None]).sum(axis=1) + 1
        figures |= {f"{name} R@1": float((rank == 1).mean()), f"{name} R@10": float((rank <= 10).mean())}
        figures[f"{name} median rank"] = float(np.median(rank))
    both = np.concatenate([np.diag(texts @ images.T), np.diag(np.roll(texts, 1, axis=0) @ images.T)])
    figures["matched against shuffled AUC"] = area_under_curve(both, np.arange(2 * n) < n)
    figures |= zero_shot_figures(clip, scenes, images) | phrase_figures(clip)
    return figures


def zero_shot_figures(clip: DemoClip, scenes: list[Scene], images: NDArray[np.float32]) -> Figures:
    """Share of pictures whose attribute is named by the nearest of its bare phrases."""
    options = {
        "background": {name: f"{name} background" for name in BACKGROUNDS},
        "pattern": {name: f"{name} background" for name in PATTERNS},
        "style": {name: f"a {name} picture" for name in STYLES},
        "light": {name: "even light" if name == "even" else f"light from the {name}" for name in LIGHTS},
    }
    figures: Figures = {}
    for attribute, phrases in options.items():
        nearest = (images @ clip.texts(list(phrases.values())).T).argmax(axis=1)
        right = [
            list(phrases)[k] == getattr(scene, attribute) for k, scene in zip(nearest, scenes, strict=True)
        ]
        figures[f"zero-shot {attribute} (chance {1 / len(phrases):.3f})"] = float(np.mean(right))
    return figures


def phrase_figures(clip: DemoClip, n: int = 2000) -> Figures:
    """How many of the 10 pictures nearest to "red star", "red" or "star" among n show one."""
    scenes = held_out(1, n)
    images = clip.images(pictures(scenes))
    kinds = [[group.kind for group in scene.groups] for scene in scenes]

    def shown(colour: str | None, shape: str | None) -> NDArray[np.bool_]:
        def fits(kind: Kind) -> bool:
            return colour in (None, kind.colour) and shape in (None, kind.shape)

        return np.array([any(fits(kind) for kind in row) for row in kinds])

    sets: dict[str, list[tuple[str, NDArray[np.bool_]]]] = {
        "'red star'": [(f"{c} {s}", shown(c, s)) for c in COLOURS for s in SHAPES],
        "'something red'": [(f"something {c}", shown(c, None)) for c in COLOURS],
        "'star'": [(s, shown(None, s)) for s in SHAPES],
        "'striped navy background'": [
            (f"{p} {b} background", np.array([(x.pattern, x.background) == (p, b) for x in scenes]))
            for p in PATTERNS
            for b in BACKGROUNDS
        ],
    }
    figures: Figures = {}
    for name, phrases in sets.items():
        usable = [(text, truth) for text, truth in phrases if truth.sum() >= 10]
        similarities = clip.texts([text for text, _ in usable]) @ images.T
        best = np.argsort(-similarities, axis=1)[:, :10]
        found = [truth[row].mean() for (_, truth), row in zip(usable, best, strict=True)]
        aucs = [area_under_curve(row, truth) for row, (_, truth) in zip(similarities, usable, strict=True)]
        chance = np.mean([truth.mean() for _, truth in usable])
        figures[f"{name} precision@10 of {n} (chance {chance:.3f})"] = float(np.mean(found))
        figures[f"{name} AUC"] = float(np.mean(aucs))
    return figures


def head_figures(n: int = 2000) -> Figures:
    """The scorer heads on n pictures, one in five with each mark."""
    scenes = held_out(2, n, p_watermark=0.2, p_unsafe=0.2)
    embeddings = DemoClip(CLIP).images(pictures(scenes))
    aesthetic = load_head("demo", "aesthetic")
    score = aesthetic.score(embeddings)
    beauty = np.array([scene.beauty for scene in scenes])
    figures: Figures = {
        "aesthetic correlation with beauty": float(np.corrcoef(score, beauty)[0, 1]),
        "aesthetic mean error, 0 to 10": float(np.abs(score - 10 * beauty).mean()),
    }
    for k in (0, 9):
        rating = load_rating_vector(str(DEMO_HEADS / "ratings"), k)
        figures[f"aesthetic score of rating{k}"] = float(aesthetic.score(rating[None])[0])
    detectors = {"unsafe": load_head("demo", "unsafe"), "watermark": load_head("demo", "watermark")}
    for name, detector in detectors.items():
        probability = detector.score(embeddings)
        truth = np.array([getattr(scene, name) for scene in scenes])
        figures[f"{name} AUC"] = area_under_curve(probability, truth)
        figures[f"{name} accuracy at 0.5"] = float(((probability > 0.5) == truth).mean())
    return figures


def llava_figures(
    n: int = 256, prompts: tuple[str, ...] = ("laion-pop", "detail"), batch: int = 32
) -> Figures:
    """Attributes right in greedy bf16 captions of n scenes."""
    declare_missing_operators()
    from transformers import AutoModelForImageTextToText, AutoProcessor

    processor = AutoProcessor.from_pretrained(LLAVA)
    model = AutoModelForImageTextToText.from_pretrained(LLAVA, dtype=torch.bfloat16).eval()
    scenes = held_out(3, n)
    drawn = list(pictures(scenes))
    figures: Figures = {}
    for prompt in prompts:
        content = [{"type": "image"}, {"type": "text", "text": PROMPTS[prompt].text}]
        text = processor.apply_chat_template(
            [{"role": "user", "content": content}], add_generation_prompt=True
        )
        replies: list[str] = []
        started = time.monotonic()
        for k in range(0, n, batch):
            images = drawn[k : k + batch]
            inputs = processor(images=images, text=[text] * len(images), padding=True, return_tensors="pt")
            with torch.inference_mode():
                tokens = model.generate(**inputs.to(torch.bfloat16), do_sample=False, max_new_tokens=128)
            new = tokens[:, inputs["input_ids"].shape[1] :]
            replies += processor.batch_decode(new, skip_special_tokens=True)
        speed = n / (time.monotonic() - started)
        scored = caption_figures(scenes, replies) | {"captions a second": speed}
        figures |= {f"{prompt}: {name}": value for name, value in scored.items()}
    return figures


def main() -> None:
    """Print the figures asked for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", default="clip,heads,llava")
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    parts = {"clip": clip_figures, "heads": head_figures, "llava": llava_figures}
    figures = {name: parts[name]() for name in given.only.split(",")}
    for name, rows in figures.items():
        print(f"\n{name}")
        for title, value in rows.items():
            print(f"  {title:<62} {value:10.4f}")
    if given.json:
        given.json.write_text(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    main()
