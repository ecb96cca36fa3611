"""Jobs that a board started and did not live to see the end of, by the real command, and their page."""

import json
import shutil
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import expect

from spine.jobs import Job, Journal, list_jobs
from spine.run import Run
from tests.e2e.board_server import JOB_MS, Server, eventually, free_port
from tests.unit.ui.planted import Planted


@pytest.fixture
def server(demo_run: Run, tmp_path: Path) -> Iterator[Server]:
    folder = tmp_path / "run"
    shutil.copytree(demo_run.folder, folder)
    made = Server(Planted(Run(folder), [], []), free_port())
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
    assert done == {"select": "done", "caption": "done"} and not (run.jobs / "waiting.json").exists()


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
    expect(page.get_by_role("button", name="Retry what failed")).to_be_enabled()
    page.locator('.pf-failures[data-stage="embed pool"]').get_by_role("button", name="truncated").click()
    expect(page.locator(".pf-examples li").first).to_contain_text("truncated")
    assert str(run.folder.parent) not in page.locator(".pf-examples").inner_text()
    assert seen.errors == []
