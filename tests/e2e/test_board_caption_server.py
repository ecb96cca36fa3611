"""Captions by the http engine, tried and launched from the Captions page, of a real caption server on this machine."""

import contextlib
import json
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import expect

from spine.config import load_config
from spine.jobs import list_jobs
from spine.table_files import read_parts
from spine.tables import CAPTIONS
from tests.e2e.board_server import JOB_MS, Server, eventually, free_port
from tests.unit.ui.planted import plant
from tests.unit.ui.planted_captions import selected


@pytest.fixture
def captioner(tmp_path: Path) -> Iterator[str]:
    """The address of `popfactory serve-captions demo`."""
    port = free_port()
    process = subprocess.Popen(
        [sys.executable, "-m", "popfactory", "serve-captions", "demo", "--port", str(port)],
        stdout=subprocess.DEVNULL,
        stderr=(tmp_path / "captioner.log").open("wb"),
    )
    address = f"http://127.0.0.1:{port}/v1"
    until = time.monotonic() + 90
    try:
        while _models(address) is None:
            assert process.poll() is None and time.monotonic() < until, "the caption server did not come up"
            time.sleep(0.2)
        yield address
    finally:
        process.kill()
        process.wait()


def _models(address: str) -> list[str] | None:
    with (
        contextlib.suppress(urllib.error.URLError, ConnectionError),
        urllib.request.urlopen(f"{address}/models", timeout=5) as reply,
    ):
        return [each["id"] for each in json.load(reply)["data"]]
    return None


@pytest.fixture
def board(tmp_path: Path) -> Iterator[Server]:
    made = Server(plant(tmp_path / "run"), free_port())
    made.start()
    yield made
    made.kill()


def test_a_caption_server_is_chosen_tried_estimated_and_asked_for_the_run(page, board, captioner, seen):
    run = board.planted.run
    (model,) = _models(captioner) or []
    page.goto(f"{board.address}/captions")
    form = page.get_by_label("Captioning", exact=True)
    form.get_by_label("Engine").select_option("http")
    form.get_by_label("Servers' addresses, one a line").fill(captioner)
    form.get_by_label("Model", exact=True).fill(model)
    form.get_by_role("button", name="Save to popfactory.toml").click()
    eventually(lambda: load_config(run.config).caption.endpoints == (captioner,), "the server was not saved")

    # Side by side, before anything is captioned.
    form.get_by_label("detail").uncheck()
    form.get_by_label("short").check()
    form.get_by_label("Pictures to try on").fill("2")
    form.get_by_role("button", name="Try").click()
    table = page.locator(".pf-cap-table")
    expect(table.locator("tbody tr")).to_have_count(2, timeout=JOB_MS)
    heads = table.locator("thead th").all_inner_texts()[1:]
    assert [head.split("\n")[0] for head in heads] == [f"{model} · laion-pop", f"{model} · short"]
    assert all(table.locator("tbody .pf-cap-text").all_inner_texts()) and not run.captions.exists()
    table.get_by_role("button", name="Use for the run").nth(1).click()
    eventually(lambda: load_config(run.config).caption.prompt == "short", "the prompt was not saved")
    page.keyboard.press("Escape")

    # A dry run, then the run.
    pictures = len(selected(board.planted))
    form.get_by_role("button", name="Estimate").click()
    expect(form.get_by_text(f"{pictures} of {pictures} would be asked")).to_be_visible(timeout=JOB_MS)
    assert not run.captions.exists()
    form.get_by_role("button", name="Caption", exact=True).click()
    expect(form.locator(".pf-job")).to_contain_text(f"{pictures} of {pictures} pictures", timeout=JOB_MS)
    expect(form.locator(".pf-job")).to_have_attribute("data-state", "done", timeout=JOB_MS)

    rows = read_parts(run.captions, CAPTIONS).to_pylist()
    assert {(row["engine"], row["model"], row["prompt_id"]) for row in rows} == {("http", model, "short")}
    assert {row["status"] for row in rows} == {"captioned"} and len(rows) == pictures
    assert [job.state for job in list_jobs(run)] == ["done", "done"]
    assert {url.split("/")[2] for url in seen.urls if url.startswith("http")} == {f"127.0.0.1:{board.port}"}
    assert seen.errors == []


def test_a_caption_server_that_is_not_there_is_told_on_the_page(page, board):
    run = board.planted.run
    gone = f"http://127.0.0.1:{free_port()}/v1"
    page.goto(f"{board.address}/captions")
    form = page.get_by_label("Captioning", exact=True)
    form.get_by_label("Engine").select_option("http")
    form.get_by_label("Servers' addresses, one a line").fill(gone)
    form.get_by_role("button", name="Save and caption").click()

    expect(form.locator(".pf-job .pf-bad")).to_contain_text(gone, timeout=JOB_MS)
    expect(form.locator(".pf-job")).to_have_attribute("data-state", "failed")
    assert not list(run.captions.glob("part-*"))
