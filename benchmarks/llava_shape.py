"""LLaVA-1.5 of any size with random weights, as a checkpoint's folder: a step costs the same whatever it says."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from spine.prompts import PROMPTS
from spine.torchvision_ops import declare_missing_operators

_TEMPLATE = (
    "{% for m in messages %}USER: {% for p in m['content'] %}"
    "{% if p['type'] == 'image' %}<image>\n{% else %}{{ p['text'] }}{% endif %}{% endfor %}{% endfor %}"
    "{% if add_generation_prompt %} ASSISTANT:{% endif %}"
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Tower:
    """A transformer's size."""

    width: int
    layers: int
    heads: int
    mlp: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Shape:
    """A LLaVA-1.5's size."""

    name: str
    vision: Tower
    text: Tower
    side_px: int
    patch_px: int
    vocabulary: int
    longest: int
    """Tokens of picture, prompt and reply at most."""

    @property
    def image_tokens(self) -> int:
        """That a picture takes in the text."""
        return (self.side_px // self.patch_px) ** 2


LLAVA_7B = Shape(
    name="LLaVA-1.5-7B",
    vision=Tower(width=1024, layers=24, heads=16, mlp=4096),  # CLIP ViT-L/14 at 336 px
    text=Tower(width=4096, layers=32, heads=32, mlp=11_008),
    side_px=336,
    patch_px=14,
    vocabulary=32_064,
    longest=4096,
)
"""Source: config.json of llava-hf/llava-1.5-7b-hf."""


def make_checkpoint(folder: Path, shape: Shape, device: str = "cpu", dtype: str = "bfloat16") -> None:
    """Write a checkpoint of this shape; its weights are drawn on `device`, seeded."""
    declare_missing_operators()
    import torch
    from transformers import AutoModelForImageTextToText, CLIPImageProcessor, LlavaProcessor

    words = tokenizer()
    torch.manual_seed(5)
    with torch.device(device):
        model: Any = AutoModelForImageTextToText.from_config(
            _config(shape, words), dtype=getattr(torch, dtype)
        )
    model.save_pretrained(folder)
    side = {"height": shape.side_px, "width": shape.side_px}
    LlavaProcessor(
        image_processor=CLIPImageProcessor(size={"shortest_edge": shape.side_px}, crop_size=side),
        tokenizer=words,
        patch_size=shape.patch_px,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=_TEMPLATE,
    ).save_pretrained(folder)


def _config(shape: Shape, words: Any) -> Any:
    from transformers import CLIPVisionConfig, LlamaConfig, LlavaConfig

    vision, text = (
        {
            "hidden_size": tower.width,
            "intermediate_size": tower.mlp,
            "num_hidden_layers": tower.layers,
            "num_attention_heads": tower.heads,
        }
        for tower in (shape.vision, shape.text)
    )
    return LlavaConfig(
        vision_config=CLIPVisionConfig(image_size=shape.side_px, patch_size=shape.patch_px, **vision),
        text_config=LlamaConfig(
            vocab_size=shape.vocabulary,
            num_key_value_heads=shape.text.heads,
            max_position_embeddings=shape.longest,
            bos_token_id=1,
            eos_token_id=2,
            pad_token_id=3,
            **text,
        ),
        image_token_index=words.convert_tokens_to_ids("<image>"),
        image_seq_length=shape.image_tokens,
        vision_feature_layer=-2,
        vision_feature_select_strategy="default",
    )


def tokenizer() -> Any:
    """A small one that knows the words of the prompts, since LLaVA's own is on the hub."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    words = Tokenizer(models.BPE())
    words.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    words.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=600,
        special_tokens=["<unk>", "<s>", "</s>", "<pad>", "<image>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    words.train_from_iterator([f"USER: \n{prompt.text} ASSISTANT:" for prompt in PROMPTS.values()], trainer)
    words.post_processor = processors.TemplateProcessing(
        single="<s> $A", pair="<s> $A $B", special_tokens=[("<s>", 1)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=words,
        unk_token="<unk>",
        bos_token="<s>",
        eos_token="</s>",
        pad_token="<pad>",
        clean_up_tokenization_spaces=False,
        extra_special_tokens={"image_token": "<image>"},
    )
