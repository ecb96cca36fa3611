"""The same captioning, launched by the command, from the board's page and in Python, with the true demo model."""

import time

import numpy as np
import pytest
from click.testing import CliRunner
from starlette.testclient import TestClient

from captioner.captions import caption
from popfactory.cli import cli
from popfactory.demo_drawing import draw
from popfactory.demo_world import random_scene
from spine.config import write_config
from spine.jobs import read_job
from spine.manifest import read_manifest
from spine.run import Run
from spine.settings import CaptionConfig, Config
from spine.table_files import read_parts
from spine.tables import CAPTIONS
from tests.unit.captioner.runs import publish_images, publish_selection
from ui.app import build_app
from ui.job_queue import is_active


@pytest.fixture
def make_run(tmp_path):
    """Makes runs of the same five drawn scenes, the last of them no picture at all."""
    rng, files = np.random.default_rng(7), [tmp_path / f"{number}.jpg" for number in range(5)]
    for file in files[:-1]:
        draw(random_scene(rng), 400, 300).save(file)
    files[-1].write_bytes(b"no picture")

    def make(name):
        run = Run(tmp_path / name)
        run.folder.mkdir()
        settings = CaptionConfig(model="demo", max_new_tokens=160, batch_size=2, device="cpu")
        write_config(run.config, Config(caption=settings))
        publish_images(run, files)
        publish_selection(run, files)
        return run

    return make


def by_command(run):
    result = CliRunner().invoke(cli, ["caption", str(run.folder), "--quiet"])
    assert result.exit_code == 0, (result.output, result.exception)


def by_page(run):
    with TestClient(build_app(run), base_url="http://127.0.0.1:7860") as board:
        answer = board.post("/api/captions/start", json={"kind": "run"}, headers={"x-popfactory": "1"}).json()
        waited_until = time.monotonic() + 120
        while is_active(job := read_job(run, answer["job"])):
            assert time.monotonic() < waited_until, "the job doesn't end"
            time.sleep(0.05)
    assert (job.state, job.done, job.total) == ("done", 5, 5), job.message


def test_command_page_and_python_leave_the_same_captions(make_run):
    runs = {launch: make_run(launch.__name__) for launch in (by_command, by_page, caption)}

    for launch, run in runs.items():
        launch(run)

    first, second, third = (read_parts(run.captions, CAPTIONS) for run in runs.values())
    assert first.equals(second) and first.equals(third)
    assert sorted(first["status"].to_pylist()) == ["captioned"] * 4 + ["failed"]
    first, second, third = (read_manifest(run.captions) for run in runs.values())
    assert first.counts == second.counts == third.counts
    assert first.parameters == second.parameters == third.parameters
