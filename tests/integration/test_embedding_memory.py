"""Pictures are embedded as they come: the memory that takes is watched, and doesn't grow with their number."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from spine.config import write_config
from spine.manifest import read_manifest
from spine.run import Run
from spine.settings import ClipConfig, Config

N, SIDE = 2_000, 224
CROPS = N * SIDE * SIDE * 3  # 301 MB: the crops of all pictures, as bytes
ALLOWED = 170 * 10**6

WORK = """
import sys, threading
from pathlib import Path

from index_builder import embeddings
from spine.run import Run


def anonymous():
    status = dict(line.split(":") for line in Path("/proc/self/status").read_text().splitlines())
    return int(status["RssAnon"].split()[0]) * 1024


def watch():
    global peak
    while not done.wait(0.005):
        peak = max(peak, anonymous())


if __name__ == "__main__":
    embeddings.SHARD_INPUTS = 1_000
    embeddings.embed(Run(Path(sys.argv[1])), "concepts", sys.argv[2])  # what the model takes by itself
    before, peak, done = anonymous(), 0, threading.Event()
    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        embeddings.embed(Run(Path(sys.argv[1])), "pool", sys.argv[3])
    finally:
        done.set()
        watcher.join()
    print(peak - before)
"""


def small_model(folder):
    """A model that looks at pictures as large as CLIP's do, and at little in them; random weights."""
    from spine.torchvision_ops import declare_missing_operators

    declare_missing_operators()
    import open_clip
    from safetensors.torch import save_file

    config = {
        "embed_dim": 32,
        "vision_cfg": {"image_size": SIDE, "layers": 1, "width": 64, "patch_size": 32},
        "text_cfg": {"context_length": 8, "vocab_size": 49408, "width": 16, "heads": 1, "layers": 1},
    }
    folder.mkdir()
    state = {key: value.contiguous() for key, value in open_clip.CLIP(**config).state_dict().items()}
    save_file(state, folder / "open_clip_model.safetensors")
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": config, "preprocess_cfg": {}}))
    return folder


def write_pictures(folder, count):
    folder.mkdir()
    pixels = np.random.default_rng(0).integers(0, 256, (count, 6, 6, 3), dtype=np.uint8)
    for number in range(count):
        Image.fromarray(pixels[number]).save(folder / f"{number:05d}.png")
    return folder


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads Linux's /proc")
def test_embedding_needs_less_memory_than_its_pictures_take(tmp_path, root):
    run = Run(tmp_path / "run")
    run.folder.mkdir()
    model = f"local-dir:{small_model(tmp_path / 'model')}"
    clip = ClipConfig(model=model, pretrained="", device="cpu", precision="fp32", batch_size=32, workers=2)
    write_config(run.config, Config(clip=clip))
    sources = [write_pictures(tmp_path / "few", 40), write_pictures(tmp_path / "many", N)]
    script = tmp_path / "work.py"
    script.write_text(WORK)

    done = subprocess.run(
        [sys.executable, str(script), str(run.folder), *map(str, sources)],
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(root)},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        timeout=200,
    )

    assert int(done.stdout.split()[-1]) < ALLOWED < 0.6 * CROPS
    assert read_manifest(run.pool).counts["embedded"] == N
