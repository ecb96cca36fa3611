"""The Release page in a real browser, over a finished demo and the real release."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pyarrow.compute as pc
import pytest
from playwright.sync_api import expect

from spine.run import Run
from spine.stage import read_manifest
from spine.tables import DATASET, read_table
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
    page.get_by_role("button", name="Save and release").click()
    expect(page.locator(".pf-rel-list tbody tr")).to_have_count(2, timeout=JOB_MS)
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
    page.get_by_role("button", name="Release", exact=True).click()
    expect(page.locator(".pf-rel-list tbody tr")).to_have_count(3, timeout=JOB_MS)
    eventually(lambda: read_manifest(newest(server)).counts.get("left_out_takedown") == 1, "the takedown")
    assert page.evaluate("window.ran") is None and seen.errors == []


def test_an_unfinished_run_says_what_is_missing_and_a_stale_link_what_to_do(page, server, seen):
    run = server.planted.run
    (run.captions / "manifest.json").unlink()

    page.goto(f"{server.address}/release?release=gone-1.0")

    expect(page.get_by_text("Not finished yet: captions.")).to_be_visible()
    expect(page.get_by_role("button", name="Release", exact=True)).to_be_disabled()
    expect(page.get_by_role("alert")).to_contain_text("release gone-1.0 is not there any more")
