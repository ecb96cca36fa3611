"""The two small byte-level tokenizers, trained on the world's own texts."""

import re
from typing import Any

import numpy as np

from popfactory.demo_world import alt_text, caption, random_scene, short_caption
from spine.prompts import PROMPTS

IMAGE_TOKENS = 36
TEMPLATE = "USER: <image>\n{prompt} ASSISTANT:"


def prompt_sentences() -> list[str]:
    """LAION-POP's prompt cut into sentences, the blanks between them kept at the front.

    Joined they are the prompt again. As single tokens they make it 12 tokens long, not 233, so that
    training and generating with it cost what they cost with a short prompt.
    """
    return re.split(r"(?<=[.?])(?= [A-Z])", PROMPTS["laion-pop"].text)


def world_texts(n: int, seed: int = 1) -> list[str]:
    """Captions, short captions and alt texts of n scenes."""
    rng = np.random.default_rng(seed)
    texts = []
    for _ in range(n):
        scene = random_scene(rng)
        texts += [" " + caption(scene), " " + short_caption(scene), alt_text(scene, rng)]
    return texts


def llava_tokenizer() -> Any:
    """Tokenizer of demo-llava: <s> in front, the prompt's sentences as tokens, padded on the left."""
    from tokenizers import AddedToken, processors

    tokenizer = _byte_level_bpe(("<unk>", "<s>", "</s>", "<pad>", "<image>"), lower=False)
    tokenizer.add_tokens([AddedToken(s, normalized=False, special=False) for s in prompt_sentences()])
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", pair="<s> $A $B", special_tokens=[("<s>", tokenizer.token_to_id("<s>"))]
    )
    return _wrapped(
        tokenizer,
        padding_side="left",
        model_max_length=512,
        extra_special_tokens={"image_token": "<image>"},
    )


def clip_tokenizer(context_length: int) -> Any:
    """Tokenizer of demo-clip: lower case, <s> in front, </s> at the end, padded on the right."""
    from tokenizers import processors

    tokenizer = _byte_level_bpe(("<unk>", "<s>", "</s>", "<pad>"), lower=True)
    ids = [(token, tokenizer.token_to_id(token)) for token in ("<s>", "</s>")]
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", pair="<s> $A $B </s>", special_tokens=ids
    )
    return _wrapped(tokenizer, padding_side="right", model_max_length=context_length)


def _byte_level_bpe(special: tuple[str, ...], *, lower: bool) -> Any:
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    if lower:
        tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=lower)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=1100,
        min_frequency=20,
        special_tokens=list(special),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    short = [
        TEMPLATE.format(prompt=PROMPTS[name].text).replace("<image>", "") for name in ("detail", "short")
    ]
    tokenizer.train_from_iterator(world_texts(4000) + short * 100, trainer)
    return tokenizer


def _wrapped(tokenizer: Any, **options: Any) -> Any:
    from transformers import PreTrainedTokenizerFast

    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        unk_token="<unk>",
        bos_token="<s>",
        eos_token="</s>",
        pad_token="<pad>",
        clean_up_tokenization_spaces=False,
        **options,
    )
