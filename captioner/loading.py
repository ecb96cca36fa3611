"""Loads a LLaVA-1.5 checkpoint by transformers, with what older ones leave unsaid."""

import contextlib
import gc
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from captioner.checkpoint import Checkpoint
from captioner.memory import is_out_of_memory
from spine.errors import ModelError
from spine.torchvision_ops import declare_missing_operators

# LLaVA-1.5's own, for a checkpoint that brings none. Without the Vicuna system sentence, as the checkpoints in
# transformers' form have it.
_LLAVA_TEMPLATE = (
    "{% for message in messages %}USER: "
    "{% for part in message['content'] if part['type'] == 'image' %}<image>\n{% endfor %}"
    "{% for part in message['content'] if part['type'] == 'text' %}{{ part['text'] }}{% endfor %}"
    "{% endfor %}{% if add_generation_prompt %} ASSISTANT:{% endif %}"
)


@contextlib.contextmanager
def importing(package: str) -> Iterator[None]:
    """Import this package inside.

    To look through its objects for garbage, time and again while they become more, is a quarter of the work that torch
    and transformers make until the first caption. They stay to the end, so they aren't looked through later either.
    """
    if package in sys.modules or not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


def load_model(checkpoint: Checkpoint, device: str, dtype: str) -> tuple[Any, Any]:
    """The model, greedy and ready to be asked, and the processor that suits it.

    Args:
        checkpoint: As find_checkpoint found it.
        device: cpu or cuda.
        dtype: float32, bfloat16 or float16.

    Raises:
        ModelError: A file is damaged or missing, the model is of another kind, or too large for the device.
    """
    folder = checkpoint.folder
    try:
        processor, model, report = _read(folder, device, dtype)
    except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
        raise _damaged(folder, error) from None
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise _damaged(folder, error) from None
        raise ModelError(
            f"{folder}: {checkpoint.size_bytes:,} bytes of weights don't fit in the memory of {device}; "
            "name a smaller model, or a machine with more"
        ) from None
    # Weights that a file lacks are drawn at random, with a warning alone: such a model talks nonsense.
    lacking = sorted(report["missing_keys"]) + sorted(str(key) for key in report["mismatched_keys"])
    if lacking:
        raise ModelError(
            f"{folder}: {len(lacking)} weights missing or of another shape, {lacking[0]} for one; "
            "get the checkpoint again"
        )
    processor = _suited(processor, model.config)
    model.generation_config = _greedy(processor.tokenizer, model.generation_config.eos_token_id)
    return model, processor


def _read(folder: Path, device: str, dtype: str) -> tuple[Any, Any, dict[str, Any]]:
    """Processor, model, and transformers' report of what it found of the weights."""
    declare_missing_operators()
    import torch

    with importing("transformers"):
        from transformers import AutoModelForImageTextToText, AutoProcessor
        from transformers.utils import logging

    logging.disable_progress_bar()
    logging.set_verbosity_error()
    processor: Any = AutoProcessor.from_pretrained(folder, local_files_only=True)
    loaded: Any = AutoModelForImageTextToText.from_pretrained(
        folder,
        dtype=getattr(torch, dtype),
        local_files_only=True,
        use_safetensors=True,  # the other form is a pickle
        output_loading_info=True,
    )
    return processor, loaded[0].to(device).eval(), loaded[1]


def _damaged(folder: Path, error: Exception) -> ModelError:
    return ModelError(f"{folder}: can't be loaded: {_first_line(error)}; get the checkpoint again")


def _greedy(tokenizer: Any, closing: int | list[int] | None) -> Any:
    """What replaces a checkpoint's own settings, which may sample. Greedy is what can be asked again."""
    from transformers import GenerationConfig

    return GenerationConfig(
        do_sample=False,
        num_beams=1,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id if closing is None else closing,
        pad_token_id=tokenizer.pad_token_id,
    )


def _suited(processor: Any, config: Any) -> Any:
    """The processor with what older checkpoints leave to the model's configuration.

    Without these it can't count the places that a picture takes in the text.
    """
    if not hasattr(processor, "image_token") or not hasattr(processor, "image_processor"):
        raise ModelError(
            f"a model of kind {config.model_type!r} takes no pictures; name a LLaVA-1.5 checkpoint"
        )
    if config.model_type == "llava":
        if processor.patch_size is None:
            processor.patch_size = config.vision_config.patch_size
        if processor.vision_feature_select_strategy is None:
            processor.vision_feature_select_strategy = config.vision_feature_select_strategy
        if (
            not processor.num_additional_image_tokens
            and config.vision_config.model_type == "clip_vision_model"
        ):
            processor.num_additional_image_tokens = 1  # CLIP's class token
        if processor.chat_template is None:
            processor.chat_template = _LLAVA_TEMPLATE
    if processor.tokenizer.pad_token_id is None:
        processor.tokenizer.pad_token = processor.tokenizer.eos_token
    # Prompts of several lengths in a batch: padded on the right, a reply would begin behind the padding.
    processor.tokenizer.padding_side = "left"
    return processor


def token_set(closing: int | list[int] | None) -> frozenset[int]:
    """The tokens that close a reply."""
    if closing is None:
        return frozenset()
    return frozenset(closing if isinstance(closing, list) else [closing])


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
