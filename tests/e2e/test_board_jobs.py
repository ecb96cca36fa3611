"""Jobs that a board started and did not live to see the end of, by the real command, and their page."""

import json
import shutil
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import expect

from curation.decisions import Decisions
from spine.jobs import Job, Journal, list_jobs
from spine.run import Run
from spine.table_files import read_parts, read_table
from spine.tables import CAPTIONS, SELECTION
from tests.e2e.board_server import JOB_MS, Server, eventually, free_port
from tests.unit.ui.planted import Planted, plant, state_of
from tests.unit.ui.planted_captions import plant_captions, selected


@pytest.fixture
def server(demo_run: Run, tmp_path: Path) -> Iterator[Server]:
    folder = tmp_path / "run"
    shutil.copytree(demo_run.folder, folder)
    made = Server(Planted(Run(folder), [], []), free_port())
    made.start()
    yield made
    made.kill()


@pytest.fixture
def planted(tmp_path: Path) -> Iterator[Server]:
    """A board on a planted run of its own."""
    made = Server(plant(tmp_path / "run"), free_port())
    made.start()
    yield made
    made.kill()


def post(server: Server, path: str, content: object) -> dict:
    request = urllib.request.Request(
        f"{server.address}{path}",
        data=json.dumps(content).encode(),
        headers={"Content-Type": "application/json", "X-Popfactory": "1"},
    )
    with urllib.request.urlopen(request, timeout=30) as reply:
        return dict(json.load(reply))


def newest(server: Server) -> dict[str, Job]:
    return {job.command[0]: job for job in reversed(list_jobs(server.planted.run))}


def test_caption_follows_select_although_the_board_was_killed_in_between(server, page):
    run = server.planted.run
    shutil.rmtree(run.captions)
    before = {job.job_id for job in list_jobs(run)}

    first = post(server, "/api/jobs", {"commands": ["select", "caption"]})["job"]
    server.kill()  # before select can have ended: its process is starting
    assert json.loads((run.jobs / "waiting.json").read_text())["then"] == ["caption"]
    eventually(lambda: newest(server)["select"].ended is not None, "select goes on without the board")
    assert {job.job_id for job in list_jobs(run)} - before == {first}  # nobody was there to start caption
    server.start()

    page.goto(f"{server.address}/jobs")
    expect(page.locator('.pf-job-row[data-state="done"]', has_text="caption")).to_be_visible(timeout=JOB_MS)
    done = {job.command[0]: job.state for job in list_jobs(run) if job.job_id not in before}
    assert done == {"select": "done", "caption": "done"}
    eventually(lambda: not (run.jobs / "waiting.json").exists(), "nothing waits any more")


def test_a_job_at_work_has_the_numbers_that_the_command_tells(server, popfactory):
    run = server.planted.run
    journal = Journal(run, ["fetch", str(run.folder)])
    journal.begin("fetch", 90, "pictures", done=10)
    time.sleep(0.6)  # the journal is written twice a second
    journal.advance(20, {"timeout": 2})

    with urllib.request.urlopen(f"{server.address}/api/jobs") as reply:
        shown = json.load(reply)["jobs"][0]
    told = json.loads(popfactory("status", run.folder, "--json").stdout)["jobs"][0]

    assert (shown["done"], shown["total"], shown["failures"]) == (30, 90, {"timeout": 2})
    assert shown["eta_s"] == pytest.approx(60 / shown["rate"])
    same = set(shown) & set(told) - {"command"}
    assert {"state", "stage", "done", "total", "failures"} <= same
    assert {name: shown[name] for name in same} == {name: told[name] for name in same}
    journal.close("done")


def test_every_job_of_the_run_can_be_seen_however_many_there_are(server, page):
    run = server.planted.run
    before = len(list(run.jobs.glob("*.jsonl")))  # that of the demo, and of other tests on the same run
    for number in range(105):
        Journal(run, [f"number-{number}"]).close("done")
    page.goto(f"{server.address}/jobs")
    rows = page.locator(".pf-job-row")
    expect(rows).to_have_count(100)

    page.get_by_role("button", name=f"{before + 5} older").click()

    expect(rows).to_have_count(before + 105)
    expect(rows.last).to_contain_text("demo")


def test_the_causes_of_every_stage_are_told_with_examples_and_what_failed_can_be_retried(server, page, seen):
    run = server.planted.run
    journal = Journal(run, ["run", str(run.folder)])
    journal.begin("embed pool", 240, "images")
    journal.advance(240, {"truncated": 2, "empty_file": 1})
    journal.begin("fetch", 90, "pictures")
    journal.advance(90, {"timeout": 7})
    journal.begin("score", 83, "images")
    journal.advance(83)
    journal.close("done")

    page.goto(f"{server.address}/jobs?job={journal.job_id}")

    tables = page.locator(".pf-failures")
    expect(tables).to_have_count(2)
    told = {
        table.get_attribute("data-stage"): table.locator("td:last-child").all_inner_texts()
        for table in tables.all()
    }
    assert told == {"embed pool": ["2", "1"], "fetch": ["7"]}
    expect(page.get_by_role("button", name="Retry the 7 that failed")).to_be_enabled()
    page.locator('.pf-failures[data-stage="embed pool"]').get_by_role("button", name="truncated").click()
    expect(page.locator(".pf-examples li").first).to_contain_text("truncated")
    assert str(run.folder.parent) not in page.locator(".pf-examples").inner_text()
    assert seen.errors == []


def test_a_command_is_started_with_the_options_that_were_chosen_and_the_line_says_so(page, planted, seen):
    run = planted.planted.run
    page.goto(f"{planted.address}/jobs")
    start, line = page.get_by_role("button", name="Start", exact=True), page.locator(".pf-start .pf-command")
    expect(line).to_have_text(f"popfactory run {run.folder}")
    page.get_by_label("Command").select_option("caption")
    page.get_by_label("--failed-only").check()
    page.get_by_label("--limit").fill("7")
    expect(line).to_have_text(f"popfactory caption {run.folder} --failed-only --limit 7")

    page.goto(page.url)  # the address is the view
    expect(line).to_have_text(f"popfactory caption {run.folder} --failed-only --limit 7")
    page.get_by_label("--failed-only").uncheck()
    page.get_by_role("button", name="Estimate").click()
    expect(page.get_by_text(f"7 of {len(selected(planted.planted))} would be asked")).to_be_visible(
        timeout=JOB_MS
    )
    start.click()

    expect(page.locator('.pf-job-row[data-state="done"]', has_text="caption")).to_be_visible(timeout=JOB_MS)
    job = list_jobs(run)[0]
    assert (job.command, job.done) == (["caption", str(run.folder), "--limit", "7"], 7)

    page.get_by_label("Command").select_option("select")
    page.get_by_label("--force").check()
    start.click()
    dialog = page.get_by_role("dialog", name="Start over?")
    expect(dialog).to_contain_text(f"popfactory select {run.folder} --force")
    page.keyboard.press("Escape")
    expect(dialog).to_have_count(0)
    assert len(list_jobs(run)) == 1
    start.click()
    dialog.get_by_role("button", name="Start over").click()
    expect(page.locator('.pf-job-row[data-state="done"]', has_text="select")).to_be_visible(timeout=JOB_MS)
    begun = (run.jobs / f"{list_jobs(run)[0].job_id}.jsonl").read_text().splitlines()[0]
    assert json.loads(begun)["command"] == ["select", str(run.folder), "--force"]
    assert seen.errors == []


def test_a_running_job_shows_the_newest_of_what_it_has_written(page, planted, seen):
    """fetch and caption as they are at work: their parts are there, their manifests not yet."""
    made = planted.planted
    run = made.run
    plant_captions(made)
    for folder in (run.images, run.scores):  # nothing is scored yet either, so all is blurred
        (folder / "manifest.json").rename(folder / "kept.json")
    journal = Journal(run, ["fetch", str(run.folder)])
    journal.begin("fetch", len(made.ids), "pictures")
    fetched = [number for number in range(len(made.ids)) if state_of(number) == "ready"]

    page.goto(f"{planted.address}/jobs")

    sample = page.locator(".pf-sample")
    expect(sample).to_have_count(6)
    newest = [str(made.ids[number]) for number in fetched[:-7:-1]]
    assert sample.evaluate_all("nodes => nodes.map((node) => node.dataset.id)") == newest
    expect(sample.first.locator(".pf-sample-said")).to_have_text("48 × 60 px, PNG")
    clear, covered = f"/preview/{newest[0]}.webp", f"/preview/{newest[0]}.blurred.webp"
    expect(sample.first.locator("img")).to_have_js_property("naturalWidth", 48)
    assert any(url.endswith(covered) for url in seen.urls)
    assert not any(url.endswith(clear) for url in seen.urls)
    sample.first.get_by_role("button", name="Reveal").click()
    expect(sample.first.locator(f'img[src$="{clear}"]')).to_have_js_property("naturalWidth", 48)

    for folder in (run.images, run.scores):
        (folder / "kept.json").rename(folder / "manifest.json")
    (run.captions / "manifest.json").unlink()
    journal.begin("caption", len(made.ids), "pictures")
    rows = read_parts(run.captions, CAPTIONS).to_pylist()[::-1]
    wanted = [(str(row["id"]), row["caption"]) for row in rows if row["status"] == "captioned"][:6]

    expect(sample.first).to_have_attribute("data-id", wanted[0][0])
    shown = sample.evaluate_all(
        "nodes => nodes.map((node) => [node.dataset.id, node.querySelector('.pf-sample-said').textContent])"
    )
    assert [tuple(each) for each in shown] == wanted
    page.goto(f"{planted.address}/")
    expect(page.locator(".pf-last-caption")).to_have_text(f"“{wanted[0][1]}”")
    journal.close("done")
    assert seen.errors == []


def test_what_failed_is_asked_again_from_the_page_and_nothing_else(page, planted, seen):
    """A picture can't be opened while captions are made; then it is mended, and asked again."""
    made = planted.planted
    number = selected(made)[3]
    picture = made.run.folder / "pictures" / f"{number:04d}.png"
    content = picture.read_bytes()
    picture.write_bytes(b"no picture")
    page.goto(f"{planted.address}/jobs?start=caption")
    page.get_by_role("button", name="Start", exact=True).click()
    row = page.locator('.pf-job-row[data-state="done"]')
    expect(row).to_be_visible(timeout=JOB_MS)
    expect(row).to_contain_text("1 failed")
    page.locator('.pf-failures[data-stage="caption"] button').click()
    expect(page.locator(".pf-examples li")).to_contain_text(str(made.ids[number]))

    picture.write_bytes(content)
    page.get_by_role("button", name="Retry the 1 that failed").click()

    expect(page.locator('.pf-job-row[data-state="done"]')).to_have_count(2, timeout=JOB_MS)
    job = list_jobs(made.run)[0]
    assert (job.command[0], job.command[2:], job.failures) == ("caption", ["--failed-only"], {})
    rows = {row["id"]: row["status"] for row in read_parts(made.run.captions, CAPTIONS).to_pylist()}
    assert rows[made.ids[number]] == "captioned" and set(rows.values()) == {"captioned"}
    assert seen.errors == []


def test_a_link_to_an_older_job_opens_it_and_one_to_none_says_so(server, page):
    run = server.planted.run
    first = Journal(run, ["the-first"])
    first.close("done")
    for number in range(105):
        Journal(run, [f"number-{number}"]).close("done")

    page.goto(f"{server.address}/jobs?job={first.job_id}")
    expect(page.locator(".pf-job-detail .pf-command")).to_have_text("popfactory the-first")

    page.goto(f"{server.address}/jobs?job=gone")
    expect(page.get_by_role("alert")).to_contain_text("Job gone of this address is not in the run")
    expect(page.locator(".pf-job-detail")).to_be_visible()


@pytest.mark.parametrize(
    ("where", "button"), [("jobs", "Start"), ("release", "Look and release…"), ("setup", "Look again")]
)
def test_with_its_server_stopped_every_page_says_how_to_start_it(server, page, where, button):
    page.goto(f"{server.address}/{where}")
    expect(page.get_by_role("button", name=button, exact=True)).to_be_enabled()
    page.wait_for_load_state("networkidle")
    server.kill()

    page.get_by_role("button", name=button, exact=True).click()

    expect(page.get_by_text("start it again with `popfactory ui RUN`").first).to_be_visible()


def test_a_part_of_the_throughput_is_dragged_over_and_stands_in_the_address(page, planted, seen):
    """1,000 s, with two entries a second: 10 units a second, but 40 from 400 to 500 s."""
    run = planted.planted.run
    job_id = "20260101T000000-abcdef"
    begun = {
        "time": 1e9,
        "event": "stage",
        "stage": "caption",
        "total": 20_000,
        "unit": "pictures",
        "done": 0,
    }
    entries = [
        {"time": 1e9, "event": "started", "command": ["caption", "run"], "pid": 1, "process_start": ""},
        begun,
    ]
    for step in range(1, 2_001):
        units = 20 if 400 < step / 2 <= 500 else 5
        entries.append({"time": 1e9 + step / 2, "event": "advance", "units": units, "failures": {}})
    entries.append({"time": 1e9 + 1_000, "event": "ended", "state": "done", "message": ""})
    run.jobs.mkdir(exist_ok=True)
    (run.jobs / f"{job_id}.jsonl").write_text("".join(json.dumps(entry) + "\n" for entry in entries))

    page.goto(f"{planted.address}/jobs?job={job_id}")
    graph, said = page.locator(".pf-graph"), page.locator(".pf-throughput figcaption")
    expect(said).to_contain_text("at most 40 pictures a second over 17 min")
    box = graph.bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + 0.6 * box["width"], box["y"] + 20)
    page.mouse.down()
    page.mouse.move(box["x"] + 0.7 * box["width"], box["y"] + 30, steps=3)
    page.mouse.up()

    expect(said).to_contain_text("at most 10 pictures a second over 2 min")
    drawn = graph.locator("polyline").get_attribute("points") or ""
    assert len(drawn.split()) > 150, "closer points than those of the whole"
    page.goto(page.url)
    expect(said).to_contain_text("at most 10 pictures a second over 2 min")
    assert "span=600" in page.url or "span=59" in page.url or "span=601" in page.url
    page.get_by_role("button", name="All of it").click()
    expect(said).to_contain_text("over 17 min")
    graph.focus()
    page.keyboard.press("+")
    expect(said).to_contain_text("over 8 min")
    page.keyboard.press("ArrowRight")
    expect(page.locator(".pf-graph-axis")).to_contain_text("after 6 min")
    page.keyboard.press("Escape")
    expect(said).to_contain_text("over 17 min")
    assert "span" not in page.url and seen.errors == []


def test_what_is_kept_of_the_open_centroid_is_captioned_from_there_and_nothing_else(server, page, seen):
    run = server.planted.run
    known = set(read_parts(run.captions, CAPTIONS)["id"].to_pylist())
    rows = read_table(run.selection_table, SELECTION).to_pylist()
    here = next(row for row in rows if row["rule"] == "quota" and row["id"] not in known)
    page.goto(f"{server.address}/?centroid={here['centroid_id']}")
    page.locator(f'.pf-tile[data-id="{here["id"]}"] img').click()
    page.keyboard.press("a")

    kept = page.get_by_role("button", name="Caption kept here (1)")
    expect(kept).to_be_enabled()
    kept.click()
    dialog = page.get_by_role("dialog", name="Caption what is kept here")
    expect(dialog).to_contain_text("1 kept here, 1 of them without a caption by laion-pop")
    expect(dialog).to_contain_text("as the last captioning here")
    dialog.get_by_role("button", name="Caption", exact=True).click()

    expect(page.locator(".pf-strip .pf-job b")).to_have_text("caption", timeout=JOB_MS)
    expect(page.locator(".pf-strip .pf-state")).to_have_text("done", timeout=JOB_MS)
    expect(page.get_by_role("button", name="Caption kept here (0)")).to_be_enabled()
    job = newest(server)["caption"]
    assert job.command[2:] == ["--kept-in", str(here["centroid_id"])]
    assert set(read_parts(run.captions, CAPTIONS)["id"].to_pylist()) == known | {here["id"]}
    assert Decisions.open(run.decisions).fold().images[here["id"]].action == "keep"
    assert seen.errors == []


def test_a_job_that_was_stopped_is_gone_on_with_in_the_strip_of_curate(page, planted, seen):
    run = planted.planted.run
    journal = Journal(run, ["select", str(run.folder)])
    journal.begin("select", 90, "candidates")
    journal.close("cancelled")
    page.goto(f"{planted.address}/")

    strip = page.locator(".pf-strip")
    expect(strip.locator(".pf-state")).to_have_text("cancelled")
    strip.get_by_role("button", name="Resume").click()

    expect(strip.locator(".pf-state")).not_to_have_text("cancelled")
    eventually(lambda: len(list_jobs(run)) == 2, "nothing was started")
    (again,) = [job for job in list_jobs(run) if job.state != "cancelled"]
    assert again.command[0] == "select" and seen.errors == []
