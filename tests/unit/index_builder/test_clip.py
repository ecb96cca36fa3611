"""The demo model by the calls that load any other; missing models by their messages."""

import json
import shutil

import numpy as np
import pytest
from PIL import Image

from index_builder.encoding.clip import DEMO_CLIP, ClipEncoder, clip_dimension, clip_name, clip_parameters
from spine.errors import ModelError
from spine.settings import ClipConfig

DEMO = ClipConfig(model="demo", pretrained="", device="cpu", batch_size=8)


@pytest.fixture(scope="module")
def encoder():
    return ClipEncoder.load(DEMO)


@pytest.fixture(scope="module")
def pixels(encoder):
    generator = np.random.default_rng(5)
    images = [Image.fromarray(generator.integers(0, 256, (60, 90, 3), dtype=np.uint8)) for _ in range(20)]
    return np.stack([encoder.preprocess(image) for image in images])


def test_embeddings_are_unit_rows_of_the_models_dimension(encoder, pixels):
    images, texts = encoder.encode_images(pixels), encoder.encode_texts(["red star", "blue square", ""])

    assert (encoder.name, encoder.is_demo, encoder.d) == ("demo-clip", True, 128)
    assert (images.shape, texts.shape) == ((20, 128), (3, 128))
    for rows in (images, texts):
        assert np.linalg.norm(rows, axis=1) == pytest.approx(np.ones(len(rows)), abs=1e-5)
    assert encoder.encode_images(pixels[:0]).shape == (0, 128)
    assert encoder.encode_texts([]).shape == (0, 128)


def test_an_embedding_does_not_depend_on_its_company(encoder, pixels):
    whole = encoder.encode_images(pixels, steady=True).astype(np.float16)

    for rows in ([3], [19, 3], list(range(9)), list(range(19, -1, -1))):
        some = encoder.encode_images(pixels[rows], steady=True).astype(np.float16)
        assert np.array_equal(some, whole[rows])


def test_a_step_that_runs_out_of_memory_is_tried_with_half_the_pictures(pixels, monkeypatch):
    encoder = ClipEncoder.load(DEMO)
    wanted = encoder.encode_images(pixels)
    whole, sizes = encoder._encode_images, []

    def small_machine(batch):
        sizes.append(len(batch))
        if len(batch) > 3:
            raise RuntimeError("DefaultCPUAllocator: not enough memory")
        return whole(batch)

    monkeypatch.setattr(encoder, "_encode_images", small_machine)

    assert np.abs(encoder.encode_images(pixels) - wanted).max() < 1e-6
    assert sizes[:3] == [8, 4, 2]


def test_the_demo_model_is_what_its_folder_holds(encoder, pixels, tmp_path):
    folder = tmp_path / "mine"
    shutil.copytree(DEMO_CLIP, folder)
    local = ClipConfig(model=f"local-dir:{folder}", pretrained="", device="cpu", batch_size=8)

    other = ClipEncoder.load(local)

    assert (other.name, other.is_demo) == ("mine", False)
    assert np.array_equal(other.encode_images(pixels), encoder.encode_images(pixels))
    before = clip_parameters(local)
    assert before["weights"] == clip_parameters(DEMO)["weights"]
    (folder / "open_clip_model.safetensors").write_bytes(b"trained anew")
    assert clip_parameters(local) != before


def test_names_say_model_and_weights():
    assert clip_name(ClipConfig()) == "ViT-L-14/openai"
    assert clip_name(ClipConfig(model="ViT-B-32", pretrained="/models/mine.pt")) == "ViT-B-32/mine"
    assert clip_parameters(ClipConfig()) == {"model": "ViT-L-14/openai"}


@pytest.mark.parametrize(
    ("model", "pretrained", "words"),
    [
        ("ViT-X-99", "openai", "ViT-X-99"),
        ("ViT-L-14", "", "none of ViT-L-14's weights"),
        ("ViT-L-14", "/no/such/file.pt", "none of ViT-L-14's weights"),
        ("local-dir:/no/such/folder", "", "/no/such/folder"),
    ],
)
def test_a_model_that_cannot_be_had_is_said_in_one_line_with_the_remedy(model, pretrained, words):
    with pytest.raises(ModelError, match=words) as caught:
        ClipEncoder.load(ClipConfig(model=model, pretrained=pretrained, device="cpu"))
    assert "\n" not in str(caught.value)


def test_a_folder_without_weights_does_not_pass_with_random_ones(tmp_path):
    (tmp_path / "open_clip_config.json").write_text(json.dumps({"model_cfg": {}}))

    with pytest.raises(ModelError, match="demo-models"):
        ClipEncoder.load(ClipConfig(model=f"local-dir:{tmp_path}", pretrained="", device="cpu"))


@pytest.mark.parametrize(
    ("model", "pretrained", "d", "quick_gelu"),
    [
        ("ViT-L-14", "openai", 768, True),
        ("ViT-B-32", "openai", 512, True),
        ("ViT-H-14", "laion2b_s32b_b79k", 1024, False),
    ],
)
def test_the_models_of_laions_indexes_are_known_and_quick_gelu_is_forced_where_their_weights_need_it(
    monkeypatch, model, pretrained, d, quick_gelu
):
    """ViT-L-14/openai names an architecture without QuickGELU for weights that need it."""
    from index_builder.encoding import clip

    monkeypatch.setattr(clip, "_cached", lambda repository, files: "/cache/weights.safetensors")

    weights, extra = clip._find_weights(model, pretrained)

    assert weights == "/cache/weights.safetensors"
    assert extra["force_quick_gelu"] is quick_gelu
    assert extra["image_mean"] == (0.48145466, 0.4578275, 0.40821073)
    assert clip_dimension(ClipConfig(model=model, pretrained=pretrained)) == d


def test_weights_that_cannot_be_fetched_are_said_at_once(monkeypatch):
    """Without a connection; the hub's own download retries for most of a minute."""
    import huggingface_hub

    from index_builder.encoding import clip

    def no_connection(*_, **__):
        raise ConnectionError("Name or service not known")

    monkeypatch.setattr(clip, "_cached", lambda repository, files: None)
    monkeypatch.setattr(huggingface_hub, "model_info", no_connection)

    with pytest.raises(ModelError, match=r"ViT-L-14/openai .* not known.*--demo-models") as caught:
        ClipEncoder.load(ClipConfig(device="cpu"))
    assert "\n" not in str(caught.value)
