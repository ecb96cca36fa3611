"""The board inside another app, under a path of its own, and behind a token."""

import re
import threading
import time
from collections.abc import Iterator
from contextlib import asynccontextmanager, contextmanager

import pytest
import uvicorn
from fastapi import FastAPI
from playwright.sync_api import expect

from curation.decisions import Decisions
from tests.unit.ui.planted import Planted, plant
from tests.unit.ui.planted_captions import plant_captions
from ui.app import build_app
from ui.tokens import Token

WAIT_MS = 20_000


@pytest.fixture(scope="module")
def planted(tmp_path_factory) -> Planted:
    return plant(tmp_path_factory.mktemp("mounted") / "run")


@contextmanager
def _serving(app: FastAPI) -> Iterator[str]:
    server = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=0, log_level="error"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    until = time.monotonic() + 30
    while not server.started:
        assert time.monotonic() < until, "the server did not come up"
        time.sleep(0.05)
    yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    server.should_exit = True
    thread.join(timeout=20)


def test_the_board_works_under_a_path_of_another_app(planted, chromium):
    inner = build_app(planted.run, base="/ui")

    @asynccontextmanager
    async def lifespan(_: FastAPI):
        async with inner.router.lifespan_context(inner):
            yield

    outer = FastAPI(lifespan=lifespan)
    outer.mount("/ui", inner)
    with _serving(outer) as address:
        page = chromium.new_page()
        errors: list[str] = []
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on(
            "response", lambda reply: reply.status >= 400 and errors.append(f"{reply.status} {reply.url}")
        )
        page.goto(f"{address}/ui/")
        icon = page.locator('link[rel="icon"]').last.get_attribute("href")
        assert page.request.get(f"{address}{icon}").ok and icon.startswith("/ui/")
        expect(page.locator(".pf-tile").first).to_be_visible(timeout=WAIT_MS)
        page.keyboard.press("a")
        expect(page.locator(".pf-saving")).to_have_text("saved", timeout=WAIT_MS)
        page.get_by_role("link", name="Jobs").click()
        expect(page.get_by_role("button", name="Start", exact=True)).to_be_visible(timeout=WAIT_MS)
        assert page.url == f"{address}/ui/jobs"
        page.close()

    history = Decisions.open(planted.run.decisions).history()
    assert [(event.action, event.ids) for event in history] == [("keep", (planted.ids[0],))]
    assert errors == []


def test_who_may_only_read_can_look_at_every_page_and_start_or_change_nothing(tmp_path, chromium):
    planted = plant(tmp_path / "run")
    plant_captions(planted)
    tokens = [Token("ada", "write", "open sesame"), Token("eve", "read", "just looking")]
    with _serving(build_app(planted.run, tokens=tokens)) as address:
        page = chromium.new_page()
        page.goto(f"{address}/login")
        page.get_by_label("Token of this board").fill("just looking")
        page.get_by_role("button", name="Open").click()
        expect(page.locator(".pf-tile").first).to_be_visible(timeout=WAIT_MS)

        page.goto(f"{address}/captions")
        expect(page.locator(".pf-cap-here")).to_be_visible(timeout=WAIT_MS)
        for key in ("a", "r", "e", "u", "Shift+U", "Shift+A", "t"):
            page.keyboard.press(key)
            expect(page.get_by_role("alert")).to_contain_text("Your token reads only")
        expect(page.get_by_role("button", name="Caption", exact=True)).to_be_disabled()
        expect(page.get_by_label("Model", exact=True)).to_be_disabled()
        page.goto(f"{address}/jobs")
        expect(page.get_by_text("No job yet on this run.")).to_be_visible(timeout=WAIT_MS)
        page.get_by_label("Command").select_option("caption")
        expect(page.get_by_role("button", name="Start", exact=True)).to_be_disabled()
        page.goto(f"{address}/release")
        expect(page.get_by_role("button", name="Look and release…")).to_be_visible(timeout=WAIT_MS)
        expect(page.get_by_label("Licence")).to_be_disabled()
        page.get_by_role("button", name="Look and release…").click()
        expect(page.get_by_role("dialog").get_by_role("region", name="Card")).to_be_visible(timeout=WAIT_MS)
        expect(page.get_by_role("dialog").get_by_role("button", name="Publish")).to_be_disabled()
        page.goto(f"{address}/setup")
        expect(page.get_by_text("You came in as eve, who may look and change nothing.")).to_be_visible()
        expect(page.get_by_text("ada decides, starts jobs, changes settings")).to_be_visible()
        page.locator('details[data-table="filters"] summary').click()
        expect(page.get_by_label("[filters] min_side_px")).to_be_disabled()
        page.close()

    assert not planted.run.jobs.exists() and not planted.run.decisions.exists()


def test_with_a_token_the_board_opens_after_it_is_given(planted, chromium):
    with _serving(build_app(planted.run, tokens=[Token("ada", "write", "open sesame")])) as address:
        page = chromium.new_page()
        page.goto(f"{address}/")
        expect(page).to_have_url(f"{address}/login")
        page.get_by_label("Token of this board").fill("open barley")
        page.get_by_role("button", name="Open").click()
        expect(page.get_by_role("alert")).to_have_text("That is not the token.")

        page.get_by_label("Token of this board").fill("open sesame")
        page.get_by_role("button", name="Open").click()

        expect(page.locator(".pf-tile").first).to_be_visible(timeout=WAIT_MS)
        source = page.locator(".pf-tile img").first.get_attribute("src")
        assert re.fullmatch(r"/thumb/[0-9a-f]{64}\.webp", source)
        page.keyboard.press("a")
        expect(page.locator(".pf-saving")).to_have_text("saved", timeout=WAIT_MS)
        assert Decisions.open(planted.run.decisions).history()[-1].curator == "ada"
        page.close()
