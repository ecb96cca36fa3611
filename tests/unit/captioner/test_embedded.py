import gc
import hashlib
import json
import shutil
import sys
import weakref

import pytest
from PIL import Image

from captioner.embedded import EmbeddedEngine, EmbeddedSetup
from captioner.engine import CaptionFailure, Prepared, Reply, Wanted
from captioner.loading import importing
from captioner.memory import in_halves, is_out_of_memory
from captioner.pictures import bounded
from spine.errors import ConfigError, ModelError
from spine.prompts import PROMPTS, Prompt
from spine.settings import CaptionConfig

LAION = PROMPTS["laion-pop"]
LENGTH = 12


def settings(folder, **more):
    return CaptionConfig(model=str(folder), device="cpu", **more)


@pytest.fixture(scope="module")
def engine(tiny_llava):
    return EmbeddedEngine.load(settings(tiny_llava))


@pytest.fixture(scope="module")
def images():
    import numpy as np

    shapes = [(30, 40), (1, 1), (24, 24), (90, 31), (200, 3)]
    return [
        Image.fromarray(np.random.default_rng(seed).integers(0, 256, (*shape, 3), dtype=np.uint8))
        for seed, shape in enumerate(shapes)
    ]


@pytest.fixture(scope="module")
def expected(tiny_llava, images):
    """New tokens by transformers alone: one picture at a time, the prompt written out, greedy."""
    import torch
    from transformers import LlavaForConditionalGeneration, LlavaProcessor

    model = LlavaForConditionalGeneration.from_pretrained(tiny_llava, dtype=torch.float32).eval()
    processor = LlavaProcessor.from_pretrained(tiny_llava)
    rows = []
    for image in images:
        inputs = processor(images=image, text=f"USER: <image>\n{LAION.text} ASSISTANT:", return_tensors="pt")
        tokens = inputs["input_ids"]
        for _ in range(LENGTH):
            with torch.no_grad():
                logits = model(input_ids=tokens, pixel_values=inputs["pixel_values"]).logits
            tokens = torch.cat([tokens, logits[:, -1:].argmax(-1)], dim=1)
        rows.append(tokens[0, inputs["input_ids"].shape[1] :].tolist())
    return processor, rows


def test_a_batch_says_what_the_model_says_of_each_picture_alone(engine, images, expected):
    processor, rows = expected

    replies = engine.describe(images, LAION, LENGTH)

    assert [reply.text for reply in replies] == [
        processor.decode(row, skip_special_tokens=True) for row in rows
    ]
    assert len({reply.text for reply in replies}) > 2


def test_a_reply_ends_before_the_closing_token_and_says_so(tiny_llava, images, expected, tmp_path):
    processor, rows = expected
    closing = rows[0][4]
    folder = shutil.copytree(tiny_llava, tmp_path / "closing")
    generation = json.loads((folder / "generation_config.json").read_text()) | {"eos_token_id": [closing, 2]}
    (folder / "generation_config.json").write_text(json.dumps(generation))

    replies = EmbeddedEngine.load(settings(folder)).describe(images, LAION, LENGTH)

    for reply, row in zip(replies, rows, strict=True):
        ended = closing in row or 2 in row
        said = row[: min(row.index(token) for token in (closing, 2) if token in row)] if ended else row
        text = processor.decode(said, skip_special_tokens=True)
        asked = (
            len(processor.tokenizer(f"USER: \n{LAION.text} ASSISTANT:")["input_ids"]) + 9
        )  # places of a picture
        assert reply == Reply(text, "stop" if ended else "length", len(said), prompt_tokens=asked)
    assert replies[0].finish_reason == "stop"


def test_what_is_read_ahead_is_what_the_processor_makes_of_all_pictures_together(engine, images, tmp_path):
    wanted = []
    for number, image in enumerate(images):
        image.convert("RGB").save(tmp_path / f"{number}.png")
        content = (tmp_path / f"{number}.png").read_bytes()
        wanted.append(Wanted(str(tmp_path / f"{number}.png"), hashlib.sha256(content).hexdigest()))

    read = [engine.read(each, "crop") for each in wanted]

    processor, text = engine._processor, engine._rendered(LAION)
    together = processor(
        images=[bounded(image) for image in images],
        text=[text] * len(images),
        padding=True,
        return_tensors="pt",
    )
    given = engine._inputs(text, read)
    assert set(given) == set(together) and all(given[name].equal(together[name]) for name in given)
    assert engine.describe(read, LAION, LENGTH) == engine.describe(
        [bounded(image) for image in images], LAION, LENGTH
    )
    assert engine.read(None, "crop").reason == "not_fetched"


def test_no_pictures_give_no_replies(engine):
    assert engine.describe([], LAION, LENGTH) == []


def test_a_prompt_with_the_mark_of_a_picture_is_refused(engine, images):
    prompt = Prompt(prompt_id="trick", text="What is <image> here?", prefix="")

    with pytest.raises(ConfigError, match="'trick' has <image> in its text"):
        engine.describe(images, prompt, LENGTH)


def test_a_length_that_the_model_has_no_room_for_is_refused(engine, images):
    with pytest.raises(ConfigError, match=r"1,024 that tiny-llava can take; lower it to \d+"):
        engine.describe(images, LAION, 1000)


def test_prompts_of_several_lengths_in_one_batch_give_what_each_gives_alone(engine, images):
    import torch

    prompts = [PROMPTS[name] for name in ("laion-pop", "short", "detail", "short", "laion-pop")]
    pictures = [images[number % len(images)] for number in range(len(prompts))]
    alone = [
        engine.describe([picture], prompt, LENGTH)[0]
        for picture, prompt in zip(pictures, prompts, strict=True)
    ]

    texts = [engine._rendered(prompt) for prompt in prompts]
    inputs = engine._processor(images=pictures, text=texts, padding=True, return_tensors="pt")
    with torch.inference_mode():
        output = engine._model.generate(**inputs, max_new_tokens=LENGTH)

    asked = inputs["input_ids"].shape[1]
    together = [engine._reply(row, asked).text for row in output[:, asked:].tolist()]
    assert together == [reply.text for reply in alone] and len(set(together)) > 2
    assert len({reply.prompt_tokens for reply in alone}) > 1, "the prompts have several lengths"


def test_what_an_older_checkpoint_leaves_out_comes_from_the_models_config(
    tiny_llava, images, expected, tmp_path
):
    processor, rows = expected
    folder = shutil.copytree(tiny_llava, tmp_path / "older")
    kept = json.loads((folder / "processor_config.json").read_text())
    for name in ("patch_size", "num_additional_image_tokens", "vision_feature_select_strategy"):
        del kept[name]
    (folder / "processor_config.json").write_text(json.dumps(kept))
    (folder / "chat_template.jinja").unlink()

    replies = EmbeddedEngine.load(settings(folder)).describe(images, LAION, LENGTH)

    assert [reply.text for reply in replies] == [
        processor.decode(row, skip_special_tokens=True) for row in rows
    ]


def test_weights_that_a_file_lacks_are_not_drawn_at_random(tiny_llava, tmp_path):
    from safetensors.torch import load_file, save_file

    folder = shutil.copytree(tiny_llava, tmp_path / "lacking")
    weights = load_file(folder / "model.safetensors")
    lost = next(name for name in weights if "projector" in name)
    del weights[lost]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})

    with pytest.raises(ModelError, match="1 weights missing or of another shape"):
        EmbeddedEngine.load(settings(folder))


def test_damaged_weights_are_named(tiny_llava, tmp_path):
    folder = shutil.copytree(tiny_llava, tmp_path / "damaged")
    content = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(content[: len(content) // 2])

    with pytest.raises(ModelError, match=r"damaged: can't be loaded"):
        EmbeddedEngine.load(settings(folder))


def test_a_model_that_takes_no_pictures_is_named(tiny_llava, tmp_path):
    folder = shutil.copytree(tiny_llava, tmp_path / "words")
    text = json.loads((folder / "config.json").read_text())["text_config"]
    (folder / "config.json").write_text(json.dumps(text | {"architectures": ["LlamaForCausalLM"]}))

    with pytest.raises(ModelError, match="words: can't be loaded"):
        EmbeddedEngine.load(settings(folder))


def test_a_missing_gpu_is_said_before_any_work(tiny_llava):
    import torch

    if torch.cuda.is_available():
        pytest.skip("this machine has a CUDA device")

    with pytest.raises(ConfigError, match="no CUDA device"):
        EmbeddedSetup.of(CaptionConfig(model=str(tiny_llava), device="cuda"))


def test_the_fingerprint_follows_weights_and_dtype(tiny_llava):
    setup = EmbeddedSetup.of(settings(tiny_llava))

    assert setup.dtype == "float32"
    assert setup.fingerprint == EmbeddedSetup.of(settings(tiny_llava, batch_size=3)).fingerprint
    assert EmbeddedSetup(setup.checkpoint, "cpu", "bfloat16").fingerprint != setup.fingerprint


def test_where_memory_runs_out_the_batch_is_halved_and_only_what_is_too_large_alone_fails():
    import torch

    asked = []

    def work(sizes):
        asked.append(len(sizes))
        if sum(sizes) > 10:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return [f"done {size}" for size in sizes]

    outcomes = in_halves([4, 4, 99, 1, 8], work, lambda size: CaptionFailure("out_of_memory", str(size)))

    assert outcomes == ["done 4", "done 4", CaptionFailure("out_of_memory", "99"), "done 1", "done 8"]
    assert asked[0] == 5


def test_pictures_that_no_memory_holds_fail_alone_and_the_engine_goes_on(engine, images, expected):
    import torch

    processor, rows = expected
    side = 1 << 21  # 50 TB of pixels, of which nothing is there until somebody copies them
    giant = Prepared(torch.zeros(1).expand(1, 3, side, side), side, side)

    outcomes = engine.describe([giant, giant], LAION, LENGTH)

    assert [outcome.reason for outcome in outcomes] == ["out_of_memory"] * 2
    assert f"{side} x {side} pixels" in outcomes[0].message
    again = engine.describe(images, LAION, LENGTH)
    assert [reply.text for reply in again] == [
        processor.decode(row, skip_special_tokens=True) for row in rows
    ]


def test_another_error_is_not_taken_for_a_lack_of_memory():
    def work(items):
        raise RuntimeError("shapes do not match")

    with pytest.raises(RuntimeError, match="shapes"):
        in_halves([1, 2], work, str)


def test_a_cpu_out_of_memory_is_known_by_what_torch_says():
    import torch

    with pytest.raises(RuntimeError) as caught:
        torch.empty(1 << 60, dtype=torch.uint8)

    assert is_out_of_memory(caught.value)


def test_what_is_imported_once_is_no_garbage_to_look_for_and_nothing_else_is_spared(monkeypatch):
    monkeypatch.delitem(sys.modules, "tiny_package", raising=False)
    frozen = gc.get_freeze_count()
    with importing("tiny_package"):
        during = gc.isenabled()
    grew = gc.get_freeze_count() > frozen
    monkeypatch.setitem(sys.modules, "tiny_package", sys)
    with importing("tiny_package"):
        afterwards = gc.isenabled()
    gc.unfreeze()

    assert (during, grew, afterwards, gc.isenabled()) == (False, True, True, True)


def test_a_closed_engine_gives_back_its_weights(tiny_llava):
    engine = EmbeddedEngine.load(settings(tiny_llava))
    weights = weakref.ref(next(engine._model.parameters()))
    assert weights() is not None

    engine.close()

    assert weights() is None
