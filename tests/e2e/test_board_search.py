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

from spine.manifest import MANIFEST, read_manifest
from spine.publish import publish_table
from spine.run import Run, part_paths
from spine.stage import Stage
from spine.table_files import read_table
from spine.tables import NEIGHBOURS, SELECTION
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
    expect(page.locator(".pf-strip .pf-job b")).to_have_text("select", timeout=120_000)  # the last of four
    expect(page.locator(".pf-strip .pf-state")).to_have_text("done", timeout=120_000)
    expect(page.locator(".pf-tile.pf-ready").first).to_be_visible(timeout=60_000)
    (added,) = own_run.added.glob("concept-*.json")
    assert json.loads(added.read_text())["source"] == "green squares"


def test_setup_tells_how_fast_the_server_answered_by_its_own_histogram(page, address):
    root = address.removesuffix("/ui")
    page.goto(f"{address}/setup")
    expect(page.get_by_text("not known: no request to /knn-service since it started")).to_be_visible()
    asked = json.dumps({"text": "a star", "modality": "image", "num_images": 5}).encode()
    for _ in range(3):
        request = urllib.request.Request(f"{root}/knn-service", asked, {"Content-Type": "application/json"})
        urllib.request.urlopen(request, timeout=30).close()
    page.get_by_role("button", name="Look again").click()

    expect(page.get_by_text(re.compile(r"p50 [\d.]+ ms, p95 [\d.]+ ms of 3 answers"))).to_be_visible()
    told = _get(f"{address}/api/setup/server")["searches"]
    assert told["count"] == 3 and 0 < told["ms_p50"] <= told["ms_p95"]


def test_a_hit_that_no_centroid_has_is_kept_and_comes_in_with_the_next_fetch(page, address, own_run, seen):
    chosen = read_table(own_run.selection_table, SELECTION).to_pylist()
    picture = next(row["id"] for row in chosen if row["verdict"] == "selected")
    manifest = read_manifest(own_run.neighbours)
    for path in part_paths(own_run.neighbours):
        rows = read_table(path, NEIGHBOURS)
        publish_table(path, rows.filter(pc.not_equal(rows["id"], picture)))
    (own_run.neighbours / MANIFEST).unlink()
    stage = Stage("neighbours", own_run.neighbours, manifest.parameters, manifest.inputs, None)
    stage.finish(manifest.counts, manifest.facts)

    page.goto(f"{address}/?centroid=3&like=text:squares&show=all")
    hit = page.locator(f'.pf-tile[data-id="{picture}"]')
    hit.scroll_into_view_if_needed()
    hit.locator(".pf-foot, img").first.click()
    page.keyboard.press("a")
    expect(page.get_by_role("alert")).to_contain_text("at the next fetch a candidate of")
    page.keyboard.press("Escape")
    expect(page.get_by_role("button", name="Back to the centroid")).to_be_hidden()
    page.get_by_text("This centroid", exact=True).click()
    expect(page.locator(".pf-own-panel")).to_contain_text("1 more found by searches and kept")
    expect(hit).to_contain_text("found")
    page.get_by_role("button", name="Fetch now").click()

    expect(page.locator(".pf-strip .pf-job b")).to_have_text("select", timeout=120_000)
    expect(page.locator(".pf-strip .pf-state")).to_have_text("done", timeout=120_000)
    expect(hit).to_contain_text("selected", timeout=60_000)
    hit.locator("img").click()
    expect(page.locator(".pf-detail")).to_contain_text("found by a search for “squares”: selected")
    expect(page.get_by_role("button", name="Caption kept here (0)")).to_be_enabled()  # the demo described it
    (said,) = Snapshot(own_run).pool_rows({3}, [picture], ["caption"]).to_pylist()
    assert said["caption"]
    after = {row["id"]: row for row in read_table(own_run.selection_table, SELECTION).to_pylist()}
    row = after[picture]
    assert (row["centroid_id"], row["verdict"], row["rule"]) == (3, "selected", "person")
    assert seen.errors == []
