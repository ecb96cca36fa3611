"""Compared with open_clip's own transform, made of torchvision's parts."""

import pickle
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from index_builder.encoding.preprocessing import Preprocessing
from spine.errors import ModelError
from spine.torchvision_ops import declare_missing_operators

SIZES = [(224, 224), (640, 480), (333, 1001), (57, 41), (1, 1), (5, 900), (226, 225), (1023, 767)]
CONFIG = {
    "size": (224, 224),
    "mode": "RGB",
    "mean": [0.48145466, 0.4578275, 0.40821073],
    "std": [0.26862954, 0.26130258, 0.27577711],
    "interpolation": "bicubic",
    "resize_mode": "shortest",
    "fill_color": 0,
}


@pytest.fixture(scope="module")
def open_clip_transform():
    declare_missing_operators()
    from open_clip.transform import PreprocessCfg, image_transform_v2

    return lambda config: image_transform_v2(PreprocessCfg(**config), is_train=False)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(
    "change",
    [
        {},
        {"size": (72, 72)},
        {"size": (256, 256), "interpolation": "bilinear"},
        {"size": (224, 160)},
        {"resize_mode": "squash", "mean": [0.5] * 3, "std": [0.5] * 3},
        {"resize_mode": "longest", "fill_color": 7},
    ],
)
def test_it_equals_open_clips_transform(open_clip_transform, size, change):
    config = CONFIG | change
    pixels = np.random.default_rng(1).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    image = Image.fromarray(pixels)

    ours = Preprocessing.from_config(config)(image)
    theirs = open_clip_transform(config)(image).numpy()

    assert ours.shape == theirs.shape == (3, *config["size"])
    assert np.abs(ours - theirs).max() < 1e-5


def test_an_endless_strip_is_cropped_without_blowing_it_up(open_clip_transform):
    row = np.linspace(0, 255, 30_000).astype(np.uint8)
    image = Image.fromarray(np.repeat(row[None, :, None], 3, axis=2))  # 30,000 x 1: 4.5 GB when resized whole
    short = image.crop((14_900, 0, 15_100, 1))  # what lies around its centre

    ours = Preprocessing.from_config(CONFIG).crop(image)
    theirs = Preprocessing.from_config(CONFIG).crop(short)

    assert ours.shape == (224, 224, 3)
    assert np.abs(ours.astype(int) - theirs.astype(int)).max() <= 1


def test_it_travels_to_another_process_and_needs_no_torch():
    preprocessing = Preprocessing.from_config(CONFIG)
    code = (
        "import pickle, sys\n"
        "p = pickle.loads(sys.stdin.buffer.read())\n"
        "from PIL import Image\n"
        "assert p.crop(Image.new('RGB', (300, 200))).shape == (224, 224, 3)\n"
        "print(sorted({'torch', 'open_clip', 'pyarrow', 'faiss'} & set(sys.modules)))\n"
    )

    done = subprocess.run(
        [sys.executable, "-c", code], input=pickle.dumps(preprocessing), capture_output=True, check=False
    )

    assert done.stdout.strip() == b"[]", done.stderr.decode()


def test_an_unknown_wish_is_refused():
    with pytest.raises(ModelError, match="lanczos"):
        Preprocessing.from_config(CONFIG | {"interpolation": "lanczos"})
