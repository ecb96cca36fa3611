"""Phase B: teach a small LLaVA-1.5 to caption the drawn world, from phase A's vision tower.

python -m training.train_llava --work /tmp/demo-training --out captioner/models/demo-llava
"""

import argparse
import copy
import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from popfactory.demo_world import caption, short_caption
from spine.prompts import PROMPTS
from spine.torchvision_ops import declare_missing_operators
from training.loop import train_by_the_clock
from training.pictures import MEAN, SIDE_PX, STD, normalised, picture_array, training_scene
from training.ranks import Optimizer, launch
from training.train_vision import PATCH_PX, vision_config
from training.vocabulary import IMAGE_TOKENS, TEMPLATE, llava_tokenizer

PROMPT_SHARES = {"laion-pop": 0.6, "detail": 0.25, "short": 0.15}
CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{% if message['role'] == 'user' %}USER: "
    "{% for part in message['content'] if part['type'] == 'image' %}<image>\n{% endfor %}"
    "{% for part in message['content'] if part['type'] == 'text' %}{{ part['text'] }}{% endfor %}"
    "{% else %} ASSISTANT: "
    "{% for part in message['content'] if part['type'] == 'text' %}{{ part['text'] }}{% endfor %}"
    "{% endif %}{% endfor %}"
    "{% if add_generation_prompt %} ASSISTANT:{% endif %}"
)


def new_model(tokenizer: Any, width: int = 128) -> Any:
    """LLaVA-1.5 in small: CLIP tower, two-layer projector, Llama with tied embeddings."""
    from transformers import LlamaConfig, LlavaConfig, LlavaForConditionalGeneration

    text = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=width,
        intermediate_size=3 * width,
        num_hidden_layers=4,
        num_attention_heads=width // 32,
        num_key_value_heads=width // 32,
        max_position_embeddings=1024,
        tie_word_embeddings=True,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    config = LlavaConfig(
        vision_config=vision_config(),
        text_config=text,
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        image_seq_length=IMAGE_TOKENS,
        vision_feature_layer=-2,
        vision_feature_select_strategy="default",
        tie_word_embeddings=True,
    )
    config.pad_token_id = tokenizer.pad_token_id
    return LlavaForConditionalGeneration(config)


def publish(model: Any, tokenizer: Any, out: Path) -> None:
    """Write the folder that AutoProcessor and from_pretrained load, file by file under temporary names."""
    from transformers import CLIPImageProcessor, GenerationConfig, LlavaProcessor

    out.mkdir(parents=True, exist_ok=True)
    draft = Path(tempfile.mkdtemp(dir=out.parent, prefix=".demo-llava-"))
    side = {"height": SIDE_PX, "width": SIDE_PX}
    pictures = CLIPImageProcessor(
        size={"shortest_edge": SIDE_PX}, crop_size=side, image_mean=list(MEAN), image_std=list(STD)
    )
    processor = LlavaProcessor(
        image_processor=pictures,
        tokenizer=tokenizer,
        patch_size=PATCH_PX,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=CHAT_TEMPLATE,
    )
    processor.save_pretrained(draft)
    model.generation_config = GenerationConfig(
        do_sample=False,
        max_new_tokens=128,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    copy.deepcopy(model).to(torch.bfloat16).save_pretrained(draft)
    for file in draft.iterdir():
        file.chmod(0o644)
        file.replace(out / file.name)
    shutil.rmtree(draft)


class Dialogues:
    """Turns scenes into token rows: prompt, image places and reply; only the reply is learned."""

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer
        self.eos: int = tokenizer.eos_token_id
        self.pad: int = tokenizer.pad_token_id
        self.fronts = {}
        for name in PROMPT_SHARES:
            text = TEMPLATE.format(prompt=PROMPTS[name].text).replace("<image>", "<image>" * IMAGE_TOKENS)
            self.fronts[name] = tokenizer(text).input_ids

    def batch(self, seed: int, numbers: list[int], rng: np.random.Generator) -> tuple[Tensor, Tensor, Tensor]:
        """Token ids, attention mask and labels (-100 where nothing is learned), each (n, length)."""
        prompts = rng.choice(list(PROMPT_SHARES), size=len(numbers), p=list(PROMPT_SHARES.values()))
        scenes = [training_scene(seed, number) for number in numbers]
        texts = [
            " " + (short_caption(s) if p == "short" else caption(s))
            for s, p in zip(scenes, prompts, strict=True)
        ]
        replies = self.tokenizer(texts, add_special_tokens=False).input_ids
        rows = [(self.fronts[p], [*reply, self.eos]) for p, reply in zip(prompts, replies, strict=True)]
        length = max(len(front) + len(reply) for front, reply in rows)
        ids = torch.full((len(rows), length), self.pad)
        mask = torch.zeros((len(rows), length), dtype=torch.long)
        labels = torch.full((len(rows), length), -100)
        for k, (front, reply) in enumerate(rows):
            end = len(front) + len(reply)
            ids[k, :end] = torch.tensor([*front, *reply])
            mask[k, :end] = 1
            labels[k, len(front) : end] = torch.tensor(reply)
        return ids, mask, labels


def caption_loss(model: Any, pixels: Tensor, ids: Tensor, mask: Tensor, labels: Tensor) -> Tensor:
    """Mean cross-entropy of the reply's tokens; logits are computed for those alone."""
    hidden = model.model(
        input_ids=ids, attention_mask=mask, pixel_values=pixels, use_cache=False
    ).last_hidden_state
    learned = labels[:, 1:] != -100
    logits = model.lm_head(hidden[:, :-1][learned])
    return nn.functional.cross_entropy(logits.float(), labels[:, 1:][learned])


def load_tower(model: Any, path: Path) -> None:
    """Copy phase A's tower into the model."""
    state = torch.load(path, weights_only=True)
    tower = {name.removeprefix("tower."): value for name, value in state.items() if name.startswith("tower.")}
    model.model.vision_tower.load_state_dict(tower)


def train(
    rank: int, ranks: int, work: Path, out: Path, minutes: float, batch: int, n: int, lr: float, start: str
) -> None:
    """One rank of phase B; rank 0 publishes every three minutes and at the end."""
    declare_missing_operators()
    torch.manual_seed(0)
    tokenizer = llava_tokenizer()
    model = new_model(tokenizer)
    load_tower(model, work / "vision.pt")
    if start:
        model.load_state_dict({k: v.float() for k, v in torch.load(start, weights_only=True).items()})
    model.train()
    optimizer = Optimizer(
        list(model.named_parameters()), lr=lr, slow=lambda name: 0.25 if "vision_tower" in name else 1.0
    )
    dialogues, pictures = Dialogues(tokenizer), picture_array(work, 0, n)
    rng = np.random.default_rng((rank, int(bool(start))))

    def loss_of() -> tuple[Tensor, str]:
        chosen = np.sort(rng.choice(n, batch, replace=False))
        ids, mask, labels = dialogues.batch(0, chosen.tolist(), rng)
        with torch.autocast("cpu", torch.bfloat16):
            return caption_loss(model, torch.from_numpy(normalised(pictures[chosen])), ids, mask, labels), ""

    def keep() -> None:
        publish(model, tokenizer, out)
        torch.save(model.state_dict(), work / "llava.pt")

    train_by_the_clock(
        loss_of,
        optimizer,
        keep,
        rank=rank,
        minutes=minutes,
        keep_every_s=180,
        log=work / "llava.jsonl",
        seen="captions_seen",
        seen_a_step=batch * ranks,
        frozen=lambda share: (0.25,) if share < 0.1 and not start else (),
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--ranks", type=int, default=4)
    parser.add_argument("--batch", type=int, default=24)
    parser.add_argument("--pictures", type=int, default=120_000)
    parser.add_argument("--lr", type=float, default=2e-3)
    parser.add_argument("--start", default="", help="a llava.pt to go on from")
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
