"""A centroid of more neighbours than a page holds, decisions in bulk over it, and a server killed in the middle."""

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Page, expect

from benchmarks.planted_run import plant_run
from curation.decisions import Decisions
from spine.run import Run
from tests.e2e.board_server import Server, eventually, free_port, open_board, saved
from tests.unit.ui.planted import Planted

DEEP = 1_250
SHOW_ALL = "/?centroid=0&show=all&f=side_px:off&f=pwatermark:off"


@pytest.fixture(scope="module")
def deep_run(tmp_path_factory) -> Run:
    return plant_run(tmp_path_factory.mktemp("deep") / "run", 3, 40, deep=DEEP)


@pytest.fixture
def server(deep_run: Run) -> Iterator[Server]:
    for path in deep_run.decisions.parent.glob(f"{deep_run.decisions.name}*"):
        path.unlink()
    made = Server(Planted(deep_run, [], []), free_port())
    made.start()
    yield made
    made.kill()


def _ids(page: Page) -> list[int]:
    return [
        int(each)
        for each in page.locator(".pf-tile").evaluate_all("tiles => tiles.map((tile) => tile.dataset.id)")
    ]


def _history(server: Server) -> list[tuple[str, tuple[int | str, ...]]]:
    return [(event.action, event.ids) for event in Decisions.open(server.planted.run.decisions).history()]


def test_a_thousand_tiles_are_shown_by_two_hundreds_and_the_rest_on_the_next_page(page, server, seen):
    open_board(page, server, SHOW_ALL)
    tiles = page.locator(".pf-tile")
    for shown in (200, 400, 600, 800):
        expect(tiles).to_have_count(shown)
        page.get_by_role("button", name="Show more").click()
    expect(tiles).to_have_count(1_000)
    expect(page.get_by_role("button", name="Show more")).to_be_hidden()

    page.get_by_role("button", name="Next 1,000").click()

    expect(tiles).to_have_count(200)
    assert _ids(page) == list(range(1_000, 1_200))
    page.keyboard.press("End")
    expect(tiles).to_have_count(DEEP - 1_000)
    expect(tiles.last).to_have_class("pf-tile pf-ready pf-cursor")
    page.keyboard.press("a")
    saved(page)
    assert _history(server) == [("keep", (DEEP - 1,))]
    page.get_by_role("button", name="Previous 1,000").click()
    expect(tiles.first).to_have_attribute("data-id", "0")
    page.keyboard.press("Home")
    expect(page.locator(".pf-cursor")).to_have_attribute("data-id", "0")
    assert seen.errors == []


def test_a_bulk_decision_on_more_than_a_thousand_is_undone_as_one_after_a_reload_and_elsewhere(
    chromium: Browser, server: Server
):
    contexts = [chromium.new_context(viewport={"width": 1440, "height": 900}) for _ in range(2)]
    for context in contexts:
        context.add_init_script("localStorage.setItem('popfactory.curator', 'ada')")
    page = contexts[0].new_page()
    open_board(page, server, SHOW_ALL)
    page.keyboard.press("Shift+A")
    page.get_by_role("dialog").get_by_role("button", name=f"Keep {DEEP:,}").click()
    saved(page)
    assert [(action, len(ids)) for action, ids in _history(server)] == [("keep", DEEP)]

    page.reload()
    expect(page.locator(".pf-tile.pf-is-keep")).to_have_count(200)
    page.keyboard.press("u")
    expect(page.locator(".pf-tile.pf-is-keep")).to_have_count(0)
    saved(page)
    assert not Decisions.open(server.planted.run.decisions).fold().images

    page.keyboard.press("Shift+U")
    expect(page.locator(".pf-tile.pf-is-keep")).to_have_count(200)
    saved(page)
    elsewhere = contexts[1].new_page()
    open_board(elsewhere, server, SHOW_ALL)
    elsewhere.keyboard.press("u")
    saved(elsewhere)
    assert not Decisions.open(server.planted.run.decisions).fold().images
    expect(page.locator(".pf-tile.pf-is-keep")).to_have_count(0)  # the first browser hears of it
    for context in contexts:
        context.close()


def test_three_hundred_verdicts_with_the_server_killed_in_the_middle_are_all_stored_once_and_in_order(
    page, server
):
    open_board(page, server, SHOW_ALL)
    page.keyboard.press("Home")
    wanted = []
    for number in range(300):
        if number == 120:
            eventually(lambda: len(_history(server)) > 50, "the first were not stored")
            acknowledged = len(_history(server))
            server.kill()
            assert len(_history(server)) >= acknowledged  # what was stored is there after kill -9
        if number == 200:
            server.start()
        page.keyboard.press("r" if number % 3 == 0 else "a")
        wanted.append(("reject" if number % 3 == 0 else "keep", (number,)))
        page.wait_for_timeout(5)

    expect(page.locator(".pf-saving")).to_have_text("saved", timeout=60_000)

    assert _history(server) == wanted
