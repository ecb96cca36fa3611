"""The embed stage as a process of its own, killed with SIGKILL and started again."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from skimage import data

from index_builder.embeddings import embed
from spine.config import write_config
from spine.manifest import find_manifest, verify
from spine.run import Run
from spine.settings import ClipConfig, Config
from spine.shards import read_shards
from spine.table_files import read_parts
from spine.tables import METADATA, STATUSES

CLIP = ClipConfig(model="demo", pretrained="", device="cpu", batch_size=8, workers=2)

SCRIPT = """
import sys
from pathlib import Path

from index_builder import embeddings
from spine.run import Run

if __name__ == "__main__":
    embeddings.SHARD_INPUTS = 10
    embeddings.embed(Run(Path(sys.argv[1])), "pool", sys.argv[2])
"""


def new_run(folder):
    run = Run(folder)
    run.folder.mkdir()
    write_config(run.config, Config(clip=CLIP))
    return run


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """120 pictures, some of them broken or the same."""
    folder = tmp_path_factory.mktemp("source")
    generator = np.random.default_rng(4)
    for number in range(120):
        pixels = generator.integers(0, 256, (6, 8, 3), dtype=np.uint8)
        if number % 17 == 5:
            (folder / f"{number:03d}.png").write_bytes(b"broken")
        elif number % 13 == 6:
            (folder / f"{number:03d}.png").write_bytes((folder / "000.png").read_bytes())
        else:
            Image.fromarray(pixels).resize((400, 300)).save(folder / f"{number:03d}.png")
    return folder


def files_of(folder):
    return {
        path.relative_to(folder): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != "manifest.json"
    }


def start(script, run, source, root):
    environment = os.environ | {"PYTHONPATH": str(root), "EMBED_TEST": str(run.folder)}
    return subprocess.Popen([sys.executable, str(script), str(run.folder), str(source)], env=environment)


def left_over(mark):
    """Processes that inherited a mark in their environment and still live."""
    found = []
    for path in Path("/proc").glob("[0-9]*/environ"):
        try:
            if mark.encode() in path.read_bytes():
                found.append(path.parent.name)
        except OSError:
            continue
    return found


def test_killed_at_any_moment_it_goes_on_and_gives_the_same_files(tmp_path, source, root):
    script = tmp_path / "embed.py"
    script.write_text(SCRIPT)
    unbroken, broken = new_run(tmp_path / "unbroken"), new_run(tmp_path / "broken")
    assert start(script, unbroken, source, root).wait(300) == 0
    chance = random.Random(9)
    statuses = broken.pool / "statuses"

    for _ in range(2):
        process = start(script, broken, source, root)
        before = len(list(statuses.glob("part-*.parquet")))
        deadline = time.monotonic() + 240
        while len(list(statuses.glob("part-*.parquet"))) <= before and process.poll() is None:
            assert time.monotonic() < deadline
            time.sleep(0.005)
        time.sleep(chance.uniform(0, 0.05))
        process.send_signal(signal.SIGKILL)
        process.wait(60)
        while left_over(f"EMBED_TEST={broken.folder}"):  # its decoders end by themselves
            assert time.monotonic() < deadline
            time.sleep(0.05)
    assert process.returncode == -signal.SIGKILL
    assert start(script, broken, source, root).wait(300) == 0

    assert files_of(broken.pool) == files_of(unbroken.pool)
    assert find_manifest(broken.pool).digest == find_manifest(unbroken.pool).digest
    assert verify(broken.pool) == []


def test_real_photographs_are_embedded_whatever_their_kind(tmp_path, reference):
    run = new_run(tmp_path / "run")
    photographs = Path(data.__file__).parent

    bundled = embed(run, "concepts", str(photographs)).counts
    given = embed(run, "pool", str(reference / "images")).counts

    assert bundled["embedded"] >= 20
    assert bundled["inputs"] == bundled["embedded"] + bundled["duplicate"] + bundled["failed"]
    statuses = read_parts(run.concepts / "statuses", STATUSES).to_pylist()
    failed = {Path(row["input"]).name for row in statuses if row["status"] == "failed"}
    assert failed <= {"multipage_rgb.tif"}  # of a kind that Pillow does not open
    files = [path for path in (reference / "images").iterdir() if path.suffix in (".jpg", ".png")]
    assert given == {"inputs": len(files), "embedded": len(files), "duplicate": 0, "failed": 0}
    for vectors, rows in read_shards(run.pool, METADATA):
        for row in rows.to_pylist():
            assert (row["width"], row["height"]) == Image.open(row["image_path"]).size
        assert np.linalg.norm(vectors, axis=1) == pytest.approx(np.ones(len(vectors)), abs=1e-3)
