"""A small open_clip for the drawn world, from phase A's vision tower.

Besides whole captions it learns bare phrases ("red star", "striped navy background"), because people
search with those, and the three marks, because scorer heads read them from its image embedding.

    python -m training.train_clip --work /tmp/demo-training --out index_builder/models/demo-clip
"""

import argparse
import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from popfactory.demo_world import (
    BACKGROUNDS,
    LIGHTS,
    PATTERNS,
    PLACES,
    STYLES,
    WORDS,
    Scene,
    alt_text,
    caption,
    short_caption,
)
from spine.torchvision_ops import declare_missing_operators
from training.loop import train_by_the_clock
from training.pictures import MEAN, SIDE_PX, STD, normalised, picture_array, training_scene
from training.ranks import Optimizer, launch
from training.train_vision import PATCH_PX, WIDTH
from training.vocabulary import clip_tokenizer

CONTEXT = 80
_RENAMED = (
    ("ln_1", "layer_norm1"),
    ("ln_2", "layer_norm2"),
    ("mlp.c_fc", "mlp.fc1"),
    ("mlp.c_proj", "mlp.fc2"),
)


def model_config(vocab_size: int) -> dict[str, Any]:
    """open_clip's model_cfg."""
    return {
        "embed_dim": WIDTH,
        "quick_gelu": True,
        "vision_cfg": {
            "image_size": SIDE_PX,
            "patch_size": PATCH_PX,
            "width": WIDTH,
            "layers": 4,
            "head_width": 32,
            "mlp_ratio": 3.0,
            "pool_type": "avg",
        },
        "text_cfg": {
            "context_length": CONTEXT,
            "vocab_size": vocab_size,
            "hf_tokenizer_name": "demo-clip",
            "width": WIDTH,
            "heads": 4,
            "layers": 3,
            "mlp_ratio": 3.0,
            "pool_type": "eos",
            "eos_id": 2,
        },
    }


def publish(model: Any, tokenizer: Any, out: Path) -> None:
    """Write the folder that "local-dir:<folder>" loads, file by file under temporary names."""
    from safetensors.torch import save_file

    out.mkdir(parents=True, exist_ok=True)
    draft = Path(tempfile.mkdtemp(dir=out.parent, prefix=".demo-clip-"))
    tokenizer.save_pretrained(draft)
    config = {
        "model_cfg": model_config(len(tokenizer)),
        "preprocess_cfg": {
            "mean": list(MEAN),
            "std": list(STD),
            "interpolation": "bicubic",
            "resize_mode": "shortest",
        },
    }
    (draft / "open_clip_config.json").write_text(json.dumps(config, indent=2) + "\n")
    weights = {
        k: v.detach().to(torch.bfloat16).contiguous()
        for k, v in model.state_dict().items()
        if k != "attn_mask"
    }
    save_file(weights, draft / "open_clip_model.safetensors", metadata={"format": "pt"})
    for file in draft.iterdir():
        file.chmod(0o644)
        file.replace(out / file.name)
    shutil.rmtree(draft)


def load_tower(model: Any, path: Path) -> None:
    """Copy the first four layers of phase A's tower into open_clip's names."""
    state = torch.load(path, weights_only=True)
    old = {name.removeprefix("tower."): value for name, value in state.items()}
    new = {
        "conv1.weight": old["embeddings.patch_embedding.weight"],
        "class_embedding": old["embeddings.class_embedding"],
        "positional_embedding": old["embeddings.position_embedding.weight"],
        "ln_pre.weight": old["pre_layrnorm.weight"],
        "ln_pre.bias": old["pre_layrnorm.bias"],
    }
    for k in range(4):
        theirs, ours = f"encoder.layers.{k}.", f"transformer.resblocks.{k}."
        for kind in ("weight", "bias"):
            new[f"{ours}attn.in_proj_{kind}"] = torch.cat(
                [old[f"{theirs}self_attn.{p}_proj.{kind}"] for p in "qkv"]
            )
            new[f"{ours}attn.out_proj.{kind}"] = old[f"{theirs}self_attn.out_proj.{kind}"]
            for a, b in _RENAMED:
                new[f"{ours}{a}.{kind}"] = old[f"{theirs}{b}.{kind}"]
    missing = model.visual.load_state_dict(new, strict=False)
    assert set(missing.missing_keys) == {"ln_post.weight", "ln_post.bias", "proj"}, missing
    assert not missing.unexpected_keys, missing


def encode_text(model: Any, tokens: Tensor) -> Tensor:
    """open_clip's encode_text on unpadded width: what follows </s> is never seen, so this is the same."""
    length = tokens.shape[1]
    x = model.token_embedding(tokens) + model.positional_embedding[:length]
    x = model.ln_final(model.transformer(x, attn_mask=model.attn_mask[:length, :length]))
    ends = (tokens == 2).int().argmax(dim=1)
    return nn.functional.normalize(x[torch.arange(len(x)), ends] @ model.text_projection, dim=-1)


def scene_text(scene: Scene, rng: np.random.Generator) -> str:
    """A text of the scene: whole, short, or some of its parts."""
    u = rng.random()
    if u < 0.35:
        return caption(scene)
    if u < 0.6:
        text = short_caption(scene)
        return text if rng.random() < 0.5 else text.removeprefix("This image showcases ").rstrip(".")
    if u < 0.7:
        return alt_text(scene, rng)
    first, second = caption(scene).split("\n\n")
    parts = first.removeprefix("This image showcases ").rstrip(".").split("; ")
    parts += [part.strip() for part in second.rstrip(".").split(". ")]
    chosen = rng.permutation(len(parts))[: int(rng.integers(1, len(parts) + 1))]
    return ". ".join(parts[k] for k in chosen)


def phrases_of(scene: Scene) -> set[str]:
    """Every bare phrase that is true of the scene."""
    ground, pattern, style = scene.background, scene.pattern, scene.style
    found = {
        ground,
        f"{ground} background",
        pattern,
        f"{pattern} background",
        f"{pattern} {ground} background",
    }
    found |= {f"{style} picture", f"a {style} picture", f"the style is {style}", style}
    light = "even light" if scene.light == "even" else f"light from the {scene.light}"
    found |= {light, "the light is even" if scene.light == "even" else f"light falls from the {scene.light}"}
    found |= {f"the word {scene.word}", str(scene.word)} if scene.word else {"no text"}
    found |= {"watermark", "a watermarked picture"} if scene.watermark else {"no watermark"}
    found |= {"hazard tape", "an unsafe picture"} if scene.unsafe else {"a safe picture"}
    if scene.beauty > 0.8:
        found |= {"a beautiful picture", "golden gems"}
    elif scene.beauty < 0.2:
        found |= {"an ugly picture", "dull gray gems"}
    for group in scene.groups:
        kind, many = group.kind, len(group.cells) > 1
        noun = (f"{kind.shape}es" if kind.shape == "cross" else f"{kind.shape}s") if many else kind.shape
        found |= {kind.shape, noun, f"a {kind.shape}", f"something {kind.colour}", f"{kind.colour} {noun}"}
        found |= {
            f"{kind.colour} {kind.shape}",
            f"a {kind.colour} {kind.shape}",
            f"{kind.size} {kind.colour} {noun}",
        }
        found |= {f"{kind.colour} objects", f"{kind.size} {noun}"}
        found |= {f"{kind.colour} {kind.shape} at the {PLACES[cell]}" for cell in group.cells}
    return found


def zero_shot_sets() -> list[list[str]]:
    """Phrases of which one a picture is true, one list an attribute of the whole picture."""
    return [
        [f"{name} background" for name in BACKGROUNDS],
        [f"{name} background" for name in PATTERNS],
        [f"a {name} picture" for name in STYLES],
        ["even light", *(f"light from the {name}" for name in LIGHTS[1:])],
        ["no text", *(f"the word {name}" for name in WORDS)],
        ["no watermark", "watermark"],
        ["a safe picture", "hazard tape"],
    ]


def phrase_loss(images: Tensor, phrases: Tensor, holds: Tensor, scale: Tensor) -> Tensor:
    """Each phrase must find the pictures it is true of among the batch.

    Args:
        images: Shape (n, d), unit.
        phrases: Shape (p, d), unit.
        holds: Shape (p, n), 1.0 where the phrase is true of the picture; no row of zeros.
        scale: Inverse temperature.
    """
    share = holds / holds.sum(dim=1, keepdim=True)
    return -(share * (scale * phrases @ images.T).log_softmax(dim=1)).sum(dim=1).mean()


def contrastive_loss(images: Tensor, texts: Tensor, scale: Tensor) -> Tensor:
    """CLIP's symmetric loss; row k of both belongs together."""
    logits = scale * images @ texts.T
    truth = torch.arange(len(logits))
    return (nn.functional.cross_entropy(logits, truth) + nn.functional.cross_entropy(logits.T, truth)) / 2


class Marks(nn.Module):
    """Linear readings of the three marks from the unit embedding: what scorer heads will do later."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(WIDTH, 3)

    def forward(self, images: Tensor, scenes: list[Scene]) -> Tensor:
        """Loss of reading (watermark, unsafe, beauty)."""
        truth = torch.tensor([[s.watermark, s.unsafe, s.beauty] for s in scenes], dtype=torch.float32)
        read = self.head(images * 8)
        yes_no = nn.functional.binary_cross_entropy_with_logits(read[:, :2], truth[:, :2])
        return yes_no + 4 * nn.functional.mse_loss(read[:, 2], truth[:, 2])


class Lessons:
    """Batches of pictures with texts and phrases that are true of them, and the loss that comes of them."""

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        marks: Marks,
        pictures: NDArray[np.uint8],
        batch: int,
        rng: np.random.Generator,
    ) -> None:
        self._model, self._tokenizer, self._marks = model, tokenizer, marks
        self._pictures, self._batch, self._rng = pictures, batch, rng

    def loss(self) -> tuple[Tensor, str]:
        """Of a batch that is drawn; and what of it is printed."""
        rng = self._rng
        chosen = np.sort(rng.choice(len(self._pictures), self._batch, replace=False))
        scenes = [training_scene(0, int(k)) for k in chosen]
        true_of = [phrases_of(scene) for scene in scenes]
        # Sorted before chance picks: the order of a set of strings differs between runs.
        bank = sorted(set().union(*true_of))
        bank = [bank[k] for k in rng.choice(len(bank), min(96, len(bank)), replace=False)]
        sets = [s for s in zero_shot_sets() if rng.random() < 0.3]
        pixels = torch.from_numpy(normalised(self._pictures[chosen]))
        with torch.autocast("cpu", torch.bfloat16):
            images = self._model.encode_image(pixels, normalize=True).float()
            texts = self._encoded([scene_text(scene, rng) for scene in scenes])
            phrases = self._encoded(bank + [p for s in sets for p in s])
        scale = self._model.logit_scale.exp().clamp(max=100)
        holds = torch.tensor([[p in true for true in true_of] for p in bank], dtype=torch.float32)
        loss = contrastive_loss(images, texts, scale)
        paired = loss.item()
        loss = loss + phrase_loss(images, phrases[: len(bank)], holds, scale) + self._marks(images, scenes)
        at = len(bank)
        for options in sets:
            logits = scale * images @ phrases[at : at + len(options)].T
            truth = torch.tensor([next(k for k, p in enumerate(options) if p in true) for true in true_of])
            loss = loss + 0.2 * nn.functional.cross_entropy(logits, truth)
            at += len(options)
        return loss, f", pairs {paired:.3f}"

    def _encoded(self, texts: list[str]) -> Tensor:
        ids: Tensor = self._tokenizer(
            texts, padding=True, truncation=True, max_length=CONTEXT, return_tensors="pt"
        ).input_ids
        return encode_text(self._model, ids).float()


def train(
    rank: int, ranks: int, work: Path, out: Path, minutes: float, batch: int, n: int, lr: float, start: str
) -> None:
    """One rank; rank 0 publishes every two minutes and at the end."""
    declare_missing_operators()
    import open_clip

    torch.manual_seed(0)
    tokenizer = clip_tokenizer(CONTEXT)
    model = open_clip.CLIP(**model_config(len(tokenizer)))
    load_tower(model, work / "vision.pt")
    marks = Marks()
    both = nn.ModuleDict({"clip": model, "marks": marks})
    if start:
        both.load_state_dict(torch.load(start, weights_only=True))
    optimizer = Optimizer(
        [(k, p) for k, p in both.named_parameters()],
        lr=lr,
        slow=lambda name: 0.5 if "visual.transformer" in name or "visual.conv1" in name else 1.0,
    )
    rng = np.random.default_rng((rank, int(bool(start)), 7))
    lessons = Lessons(model, tokenizer, marks, picture_array(work, 0, n), batch, rng)

    def keep() -> None:
        publish(model, tokenizer, out)
        torch.save(both.state_dict(), work / "clip.pt")

    train_by_the_clock(
        lessons.loss,
        optimizer,
        keep,
        rank=rank,
        minutes=minutes,
        keep_every_s=120,
        log=work / "clip.jsonl",
        seen="pairs_seen",
        seen_a_step=batch * ranks,
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=25)
    parser.add_argument("--ranks", type=int, default=2)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--pictures", type=int, default=120_000)
    parser.add_argument("--lr", type=float, default=1.5e-3)
    parser.add_argument("--start", default="", help="a clip.pt to go on from")
    given = parser.parse_args()
    launch(
        train,
        given.ranks,
        given.work,
        given.out,
        given.minutes,
        given.batch,
        given.pictures,
        given.lr,
        given.start,
    )
