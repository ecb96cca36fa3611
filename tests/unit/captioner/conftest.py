"""A LLaVA-1.5 of random weights, made by transformers' own classes, and runs with pictures to caption."""

from collections.abc import Callable
from pathlib import Path

import pytest

from benchmarks.llava_shape import tokenizer as prompt_tokenizer
from spine.config import write_config
from spine.run import Run
from spine.settings import CaptionConfig, Config
from tests.unit.captioner.runs import noise, publish_images, publish_selection

SIDE_PX, PATCH_PX = 24, 8
IMAGE_PLACES = 9


@pytest.fixture(scope="session")
def tiny_llava(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint's folder as save_pretrained writes it. What it says is nonsense, and differs by picture."""
    from spine.torchvision_ops import declare_missing_operators

    declare_missing_operators()
    import torch
    from transformers import (
        CLIPImageProcessor,
        CLIPVisionConfig,
        GenerationConfig,
        LlamaConfig,
        LlavaConfig,
        LlavaForConditionalGeneration,
        LlavaProcessor,
    )

    folder = tmp_path_factory.mktemp("checkpoints") / "tiny-llava"
    tokenizer = prompt_tokenizer()
    vision = CLIPVisionConfig(
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        image_size=SIDE_PX,
        patch_size=PATCH_PX,
        initializer_range=0.5,
    )
    text = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        max_position_embeddings=1024,
        initializer_range=0.3,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=3,
    )
    config = LlavaConfig(
        vision_config=vision,
        text_config=text,
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        image_seq_length=IMAGE_PLACES,
        vision_feature_layer=-2,
        vision_feature_select_strategy="default",
    )
    torch.manual_seed(5)
    model = LlavaForConditionalGeneration(config)
    model.generation_config = GenerationConfig(
        do_sample=True,
        temperature=5.0,
        repetition_penalty=1.7,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=3,
    )
    model.save_pretrained(folder)
    side = {"height": SIDE_PX, "width": SIDE_PX}
    LlavaProcessor(
        image_processor=CLIPImageProcessor(size={"shortest_edge": SIDE_PX}, crop_size=side),
        tokenizer=tokenizer,
        patch_size=PATCH_PX,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=(
            "{% for m in messages %}USER: {% for p in m['content'] %}"
            "{% if p['type'] == 'image' %}<image>\n{% else %}{{ p['text'] }}{% endif %}{% endfor %}{% endfor %}"
            "{% if add_generation_prompt %} ASSISTANT:{% endif %}"
        ),
    ).save_pretrained(folder)
    return folder


@pytest.fixture
def make_run(tmp_path: Path, tiny_llava: Path) -> Callable[..., Run]:
    """Makes a run whose `images` and `selection` are finished and hold these files."""

    def make(files: list[Path], name: str = "run", not_selected: int = 0, **settings) -> Run:
        run = Run(tmp_path / name)
        run.folder.mkdir(exist_ok=True)
        chosen = {
            "model": str(tiny_llava),
            "max_new_tokens": 8,
            "batch_size": 2,
            "device": "cpu",
            "second_try": False,  # what it says is cut off as a rule
        } | settings
        write_config(run.config, Config(caption=CaptionConfig(**chosen)))
        publish_images(run, files)
        publish_selection(run, files, not_selected)
        return run

    return make


@pytest.fixture
def pictures(tmp_path: Path) -> list[Path]:
    """Seven pictures, no two alike."""
    files = [tmp_path / f"{number}.png" for number in range(7)]
    for number, file in enumerate(files):
        noise(number).save(file)
    return files
