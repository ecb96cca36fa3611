"""The demo captioner on drawn scenes: its captions belong to its pictures, and survive being killed."""

import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from captioner.captions import caption
from captioner.checkpoint import DEMO_FOLDER
from popfactory.demo_drawing import draw
from popfactory.demo_world import parse_caption, random_scene
from spine.config import write_config
from spine.manifest import MANIFEST, read_manifest, verify
from spine.prompts import CAPTION_PREFIX
from spine.run import Run, part_paths
from spine.settings import CaptionConfig, Config
from spine.table_files import read_parts
from spine.tables import CAPTIONS
from tests.unit.captioner.runs import picture_id, publish_images, publish_selection

SCENES = 40


@pytest.fixture(scope="module", autouse=True)
def demo_model():
    if not (DEMO_FOLDER / "model.safetensors").is_file():
        pytest.skip(f"{DEMO_FOLDER} is not there")


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    """Drawn scenes by the file they were saved in."""
    folder, rng = tmp_path_factory.mktemp("scenes"), np.random.default_rng(20_231_117)
    drawn = {folder / f"{number:03d}.jpg": random_scene(rng) for number in range(SCENES)}
    for number, (file, scene) in enumerate(drawn.items()):
        draw(scene, 768 + number, 900).save(file, quality=92)
    return drawn


def make_run(folder, files):
    run = Run(folder)
    folder.mkdir()
    # Two pictures a batch: many parts, so that a kill finds some written and some not.
    settings = CaptionConfig(model="demo", max_new_tokens=160, batch_size=2, device="cpu")
    write_config(run.config, Config(caption=settings))
    publish_images(run, files)
    publish_selection(run, files)
    return run


@pytest.fixture(scope="module")
def unbroken(scenes, tmp_path_factory):
    run = make_run(tmp_path_factory.mktemp("runs") / "unbroken", list(scenes))
    caption(run)
    return run


def rows(run):
    return read_parts(run.captions, CAPTIONS).to_pylist()


def test_every_drawn_scene_gets_a_caption_with_the_prefix_that_is_cut(unbroken):
    manifest = read_manifest(unbroken.captions)

    assert manifest.counts["captioned"] == SCENES and manifest.counts["failed"] == 0
    assert manifest.counts["prefix_missing"] == manifest.counts["truncated"] == 0
    assert manifest.facts["model"] == "demo-llava" and manifest.facts["demo_models"] is True
    for row in rows(unbroken):
        assert row["raw_caption"].strip().startswith(CAPTION_PREFIX)
        assert row["caption"] == row["raw_caption"].strip().removeprefix(CAPTION_PREFIX).strip()


def test_captions_stand_with_the_pictures_they_describe(unbroken, scenes):
    said = {row["id"]: parse_caption(row["raw_caption"].strip()) for row in rows(unbroken)}
    right = [
        said[picture_id(file)].background == scene.background
        for file, scene in scenes.items()
        if said[picture_id(file)] is not None
    ]

    # One of eight would be right if captions and pictures were mixed up.
    assert len(right) > SCENES * 0.8
    assert np.mean(right) > 0.8


def test_killed_and_started_again_it_leaves_the_rows_of_an_unbroken_run(unbroken, scenes, tmp_path):
    run = make_run(tmp_path / "killed", list(scenes))
    command = (
        "import sys; from pathlib import Path; from captioner.captions import caption; from spine.run import Run;"
        "caption(Run(Path(sys.argv[1])))"
    )
    for parts in (1, 2):
        process = subprocess.Popen(
            [sys.executable, "-c", command, str(run.folder)],
            env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
        )
        try:
            waited_until = time.monotonic() + 120
            while len(part_paths(run.captions)) < parts and process.poll() is None:
                assert time.monotonic() < waited_until, "no part was published"
                time.sleep(0.01)
            assert process.poll() is None, "it ended before it could be killed"
        finally:
            process.send_signal(signal.SIGKILL)
            process.wait()
        assert not (run.captions / MANIFEST).exists()

    caption(run)

    assert rows(run) == rows(unbroken)
    assert verify(run.captions) == []
    assert read_manifest(run.captions).files == read_manifest(unbroken.captions).files
