"""The Release page in a real browser, over a finished demo and the real release."""

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pyarrow.compute as pc
import pytest
from playwright.sync_api import expect

from spine.added_centroids import read_centroids
from spine.manifest import read_manifest
from spine.run import Run
from spine.table_files import read_table
from spine.tables import DATASET
from tests.e2e.board_server import JOB_MS, Server, eventually, free_port
from tests.integration.curation_runs import edit_caption
from tests.unit.ui.planted import Planted

HOSTILE = "<img src=x onerror='window.ran=1'>${window.ran=2}"


@pytest.fixture(scope="module")
def server(demo_run: Run, tmp_path_factory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("release") / "run"
    shutil.copytree(demo_run.folder, folder)
    made = Server(Planted(Run(folder), [], []), free_port())
    made.start()
    yield made
    made.kill()


def newest(server: Server) -> Path:
    return max(server.planted.run.releases.iterdir(), key=lambda folder: read_manifest(folder).created)


def test_the_page_tells_funnel_yield_and_samples_as_the_manifests_have_them(page, server, seen):
    run = server.planted.run
    page.goto(f"{server.address}/release")
    rows = page.locator(".pf-rel-list tbody tr")
    expect(rows).to_have_count(1)

    manifest = read_manifest(newest(server))
    released = manifest.counts["released"]
    expect(rows.first).to_contain_text(f"{newest(server).name}")
    expect(rows.first.locator(".pf-n").first).to_have_text(f"{released:,}")
    steps = page.locator(".pf-rel-funnel li")
    expect(steps.filter(has_text="fetched").last.locator("b")).to_have_text(
        f"{read_manifest(run.images).counts['fetched']:,}"
    )
    facts = read_manifest(run.selection).facts
    filled = facts["centroids"] - facts["centroids_short"]
    expect(page.locator(".pf-rel-yield")).to_contain_text(f"{filled} of {facts['centroids']} centroids")
    expect(page.locator(".pf-chart svg")).to_have_count(5)
    samples = page.locator(".pf-rel-sample")
    expect(samples).to_have_count(min(24, released))
    table = read_table(newest(server) / "dataset.parquet", DATASET)
    first = table.filter(pc.equal(table["id"], int(samples.first.get_attribute("data-id")))).to_pylist()[0]
    expect(samples.first.locator(".pf-rel-caption")).to_have_text(first["caption"])
    report = json.loads((newest(server) / "report.json").read_text())
    resemblance = page.get_by_role("region", name="Resemblance")
    for figures in report["sets"].values():
        expect(resemblance).to_contain_text(f"{figures['precision']:.3f}")
    assert report["sets"] or report["missing"]
    with page.expect_download() as download:
        page.get_by_role("link", name="dataset.parquet").click()
    assert Path(download.value.path()).read_bytes() == (newest(server) / "dataset.parquet").read_bytes()
    card = page.request.get(server.address + str(page.get_by_role("link", name="card").get_attribute("href")))
    assert (
        card.headers["content-type"].startswith("text/plain")
        and card.headers["x-content-type-options"] == "nosniff"
    )
    assert card.text() == (newest(server) / "README.md").read_text()
    assert {url.split("/")[2] for url in seen.urls if url.startswith("http")} == {f"127.0.0.1:{server.port}"}
    assert seen.errors == []


def test_an_edited_caption_and_a_taken_down_picture_make_the_next_release_and_the_comparison_says_so(
    page, server, seen
):
    run, first = server.planted.run, newest(server)
    rows = read_table(first / "dataset.parquet", DATASET).to_pylist()
    edited, taken = rows[0], rows[1]
    edit_caption(run, edited["caption_id"], HOSTILE)
    page.goto(f"{server.address}/release")
    expect(page.locator(".pf-rel-list tbody tr")).to_have_count(1)
    page.get_by_label("Licence").fill("CC0-1.0")
    page.get_by_role("button", name="Save, look and release…").click()
    dialog = page.get_by_role("dialog", name="What would be released")
    expect(dialog.locator("tr[data-kind]")).to_have_count(1)
    expect(dialog.locator("tr[data-kind]")).to_contain_text(str(edited["id"]))
    expect(dialog.locator(".pf-rel-sample")).to_have_count(min(20, len(rows)))
    expect(dialog.get_by_role("region", name="Card")).to_contain_text('license_name: "CC0-1.0"')
    expect(page).to_have_url(re.compile("draft=open"))
    assert len(list(run.releases.iterdir())) == 1
    page.keyboard.press("Escape")
    expect(dialog).to_have_count(0)
    expect(page).not_to_have_url(re.compile("draft="))
    page.get_by_role("button", name="Look and release…").click()
    dialog.get_by_role("button", name=f"Publish {first.name}+1").click()
    expect(page.locator(".pf-rel-list tbody tr")).to_have_count(2, timeout=JOB_MS)
    manifest = page.get_by_role("link", name="manifest.json").first.get_attribute("href")
    assert page.request.get(f"{server.address}{manifest}").json()["parameters"]["licence"] == "CC0-1.0"
    assert 'licence = "CC0-1.0"' in run.config.read_text()

    page.get_by_role("button", name="Compare").click()
    changes = page.locator("tr[data-kind]")
    expect(changes).to_have_count(1)
    expect(changes.first).to_contain_text(str(edited["id"]))
    expect(changes.first).to_contain_text("caption")
    fresh = page.context.new_page()
    fresh.goto(page.url)
    expect(fresh.locator("tr[data-kind]")).to_have_count(1)

    page.get_by_role("button", name="Check against the lists").click()
    expect(page.get_by_text("No row of any release is on a list.")).to_be_visible()
    (run.folder / "takedown.txt").write_text(f"{taken['id']}\n")
    config = run.config.read_text().replace("takedown = []", 'takedown = ["takedown.txt"]')
    run.config.write_text(config)
    page.get_by_role("button", name="Check against the lists").click()
    expect(page.get_by_text(f"{first.name}: 1, {newest(server).name}: 1")).to_be_visible()
    page.get_by_role("button", name="Look and release…").click()
    removed = page.get_by_role("dialog").locator('tr[data-kind="removed"]')
    expect(removed).to_contain_text("on a takedown list")
    page.get_by_role("dialog").get_by_role("button", name="Publish").click()
    expect(page.locator(".pf-rel-list tbody tr")).to_have_count(3, timeout=JOB_MS)
    eventually(lambda: read_manifest(newest(server)).counts.get("left_out_takedown") == 1, "the takedown")
    assert page.evaluate("window.ran") is None and seen.errors == []


def test_a_release_that_stands_already_is_not_published_again_and_the_address_opens_the_draft(page, server):
    page.goto(f"{server.address}/release?draft=open")
    dialog = page.get_by_role("dialog", name="What would be released")

    expect(dialog).to_contain_text("is this very release already: nothing would be published")
    expect(dialog.get_by_role("button", name="Publish")).to_be_disabled()


def test_the_map_counts_concepts_by_their_quota_and_a_click_opens_the_one_under_it(page, server):
    page.goto(f"{server.address}/release")
    facts = read_manifest(server.planted.run.selection).facts
    expect(page.locator(".pf-rel-legend li").first).to_be_visible()
    legend = page.locator(".pf-rel-legend li").all_inner_texts()

    assert sum(int(line.split()[0]) for line in legend) == facts["centroids"]
    assert (
        sum(int(line.split()[0]) for line in legend if "less" in line or "nothing" in line)
        == (facts["centroids_short"])
    )
    place = read_centroids(server.planted.run, ["centroid_id", "map_x", "map_y"]).to_pylist()[2]
    canvas = page.locator(".pf-rel-map")
    canvas.scroll_into_view_if_needed()
    box = canvas.bounding_box() or {}
    x, y = 8 + place["map_x"] * (box["width"] - 18), 8 + place["map_y"] * (box["height"] - 18)
    page.mouse.move(box["x"] + 1 + x, box["y"] + 1 + y)
    expect(page.locator(".pf-rel-said")).to_contain_text("centroid 2 has")
    page.mouse.click(box["x"] + 1 + x, box["y"] + 1 + y)
    expect(page).to_have_url(f"{server.address}/?centroid=2")


def test_an_unfinished_run_says_what_is_missing_and_a_stale_link_what_to_do(page, server, seen):
    run = server.planted.run
    (run.captions / "manifest.json").unlink()

    page.goto(f"{server.address}/release?release=gone-1.0")

    expect(page.get_by_text("Not finished yet: captions.")).to_be_visible()
    expect(page.get_by_role("button", name="Look and release…")).to_be_disabled()
    expect(page.get_by_role("alert")).to_contain_text("release gone-1.0 is not there any more")
