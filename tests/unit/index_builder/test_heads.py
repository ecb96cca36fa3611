"""Scores compared with the original models' outputs, and with heads whose arithmetic is written out."""

import itertools

import numpy as np
import pytest
import safetensors.torch
import torch

from index_builder.scoring.heads import head_name, load_head, load_rating_vector
from spine.errors import ModelError


def seed0(d, rows=1):
    """The check inputs: row by row they are what one call for all rows gives."""
    generator = np.random.default_rng(0)
    vectors = generator.standard_normal((rows, d))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def ones(d):
    return np.full((1, d), 1 / np.sqrt(d), dtype=np.float32)


@pytest.fixture
def laion(reference):
    return reference / "laion-heads"


@pytest.mark.parametrize(
    ("file", "d", "at_seed0", "at_ones"),
    [
        ("aesthetic-v1/sa_0_4_vit_l_14_linear.pth", 768, 3.99617, 1.51313),
        ("aesthetic-v1/sa_0_4_vit_b_32_linear.pth", 512, 1.95856, 3.90816),
        ("aesthetic-v1/sa_0_4_vit_b_16_linear.pth", 512, 2.26163, 1.25785),
        ("aesthetic-v2/sac+logos+ava1-l14-linearMSE.pth", 768, 4.46458, 4.88328),
        ("aesthetic-v2/sac+logos+ava1-l14-collapsed.npz", 768, 4.46458, 4.88328),
    ],
)
def test_laions_aesthetic_heads_give_their_published_check_values(laion, file, d, at_seed0, at_ones):
    head = load_head(str(laion / file), "aesthetic", d)

    assert head.score(seed0(d)) == pytest.approx([at_seed0], abs=2e-5)
    assert head.score(ones(d)) == pytest.approx([at_ones], abs=2e-5)


@pytest.mark.parametrize(
    ("file", "d"),
    [
        ("nsfw_vit_l_14.npz", 768),
        ("nsfw_vit_b_32.npz", 512),
        ("clip_autokeras_binary_nsfw.zip", 768),  # as LAION published them
        ("clip_autokeras_nsfw_b32.zip", 512),
    ],
)
def test_the_nsfw_detector_agrees_with_tensorflow(laion, file, d):
    head = load_head(str(laion / "nsfw" / file), "unsafe", d)
    checks = np.load(laion / f"nsfw/nsfw_check_{d}.npz")
    stored = seed0(d, 64).astype(np.float16).astype(np.float32)

    assert np.abs(head.score(checks["x_in_vocab"].astype(np.float32)) - checks["tf_in_vocab"]).max() < 1e-6
    assert np.abs(head.score(stored) - checks["tf_seed0_fp16"]).max() < 1e-6
    assert np.abs(head.score(seed0(d, 64)) - checks["tf_seed0_fp32"]).max() < 1e-6


def test_the_nsfw_detector_gives_its_published_check_values(laion):
    head = load_head(str(laion / "nsfw/nsfw_vit_l_14.npz"), "unsafe")

    assert head.score(seed0(768)) == pytest.approx([2.5615e-4], rel=1e-4)
    assert head.score(seed0(768).astype(np.float16).astype(np.float32)) == pytest.approx(
        [1.5335e-4], rel=1e-4
    )
    assert head.score(ones(768)) == pytest.approx([1.6008e-5], rel=1e-4)


@pytest.mark.parametrize(
    ("model", "d", "harmless", "violent"),
    [("l_14", 768, 0.026490, 0.035466), ("b_32", 512, 0.040687, 0.025893)],
)
def test_the_violence_prompts_give_their_published_check_values(laion, model, d, harmless, violent):
    head = load_head(str(laion / f"violence/violence_detection_vit_{model}.npy"), "violence", d)

    assert head.score(seed0(d)) == pytest.approx([violent - harmless], abs=2e-6)
    assert "above 0 is violent" in head.scale


def test_the_h14_detector_is_the_stack_it_was_trained_as(tmp_path):
    torch.manual_seed(5)
    widths = (1024, 1024, 2048, 1024, 256, 128)
    parts = []
    for before, after in itertools.pairwise(widths):
        parts += [torch.nn.Linear(before, after), torch.nn.ReLU(), torch.nn.Dropout(0.2)]
    stack = torch.nn.Sequential(*parts, torch.nn.Linear(128, 16), torch.nn.Linear(16, 1)).double().eval()
    state = {f"layers.{name}": value.float() for name, value in stack.state_dict().items()}
    torch.save(state, tmp_path / "h14_nsfw.pth")
    safetensors.torch.save_file(state, tmp_path / "h14_nsfw.safetensors")
    vectors = 30 * seed0(1024, 20)
    wanted = stack(torch.from_numpy(vectors).double()).detach().numpy()[:, 0]

    for file in ("h14_nsfw.pth", "h14_nsfw.safetensors"):
        head = load_head(str(tmp_path / file), "unsafe", 1024)
        assert head.score(vectors) == pytest.approx(wanted, abs=1e-6)
    assert wanted.std() > 1e-3  # the stack does tell them apart
    with pytest.raises(ModelError, match="d = 1024, the CLIP model gives d = 768"):
        load_head(str(tmp_path / "h14_nsfw.pth"), "unsafe", 768)


def test_a_damaged_zip_is_refused_in_one_line(tmp_path, laion):
    whole = (laion / "nsfw" / "clip_autokeras_nsfw_b32.zip").read_bytes()
    generator = np.random.default_rng(1)
    for number in range(40):
        path = tmp_path / f"{number}.zip"
        spoilt = bytearray(whole)
        if number % 2:
            del spoilt[int(generator.integers(len(spoilt))) :]
        else:
            for place in generator.integers(0, len(spoilt), 20):
                spoilt[place] ^= 0xFF
        path.write_bytes(spoilt)
        try:
            head = load_head(str(path), "unsafe", 512)
        except ModelError as error:
            assert str(path) in str(error) and "\n" not in str(error)
        else:  # what was hit is not read
            assert head.score(seed0(512)) == pytest.approx([1.12998e-8], rel=1e-3)


def test_rating_vectors_rise_with_their_rating(laion):
    folder = str(laion / "aesthetic-v1/vit_l_14_embeddings")
    head = load_head(str(laion / "aesthetic-v1/sa_0_4_vit_l_14_linear.pth"), "aesthetic")

    vectors = np.stack([load_rating_vector(folder, rating, 768) for rating in range(10)])

    assert np.linalg.norm(vectors, axis=1) == pytest.approx(np.ones(10), abs=1e-6)
    published = [-2.458, -0.138, 1.895, 3.585, 5.100, 6.470, 7.787, 9.048, 10.226, 11.304]
    assert head.score(vectors) == pytest.approx(published, abs=1e-3)


def write_detector(path, d=4):
    """Column 1 is a category; the network sums the columns."""
    np.savez(
        path,
        cat_columns=np.array([1], dtype=np.int32),
        vocab_1=np.array(["0.500000", "-0.250000"]),
        norm_mean=np.zeros(d, np.float32),
        norm_var=np.ones(d, np.float32),
        dense_0_kernel=np.ones((d, 1), np.float32),
        dense_0_bias=np.zeros(1, np.float32),
    )


def test_a_category_is_looked_up_as_it_is_printed(tmp_path):
    write_detector(tmp_path / "head.npz")
    head = load_head(str(tmp_path / "head.npz"), "unsafe")
    vectors = np.array([[1, 0.5, 0, 0], [1, -0.25, 0, 0], [1, 0.3, 0, 0], [np.nan, 0.5, 0, 0]], np.float32)

    assert head.score(vectors) == pytest.approx(1 / (1 + np.exp(-np.array([2.0, 3.0, 1.0, 1.0]))), abs=1e-6)
    assert vectors[0, 1] == 0.5  # the caller's array is as it was


def test_a_head_is_named_by_file_and_content(tmp_path):
    for number, file in enumerate(("a.pth", "b.pth")):
        torch.save({"weight": torch.full((1, 3), float(number)), "bias": torch.ones(1)}, tmp_path / file)

    first, second = (load_head(str(tmp_path / file), "aesthetic") for file in ("a.pth", "b.pth"))

    assert first.name.startswith("a-")
    assert len(first.name) == len("a-") + 8
    assert first.name[2:] != second.name[2:]
    assert head_name(str(tmp_path / "a.pth"), "aesthetic") == first.name
    assert head_name("", "aesthetic") is None
    assert second.score(np.eye(3, dtype=np.float32)) == pytest.approx([2, 2, 2])


def test_a_head_for_another_model_is_refused_in_one_line(tmp_path):
    write_detector(tmp_path / "head.npz")

    with pytest.raises(ModelError, match="d = 4, the CLIP model gives d = 768") as caught:
        load_head(str(tmp_path / "head.npz"), "watermark", 768)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("kind", "setting"),
    [("unsafe", "unsafe_head"), ("watermark", "watermark_head"), ("violence", "violence_prompts")],
)
def test_a_head_that_is_not_there_is_told_with_what_can_be_named_instead(tmp_path, kind, setting):
    with pytest.raises(
        ModelError, match=rf"absent.pt: No such file .*\[score\] {setting} names it"
    ) as caught:
        load_head(str(tmp_path / "absent.pt"), kind)

    assert "laion-nsfw-l14" in str(caught.value)
    assert "H/14 detector and watermark classifier come by path only" in str(caught.value)
    assert "\n" not in str(caught.value)


class Hostile:
    def __reduce__(self):
        return (print, ("code ran",))


def test_files_that_are_no_heads_are_refused_and_run_no_code(tmp_path, capsys):
    torch.save({"weight": Hostile()}, tmp_path / "code.pth")
    torch.save({"other": torch.ones(1)}, tmp_path / "other.pth")
    torch.save({"layers.0.weight": torch.ones(1, 3), "layers.0.bias": torch.ones(1)}, tmp_path / "stack.pth")
    torch.save({"weight": torch.full((1, 3), torch.nan), "bias": torch.ones(1)}, tmp_path / "nan.pth")
    np.savez(tmp_path / "object.npz", weight=np.array([Hostile()], dtype=object))
    (tmp_path / "text.npz").write_text("no archive")
    (tmp_path / "cut.pth").write_bytes(b"PK\x03\x04 cut")
    capsys.readouterr()

    for file in (
        "code.pth",
        "other.pth",
        "nan.pth",
        "stack.pth",
        "object.npz",
        "text.npz",
        "cut.pth",
        "missing.npz",
    ):
        with pytest.raises(ModelError, match=file):
            load_head(str(tmp_path / file), "aesthetic")
    assert "code ran" not in capsys.readouterr().out


def test_a_score_does_not_depend_on_its_company(tmp_path):
    generator = np.random.default_rng(2)
    write_detector(tmp_path / "head.npz", 96)
    torch.save({"weight": torch.randn(1, 96), "bias": torch.ones(1)}, tmp_path / "head.pth")
    vectors = generator.standard_normal((33, 96)).astype(np.float16).astype(np.float32)

    for file in ("head.npz", "head.pth"):
        head = load_head(str(tmp_path / file), "unsafe")
        alone = np.concatenate([head.score(row[None]) for row in vectors])
        assert np.array_equal(head.score(vectors), alone)
