"""Runs made once for all that look at them."""

import fcntl
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from popfactory.demo_collection import draw_collection
from spine.run import Run
from tests.e2e.support import call

Command = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="session")
def popfactory() -> Command:
    """`popfactory("run", folder)` runs the real command and returns what it came to."""
    return call


def _once(folder: Path, make: Callable[[], None]) -> None:
    """Make a folder's content once, whichever of several test processes comes first."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder.parent / f"{folder.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        mark = folder.parent / f"{folder.name}.made"
        if not mark.exists():
            make()
            mark.touch()


def _shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    base = tmp_path_factory.getbasetemp()
    return base.parent if os.environ.get("PYTEST_XDIST_WORKER") else base


@pytest.fixture(scope="session")
def drawings(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small drawn collection: concepts/ and pool/."""
    folder = _shared(tmp_path_factory) / "drawings"
    _once(folder, lambda: draw_collection(folder, concepts=60, pool=240, workers=2) and None)
    return folder


@pytest.fixture(scope="session")
def demo_run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A finished small demo. Tests may read it; those that change a run make their own."""
    folder = _shared(tmp_path_factory) / "demo"

    def make() -> None:
        done = call("demo", folder, "--concepts", 60, "--pool", 240)
        assert done.returncode == 0, done.stderr
        (folder / "printed.txt").write_text(done.stdout)

    _once(folder, make)
    return Run(folder)
