import pytest

from benchmarks.captions_on_gpu import GPUS, rate_of, roof
from benchmarks.llava_shape import LLAVA_7B, Shape, Tower, make_checkpoint
from captioner.embedded import EmbeddedEngine, EmbeddedSetup
from spine.settings import CaptionConfig
from tests.unit.captioner.runs import noise

SMALL = Shape(
    name="small",
    vision=Tower(width=32, layers=2, heads=2, mlp=64),
    text=Tower(width=32, layers=2, heads=2, mlp=64),
    side_px=24,
    patch_px=8,
    vocabulary=900,
    longest=1024,
)


@pytest.mark.parametrize(
    ("gpu", "batch", "captions_s"),
    [("H100", 109, 22), ("H200", 219, 27), ("A100-SXM4-80GB", 109, 9.3), ("L40S", 52, 5.7)],
)
def test_what_a_gpu_allows_is_what_was_worked_out_by_hand(gpu, batch, captions_s):
    [found] = [each for each in GPUS if each.name == gpu]

    assert roof(found, LLAVA_7B, 846, 110, batch) == pytest.approx(captions_s, rel=0.03)


def test_a_model_of_random_weights_goes_through_the_engine_and_is_timed(tmp_path):
    make_checkpoint(tmp_path / "small", SMALL, dtype="float32")
    engine = EmbeddedEngine(EmbeddedSetup.of(CaptionConfig(model=str(tmp_path / "small"), device="cpu")))

    found = rate_of(engine, [noise(seed) for seed in range(4)], batch=2, out=5)

    engine.close()
    assert found.captions_s > 0 and 0 < found.written <= 5
    assert found.asked > SMALL.image_tokens + 100, "the picture, and the prompt of 185 words"
