"""What tests of every tier share: the folders, a real browser, and the marks that follow from the folder."""

import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, sync_playwright

# Test workers share the cores: an OpenMP thread that spins while it waits takes them from the others.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

# A shell starts what it runs in the background deaf to Ctrl-C, and so would be all that tests start and interrupt.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

ROOT = Path(__file__).resolve().parent.parent
TESTS = ROOT / "tests"
CHROMIUM_ARGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark each test with its tier: unit, integration or e2e."""
    for item in items:
        if item.path.is_relative_to(TESTS):
            item.add_marker(item.path.relative_to(TESTS).parts[0])


@pytest.fixture(scope="session")
def root() -> Path:
    """The project's root folder."""
    return ROOT


@pytest.fixture(scope="session")
def reference() -> Path:
    """LAION's scorer heads and a few photographs, kept beside the project and not in it."""
    folder = ROOT.parent / "shared" / "reference"
    if not folder.is_dir():
        pytest.skip(f"no reference data: {folder} does not exist")
    return folder


@pytest.fixture(scope="session")
def chromium_path() -> str:
    """The Chromium to test with. Where there is none: a failure under CI=true, else a skip."""
    for name in ("chromium", "chromium-browser", "google-chrome"):
        found = shutil.which(name)
        if found:
            return found
    missing = "Chromium is not installed; scripts/install_chromium.sh installs it"
    if os.environ.get("CI") == "true":
        pytest.fail(missing)
    pytest.skip(missing)


# Module scope: while Playwright's synchronous interface is up, asyncio.run() fails in the same thread, so
# it must not outlive the tests that want it.
@pytest.fixture(scope="module")
def chromium(chromium_path: str) -> Iterator[Browser]:
    """A real, headless Chromium; `chromium.new_page()` opens a page."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium_path, args=CHROMIUM_ARGS)
        yield browser
        browser.close()
