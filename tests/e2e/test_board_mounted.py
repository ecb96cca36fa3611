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
        page.goto(f"{address}/ui/")
        expect(page.locator(".pf-tile").first).to_be_visible(timeout=WAIT_MS)
        page.keyboard.press("a")
        expect(page.locator(".pf-saving")).to_have_text("saved", timeout=WAIT_MS)
        page.get_by_role("link", name="Jobs").click()
        expect(page.get_by_role("button", name="release")).to_be_visible(timeout=WAIT_MS)
        assert page.url == f"{address}/ui/jobs"
        page.close()

    history = Decisions.open(planted.run.decisions).history()
    assert [(event.action, event.ids) for event in history] == [("keep", (planted.ids[0],))]
    assert errors == []


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
