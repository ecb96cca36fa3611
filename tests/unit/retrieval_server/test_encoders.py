import asyncio
import re

import numpy as np
import pytest

from index_builder.encoding.clip import DEMO_CLIP, ClipEncoder
from retrieval_server.encoders import Encoders
from retrieval_server.metrics import Metrics
from retrieval_server.refusals import Refusal
from spine.settings import ClipConfig

DEMO = ClipConfig(model="demo", pretrained="", device="cpu")


@pytest.fixture(scope="module")
def encoder() -> ClipEncoder:
    if not DEMO_CLIP.is_dir():
        pytest.skip("the demo model is not there")
    return ClipEncoder.load(DEMO)


def calls(metrics: Metrics, name: str) -> int:
    found = re.search(rf"(?m)^{name}_count (\d+)", metrics.text().decode())
    assert found is not None
    return int(found[1])


def test_requests_that_wait_are_embedded_together_and_each_gets_its_own(encoder):
    metrics = Metrics()
    encoders = Encoders(metrics)
    texts = [[f"{number} red stars", f"a blue ring {number}"][: 1 + number % 2] for number in range(100)]
    crops = np.random.default_rng(0).integers(
        0, 256, (20, *encoder.preprocess.crop(_grey()).shape), dtype=np.uint8
    )

    async def ask() -> tuple[list[np.ndarray], list[np.ndarray]]:
        words = [encoders.texts(DEMO, each) for each in texts]
        pictures = [encoders.crops(DEMO, [crop]) for crop in crops]
        found = await asyncio.gather(*words, *pictures)
        return list(found[:100]), list(found[100:])

    of_texts, of_crops = asyncio.run(ask())
    encoders.close()
    for each, vectors in zip(texts, of_texts, strict=True):
        assert vectors == pytest.approx(encoder.encode_texts(each), abs=1e-5)
    alone = encoder.encode_images(encoder.preprocess.normalise(crops))
    assert np.concatenate(of_crops) == pytest.approx(alone, abs=1e-5)
    assert calls(metrics, "text_clip_inference_time") < 10
    assert calls(metrics, "image_clip_inference_time") < 10


def test_every_request_hears_of_a_model_that_can_not_be_loaded():
    encoders = Encoders(Metrics())
    missing = ClipConfig(model="local-dir:/no/such/folder", pretrained="", device="cpu")

    async def ask() -> list[object]:
        asked = [encoders.texts(missing, ["a"]) for _ in range(5)] + [encoders.texts(None, ["a"])]
        return list(await asyncio.gather(*asked, return_exceptions=True))

    answers = asyncio.run(ask())
    encoders.close()
    assert all(isinstance(answer, Refusal) and answer.code == "no_model" for answer in answers)
    assert not any("/no/such" in str(answer) for answer in answers)


def _grey():
    from PIL import Image

    return Image.new("RGB", (64, 64), (128, 128, 128))
