"""How pictures are embedded: sizes, precisions and several processes, on the demo model."""

import json

import numpy as np
import pytest

from index_builder.encoding.clip import BATCH_SIZE, ClipEncoder, devices_of
from index_builder.encoding.crop_encoding import CropEncoding
from index_builder.encoding.device_processes import DeviceProcesses
from index_builder.encoding.encoding_choice import EncodingChoice, best_size, choose, kept_choice
from spine.errors import ModelError
from spine.settings import ClipConfig

CLIP = ClipConfig(model="demo", pretrained="", device="cpu")


@pytest.fixture(scope="module")
def crops():
    return np.random.default_rng(1).integers(0, 256, (21, 64, 64, 3), dtype=np.uint8)


@pytest.fixture
def encoder():
    return ClipEncoder.load(CLIP)


def fitted(encoder, crops):
    height, width = encoder.preprocess.height, encoder.preprocess.width
    return np.stack([np.resize(crop, (height, width, 3)) for crop in crops])


@pytest.mark.parametrize(
    ("rates", "size"),
    [
        ({64: 100, 128: 180, 256: 185, 512: 400}, 128),  # twice 128 is hardly faster
        ({64: 100, 128: 120, 256: 150, 512: 180, 1024: 220}, 1024),  # and no further
        ({64: 100, 128: 0}, 64),  # memory doesn't suffice for more
        ({64: 0, 32: 0, 16: 40}, 16),
        ({64: 0, 32: 0, 16: 0, 8: 0, 4: 0, 2: 0, 1: 0}, 1),
    ],
)
def test_steps_grow_while_that_is_faster_and_memory_lasts(rates, size):
    assert best_size(lambda each: float(rates[each]), 64, 1024) == size


def test_a_choice_is_measured_once_and_kept_for_who_goes_on(tmp_path, encoder):
    first = kept_choice(tmp_path, encoder, CLIP)

    assert first.batch_size == BATCH_SIZE and first.precision in ("fp32", "bf16")
    assert json.loads((tmp_path / ".encoding.json").read_text()) == {
        "batch_size": first.batch_size,
        "precision": first.precision,
    }
    (tmp_path / ".encoding.json").write_text('{"batch_size": 7, "precision": "bf16"}')
    assert kept_choice(tmp_path, encoder, CLIP) == EncodingChoice(7, "bf16")
    assert (encoder.batch_size, encoder.precision) == (7, "bf16")
    (tmp_path / ".encoding.json").write_text("damaged")
    assert kept_choice(tmp_path, encoder, CLIP).batch_size == BATCH_SIZE


def test_settings_leave_nothing_to_choose(encoder):
    asked = ClipConfig(model="demo", pretrained="", device="cpu", batch_size=9, precision="bf16")

    assert choose(encoder, asked) == EncodingChoice(9, "bf16")
    assert encoder.precision == "fp32"  # measuring changes nothing


def test_bf16_gives_nearly_the_same_embeddings(encoder, crops):
    pixels = encoder.preprocess.normalise(fitted(encoder, crops))
    exact = encoder.encode_images(pixels)
    encoder.precision = "bf16"

    coarse = encoder.encode_images(pixels)

    assert coarse.dtype == np.float32 and not np.array_equal(coarse, exact)
    assert (coarse * exact).sum(axis=1).min() > 0.999


def test_a_step_too_large_for_memory_is_halved_until_it_fits(encoder, crops, monkeypatch):
    pixels = encoder.preprocess.normalise(fitted(encoder, crops))
    wanted = encoder.encode_images(pixels)
    whole = encoder._model.encode_image

    def short_of_memory(batch):
        if len(batch) > 5:
            raise RuntimeError("[enforce fail] DefaultCPUAllocator: not enough memory: you tried to allocate")
        return whole(batch)

    monkeypatch.setattr(encoder._model, "encode_image", short_of_memory)
    encoder.batch_size = 16

    found = encoder.encode_images(pixels)

    assert encoder.batch_size == 4
    assert np.abs(found - wanted).max() < 1e-5


def test_several_processes_give_the_embeddings_of_one(encoder, crops):
    choice = EncodingChoice(4, "fp32")
    encoder.batch_size = 4
    some = fitted(encoder, crops)

    with DeviceProcesses(CLIP, ["cpu", "cpu"], choice, encoder.preprocess, encoder.d) as processes:
        assert processes.batch_size == 8
        together, alone = CropEncoding(processes, 8), CropEncoding(encoder, 4)
        for crop in some:
            together.add(crop)
            alone.add(crop)
        found = together.take()

    assert np.array_equal(found, alone.take())
    assert found.shape == (21, encoder.d)


def test_a_process_without_its_model_says_why(encoder, crops):
    broken = ClipConfig(model="local-dir:/nowhere", pretrained="", device="cpu")

    with DeviceProcesses(
        broken, ["cpu"], EncodingChoice(4, "fp32"), encoder.preprocess, encoder.d
    ) as processes:
        with pytest.raises(ModelError, match="/nowhere: no open_clip_config.json"):
            processes.encode_images(encoder.preprocess.normalise(fitted(encoder, crops[:2])))


def test_devices_are_named_or_found():
    assert devices_of(ClipConfig(device="cpu, cpu")) == ["cpu", "cpu"]
    assert devices_of(ClipConfig(device="auto"))[0] in ("cpu", "cuda:0")
    with pytest.raises(ModelError, match="torch sees . CUDA devices"):
        devices_of(ClipConfig(device="cuda:9"))
