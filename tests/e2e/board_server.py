"""The board over a planted run, by the real command, and what a browser saw of it."""

import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest
from playwright.sync_api import Locator, Page, expect

from curation.decisions import Decisions
from tests.unit.ui.planted import Planted

WAIT_MS = 20_000
JOB_MS = 90_000  # a stage as a process of its own, on a machine that does other things too

expect.set_options(timeout=WAIT_MS)


@dataclass
class Server:
    """`popfactory ui` over a planted run."""

    planted: Planted
    port: int
    process: "subprocess.Popen[bytes] | None" = None

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        run, beside = str(self.planted.run.folder), str(self.planted.run.folder.parent)
        self.process = subprocess.Popen(
            [sys.executable, "-m", "popfactory", "ui", run, "--port", str(self.port)],
            stdout=subprocess.DEVNULL,
            env=os.environ | {"TMPDIR": beside},  # what a killed one leaves is removed with the run
        )
        until = time.monotonic() + 90
        while time.monotonic() < until:
            try:
                with urllib.request.urlopen(f"{self.address}/api/run", timeout=5):
                    return
            except (urllib.error.URLError, ConnectionError, TimeoutError):
                assert self.process.poll() is None, "the board's server ended"
                time.sleep(0.2)
        pytest.fail("the board did not come up")

    def kill(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()

    def verdicts(self) -> dict[int, str]:
        """Number of each decided picture, and what counts for it now."""
        numbers = {picture: number for number, picture in enumerate(self.planted.ids)}
        images = Decisions.open(self.planted.run.decisions).fold().images
        return {numbers[picture]: verdict.action for picture, verdict in images.items()}

    def stored(self) -> list[tuple[str, list[int]]]:
        """Every event in order: action and numbers of its pictures."""
        numbers = {picture: number for number, picture in enumerate(self.planted.ids)}
        history = Decisions.open(self.planted.run.decisions).history()
        return [(event.action, sorted(numbers[int(each)] for each in event.ids)) for event in history]


@dataclass
class Seen:
    """What the browser asked for, and what went wrong in the page."""

    urls: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)

    def watch(self, page: Page) -> None:
        """Note what this page does from now on."""
        page.on("request", lambda request: self.urls.append(request.url))
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        page.on("console", lambda said: self.errors.append(said.text) if said.type == "error" else None)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def eventually(holds: Callable[[], bool], what: str) -> None:
    """Wait until it holds."""
    until = time.monotonic() + 20
    while not holds():
        assert time.monotonic() < until, what
        time.sleep(0.05)


def open_board(page: Page, server: Server, path: str = "/") -> None:
    page.goto(f"{server.address}{path}")
    expect(page.locator(".pf-tile").first).to_be_visible(timeout=WAIT_MS)


def tile(page: Page, server: Server, number: int) -> Locator:
    return page.locator(f'.pf-tile[data-id="{server.planted.ids[number]}"]')


def saved(page: Page) -> None:
    expect(page.locator(".pf-saving")).to_have_text("saved", timeout=WAIT_MS)
