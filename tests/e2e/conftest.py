"""Runs made once for all that look at them."""

import fcntl
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page

from popfactory.demo_collection import draw_collection
from spine.run import Run
from tests.e2e.board_server import WAIT_MS, Seen, Server, free_port
from tests.e2e.support import call
from tests.unit.ui.planted import plant

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


@pytest.fixture(scope="module")
def server(tmp_path_factory) -> Iterator[Server]:
    made = Server(plant(tmp_path_factory.mktemp("board") / "run"), free_port())
    made.start()
    yield made
    made.kill()


@pytest.fixture
def fresh(server: Server) -> Server:
    """The server with no decision made yet."""
    decisions = server.planted.run.decisions
    if decisions.exists():
        server.kill()
        for path in decisions.parent.glob(f"{decisions.name}*"):
            path.unlink()
        server.start()
    return server


@pytest.fixture
def seen() -> Seen:
    return Seen()


@pytest.fixture
def page(chromium: Browser, seen: Seen) -> Iterator[Page]:
    context = chromium.new_context(viewport={"width": 1440, "height": 900})
    made = context.new_page()
    made.set_default_timeout(WAIT_MS)
    seen.watch(made)
    yield made
    context.close()
