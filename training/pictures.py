"""The pictures the demo models are trained on: drawn once, kept as one array on disk."""

import io
import multiprocessing
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageEnhance

from popfactory.demo_drawing import draw
from popfactory.demo_world import Scene, random_scene

SIDE_PX = 72
MEAN = (0.48145466, 0.4578275, 0.40821073)
STD = (0.26862954, 0.26130258, 0.27577711)
"""OpenAI CLIP's mean and standard deviation, kept so that every loading path agrees."""

HELD_OUT_SEED = 900
"""Scenes of this seed and above are for figures only, never for training."""


def training_scene(seed: int, number: int) -> Scene:
    """Scene `number` of the endless row that belongs to a seed; marks are more frequent than in life."""
    return random_scene(np.random.default_rng((seed, number)), p_watermark=0.25, p_unsafe=0.25)


def training_picture(seed: int, number: int) -> NDArray[np.uint8]:
    """Picture of `training_scene(seed, number)`, shape (72, 72, 3).

    Two in five come the long way a file takes: another size and format, a slight crop, JPEG, another
    brightness, then CLIP's resize and centre crop.
    """
    scene = training_scene(seed, number)
    rng = np.random.default_rng((seed, number, 1))
    if rng.random() < 0.6:
        return np.asarray(draw(scene, SIDE_PX, SIDE_PX))
    side = int(rng.integers(90, 330))
    longer = int(side * rng.uniform(1, 1.5))
    image = draw(scene, *((side, longer) if rng.random() < 0.5 else (longer, side)))
    cut = rng.uniform(0, 0.025, 4) * side
    image = image.crop((int(cut[0]), int(cut[1]), image.width - int(cut[2]), image.height - int(cut[3])))
    image = ImageEnhance.Brightness(image).enhance(float(rng.uniform(0.9, 1.1)))
    file = io.BytesIO()
    image.save(file, "JPEG", quality=int(rng.integers(70, 96)))
    return preprocess(Image.open(file))


def preprocess(image: Image.Image) -> NDArray[np.uint8]:
    """CLIP's resize of the shorter side (bicubic) and centre crop, shape (72, 72, 3)."""
    image = image.convert("RGB")
    scale = SIDE_PX / min(image.size)
    image = image.resize(
        (max(SIDE_PX, round(image.width * scale)), max(SIDE_PX, round(image.height * scale))), 3
    )
    left, top = (image.width - SIDE_PX) // 2, (image.height - SIDE_PX) // 2
    return np.asarray(image.crop((left, top, left + SIDE_PX, top + SIDE_PX)))


def picture_array(folder: Path, seed: int, n: int, processes: int = 4) -> NDArray[np.uint8]:
    """The first n training pictures of a seed, shape (n, 72, 72, 3), memory-mapped.

    Drawn at the first call (about 2.5 CPU ms each), read from `folder` afterwards.
    """
    path = folder / f"pictures-{seed}-{n}.npy"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        draft = path.with_suffix(".draft")
        pictures = np.lib.format.open_memmap(draft, mode="w+", dtype=np.uint8, shape=(n, SIDE_PX, SIDE_PX, 3))
        tasks = [(draft, seed, start, min(n, start + 1000)) for start in range(0, n, 1000)]
        with multiprocessing.get_context("spawn").Pool(processes) as pool:
            pool.map(_fill, tasks, chunksize=1)
        pictures.flush()
        draft.rename(path)
    pictures = np.load(path, mmap_mode="r")
    return np.asarray(pictures)


def normalised(pictures: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Pictures (n, 72, 72, 3) of 0 to 255 as CLIP takes them: (n, 3, 72, 72), float32."""
    mean, std = np.array(MEAN, dtype=np.float32), np.array(STD, dtype=np.float32)
    scaled = (pictures.astype(np.float32) / 255 - mean) / std
    return np.ascontiguousarray(scaled.transpose(0, 3, 1, 2))


def _fill(task: tuple[Path, int, int, int]) -> None:
    path, seed, start, stop = task
    pictures = np.lib.format.open_memmap(path, mode="r+")
    for number in range(start, stop):
        pictures[number] = training_picture(seed, number)
