"""Searches in words and pictures on the board that `popfactory serve --ui` brings, over a small demo."""

import json
import re
import shutil
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator

import pyarrow.compute as pc
import pytest
from playwright.sync_api import expect

from spine.run import Run
from tests.e2e.board_server import WAIT_MS, free_port
from ui.snapshot import Snapshot


@pytest.fixture(scope="module")
def own_run(demo_run: Run, tmp_path_factory) -> Run:
    """The demo's tables in a folder of their own, so that they may be changed; its pictures stay where they are."""
    folder = tmp_path_factory.mktemp("search") / "run"
    shutil.copytree(demo_run.folder, folder, ignore=shutil.ignore_patterns("drawings"))
    return Run(folder)


@pytest.fixture(scope="module")
def address(own_run: Run) -> Iterator[str]:
    port = free_port()
    command = [
        sys.executable,
        "-m",
        "popfactory",
        "serve",
        "--run",
        str(own_run.folder),
        "--ui",
        "--port",
        str(port),
    ]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    until = time.monotonic() + 90
    while True:
        assert process.poll() is None and time.monotonic() < until, "the server did not come up"
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/ui/api/run", timeout=5).close()
            break
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            time.sleep(0.2)
    yield f"http://127.0.0.1:{port}/ui"
    process.send_signal(signal.SIGINT)
    process.wait(timeout=60)


def _get(address: str) -> dict:
    with urllib.request.urlopen(address, timeout=30) as reply:
        return json.load(reply)


def test_words_rank_the_centroids_and_search_the_pool_with_pictures_not_yet_fetched(page, address):
    page.goto(f"{address}/")
    expect(page.locator(".pf-tile").first).to_be_visible(timeout=WAIT_MS)
    page.get_by_label("Search centroids").fill("blue circles")
    page.keyboard.press("Enter")
    ranking = _get(f"{address}/api/ranking?like=text:blue%20circles")
    listed = page.locator(".pf-centroid")
    expect(listed.first).to_have_attribute("data-centroid", ranking["centroids"][0], timeout=WAIT_MS)
    expect(page).to_have_url(re.compile("csort=meaning"))

    page.get_by_role("button", name="In the pool").click()
    expect(page.locator(".pf-centroid-title")).to_contain_text("blue circles")
    page.get_by_label("Which pictures to show").select_option("all")
    pending = page.locator(".pf-tile.pf-pending img").first
    expect(pending).to_be_visible(timeout=WAIT_MS)
    expect(pending).to_have_js_property("complete", True, timeout=WAIT_MS)
    assert pending.evaluate("img => img.naturalWidth") > 0
    assert re.search(r"/ui/preview/-?\d+\.blurred\.webp$", pending.get_attribute("src"))  # unscored: blurred

    other = page.context.new_page()  # the address alone shows the same
    other.goto(page.url)
    expect(other.locator(".pf-tile.pf-pending").first).to_be_visible(timeout=WAIT_MS)
    ids = "tiles => tiles.map((tile) => tile.dataset.id)"
    assert other.locator(".pf-tile").evaluate_all(ids) == page.locator(".pf-tile").evaluate_all(ids)


def test_pictures_like_one_are_found_and_the_picture_itself_is_the_nearest(page, address):
    page.goto(f"{address}/?show=selected")
    expect(page.locator(".pf-tile").first).to_be_visible(timeout=WAIT_MS)
    here = page.locator(".pf-tile.pf-cursor").get_attribute("data-id")
    page.keyboard.press("m")

    expect(page.locator(".pf-centroid-title")).to_contain_text("like the chosen picture")
    page.get_by_label("Which pictures to show").select_option("all")
    expect(page.locator(".pf-tile").first).to_have_attribute("data-id", here, timeout=WAIT_MS)
    page.keyboard.press("Escape")
    expect(page.get_by_role("button", name="Back to the centroid")).to_be_hidden()


def test_a_picture_of_ones_own_is_searched_for_by_its_bytes_alone(page, address, own_run):
    images = Snapshot(own_run).images().table
    row = images.filter(pc.equal(images.column("status"), "fetched")).slice(7, 1).to_pylist()[0]
    page.goto(f"{address}/")
    expect(page.get_by_role("button", name="Picture…")).to_be_enabled(timeout=WAIT_MS)

    page.locator('input[type="file"]').set_input_files(row["image_path"])

    expect(page.locator(".pf-centroid-title")).to_contain_text("like your picture", timeout=WAIT_MS)
    page.get_by_label("Which pictures to show").select_option("all")
    expect(page.locator(".pf-tile").first).to_be_visible(timeout=WAIT_MS)
    nearest = page.locator(".pf-tile").evaluate_all("tiles => tiles.map((tile) => tile.dataset.id)")
    assert str(row["id"]) in nearest[:5]  # beside it may stand copies of it


def test_a_search_becomes_a_centroid_of_the_curators_own(page, address, own_run):
    page.goto(f"{address}/?like=text:green+squares")
    expect(page.locator(".pf-tile").first).to_be_visible(timeout=WAIT_MS)
    page.get_by_role("button", name="Make it a concept").click()
    page.get_by_role("textbox", name="Name", exact=True).fill("squares of mine")
    page.keyboard.press("Enter")

    mine = page.locator(".pf-centroid", has_text="squares of mine")
    expect(mine).to_contain_text("added", timeout=WAIT_MS)
    expect(page.locator(".pf-strip .pf-job")).to_contain_text("done", timeout=120_000)
    expect(page.locator(".pf-tile.pf-ready").first).to_be_visible(timeout=60_000)
    (added,) = own_run.added.glob("concept-*.json")
    assert json.loads(added.read_text())["source"] == "green squares"
