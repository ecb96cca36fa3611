"""Take the pictures of the board for docs/curating.md: python scripts/photograph_board.py RUN --at /data.

RUN is a finished demo (`popfactory demo RUN`). It is copied, so that what is decided for the pictures stays out of
it; the real server and board are started on the copy, and a Chromium does what the document tells. The copy lies in
a temporary folder, or where --at says: Setup shows its path.
"""

import argparse
import contextlib
import io
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

from PIL import Image
from playwright.sync_api import Browser, Page, sync_playwright

IMAGES = Path(__file__).resolve().parent.parent / "docs" / "images"
MOST_BYTES = 150_000


def main() -> None:
    """Take every picture."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path)
    parser.add_argument("scenes", nargs="*", default=[*SCENES], help="those to take; all without any")
    parser.add_argument("--at", type=Path, help="a folder that is not there yet, for the copy")
    arguments = parser.parse_args()
    given = arguments.run
    with _room(arguments.at) as folder:
        run = Path("runs") / given.resolve().name  # relative, so that no picture shows where it was taken
        shutil.copytree(
            given, folder / run, ignore=shutil.ignore_patterns("drawings", "thumbnails", "decisions.sqlite*")
        )
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        command = [
            sys.executable,
            "-m",
            "popfactory",
            "serve",
            "--run",
            str(run),
            "--ui",
            "--port",
            str(port),
        ]
        server = subprocess.Popen(command, stdout=subprocess.DEVNULL, cwd=folder)
        try:
            address = f"http://127.0.0.1:{port}/ui"
            _wait(address)
            with sync_playwright() as playwright:
                browser = playwright.chromium.launch(
                    executable_path=shutil.which("chromium"), args=["--no-sandbox"]
                )
                for name in arguments.scenes:
                    SCENES[name](Camera(browser, address, name))
                browser.close()
        finally:
            server.send_signal(signal.SIGINT)
            server.wait()


@contextlib.contextmanager
def _room(at: Path | None) -> Iterator[Path]:
    """A folder that goes when the block ends."""
    if at is None:
        with tempfile.TemporaryDirectory() as name:
            yield Path(name)
        return
    at.mkdir()
    try:
        yield at
    finally:
        shutil.rmtree(at)


class Camera:
    """One picture: a page of its own, and where it goes."""

    def __init__(self, browser: Browser, address: str, name: str) -> None:
        self._browser, self._address, self._name = browser, address, name

    def open(
        self, path: str, *, theme: str = "light", size: tuple[int, int] = (1440, 900), curator: str = "ada"
    ) -> Page:
        """The board at a path, once its pictures are there."""
        context = self._browser.new_context(
            viewport={"width": size[0], "height": size[1]},
            color_scheme="dark" if theme == "dark" else "light",
        )
        context.add_init_script(f"localStorage.setItem('popfactory.curator', '{curator}')")
        page = context.new_page()
        page.goto(f"{self._address}{path}")
        page.wait_for_selector(".pf-tile, .pf-page, .pf-cap-page")
        self._settle(page)
        return page

    def take(self, page: Page) -> None:
        """Photograph the page as it is."""
        self._settle(page)
        picture = Image.open(io.BytesIO(page.screenshot()))
        page.context.close()
        for quality in (88, 80, 70, 60, 50):
            kept = io.BytesIO()
            picture.save(kept, "WEBP", quality=quality, method=6)
            if kept.tell() <= MOST_BYTES:
                break
        path = IMAGES / f"{self._name}.webp"
        path.write_bytes(kept.getvalue())
        print(f"{path.name}: {picture.width} x {picture.height}, {kept.tell() // 1000} kB, quality {quality}")

    def _settle(self, page: Page) -> None:
        page.wait_for_load_state("networkidle")
        page.wait_for_timeout(900)


def _press(page: Page, keys: str) -> None:
    for key in keys.split():
        page.keyboard.press(key)
        page.wait_for_timeout(60)


def curating(camera: Camera) -> None:
    """A centroid in work."""
    page = camera.open("/?centroid=1")
    _press(page, "a a r a q a x k x k k")
    camera.take(page)


def looking(camera: Camera) -> None:
    """One picture large, in the dark."""
    page = camera.open("/?centroid=4", theme="dark")
    _press(page, "k Space")
    page.wait_for_timeout(1500)
    camera.take(page)


def duplicates(camera: Camera) -> None:
    """Near-duplicates side by side."""
    page = camera.open("/?centroid=0&show=duplicates")
    _press(page, "g")
    camera.take(page)


def searching(camera: Camera) -> None:
    """A search in the pool, with pictures that nobody fetched."""
    page = camera.open("/?centroid=2&like=text:yellow+stars&show=all", theme="dark")
    page.wait_for_timeout(6000)
    _press(page, "b")
    page.wait_for_timeout(4000)
    camera.take(page)


def mapping(camera: Camera) -> None:
    """The map, large, with a lasso around some."""
    page = camera.open("/?centroid=5&lasso=0.05,0.45;0.05,0.95;0.45,0.95;0.5,0.6")
    page.get_by_role("button", name="Large").click()
    camera.take(page)


def jobs(camera: Camera) -> None:
    """The jobs of the run."""
    page = camera.open("/jobs")
    page.get_by_label("Command").select_option("select")
    page.get_by_role("button", name="Start", exact=True).click()
    page.wait_for_selector('.pf-job-row[data-state="done"] >> text=select', timeout=60_000)
    page.wait_for_timeout(1500)
    page.locator(".pf-job-row").last.click()
    page.get_by_label("Command").select_option("caption")
    camera.take(page)


def phone(camera: Camera) -> None:
    """The same on a phone."""
    page = camera.open("/?centroid=3", size=(390, 844))
    _press(page, "a r a")
    camera.take(page)


def captions(camera: Camera) -> None:
    """Captions: one kept, one edited, one asked again of another prompt."""
    page = camera.open("/captions?sort=-words")
    page.wait_for_selector(".pf-cap")
    _press(page, "a t")
    page.get_by_role("dialog").get_by_label("Prompt").select_option("short")
    page.get_by_role("button", name="Ask", exact=True).click()
    page.wait_for_selector(".pf-cap-number", timeout=120_000)
    camera.take(page)


def trying(camera: Camera) -> None:
    """Two prompts tried on a few pictures, in the dark."""
    page = camera.open("/captions", theme="dark")
    page.wait_for_selector(".pf-cap")
    page.get_by_label("detail").uncheck()
    page.get_by_label("short").check()
    page.get_by_role("button", name="Try", exact=True).click()
    page.wait_for_selector(".pf-cap-table tbody tr", timeout=120_000)
    camera.take(page)


def releasing(camera: Camera) -> None:
    """What would be released, and what was."""
    page = camera.open("/release")
    page.wait_for_selector(".pf-rel-sample")
    camera.take(page)


def drafting(camera: Camera) -> None:
    """What would be published, once a curator has taken a picture out and written a caption."""
    page = camera.open("/captions?sort=-words")
    page.wait_for_selector(".pf-cap")
    _press(page, "ArrowDown e")
    page.locator(".pf-cap-edit").fill("Blue and cyan shapes on a navy ground of dots.")
    _press(page, "Control+Enter ArrowDown r")
    page.wait_for_selector('.pf-saving:has-text("saved")')
    page.goto(page.url.split("/captions")[0] + "/release?draft=open")
    page.wait_for_selector(".pf-rel-card")
    camera.take(page)


def setting_up(camera: Camera) -> None:
    """Servers, index, models, lists."""
    page = camera.open("/setup")
    page.wait_for_selector(".pf-set-disk")
    camera.take(page)


SCENES: dict[str, Callable[[Camera], None]] = {
    "curating": curating,
    "looking-dark": looking,
    "duplicates": duplicates,
    "searching-dark": searching,
    "map": mapping,
    "jobs": jobs,
    "phone": phone,
    "captions": captions,
    "trying-dark": trying,
    "release": releasing,
    "draft": drafting,
    "setup": setting_up,
}


def _wait(address: str) -> None:
    for _ in range(300):
        try:
            urllib.request.urlopen(f"{address}/api/run", timeout=5).close()
            return
        except OSError:
            time.sleep(0.3)
    raise SystemExit("the board did not come up")


if __name__ == "__main__":
    main()
