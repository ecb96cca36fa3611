"""A run over http that is killed: what was answered is neither lost nor asked for again."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from captioner.captions import caption
from spine.config import write_config
from spine.manifest import verify
from spine.run import Run
from spine.settings import CaptionConfig, Config
from spine.table_files import read_parts
from spine.tables import CAPTIONS
from tests.unit.captioner.runs import picture_id, publish_images, publish_selection
from tests.unit.captioner.test_http import good, misbehaving  # noqa: F401

PICTURES, IN_FLIGHT, KILLED_AT = 80, 4, 50
COMMAND = (
    "import sys; from pathlib import Path; from captioner.captions import caption; from spine.run import Run;"
    "caption(Run(Path(sys.argv[1])))"
)


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    """Small pictures, no two alike."""
    draws = np.random.default_rng(7)
    files = [tmp_path / f"{number}.png" for number in range(PICTURES)]
    for file in files:
        Image.fromarray(draws.integers(0, 256, (12, 12, 3), dtype=np.uint8)).save(file)
    return files


def test_a_run_over_http_that_is_killed_asks_of_no_answered_picture_again(
    files,
    misbehaving,  # noqa: F811
    tmp_path,
):
    asked, lock, reached = Counter(), threading.Lock(), threading.Event()

    def script(body, _):
        with lock:
            asked[body["messages"][0]["content"][0]["image_url"]["url"]] += 1
            if asked.total() >= KILLED_AT:
                reached.set()
        time.sleep(0.01)
        return good()

    address, _ = misbehaving(script)
    run = Run(tmp_path / "run")
    run.folder.mkdir()
    settings = CaptionConfig(engine="http", model="tiny-llava", endpoints=(address,), in_flight=IN_FLIGHT)
    write_config(run.config, Config(caption=settings))
    publish_images(run, files)
    publish_selection(run, files)

    process = subprocess.Popen(
        [sys.executable, "-c", COMMAND, str(run.folder)],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
    )
    try:
        assert reached.wait(120), "too little was asked"
        assert process.poll() is None, "it ended before it could be killed"
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert not list(run.captions.glob("part-*")), "no part was published yet"
    caption(run)

    rows = read_parts(run.captions, CAPTIONS).to_pylist()
    assert sorted(row["id"] for row in rows) == sorted(picture_id(file) for file in files)
    assert {row["raw_caption"] for row in rows} == {"a star"} and verify(run.captions) == []
    assert len(asked) == PICTURES + 1, "each, and the blank one"
    assert asked.total() <= PICTURES + 1 + IN_FLIGHT, "what was under way at a kill alone is asked again"
