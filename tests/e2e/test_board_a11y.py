"""What axe-core finds on every page, light and dark, wide and narrow; and curating by keyboard alone."""

import re

import pytest
from axe_playwright_python.base import AXE_SCRIPT
from playwright.sync_api import Page, expect

from popfactory.settings_file import start_run
from spine.jobs import Journal
from spine.run import Run
from tests.e2e.board_server import WAIT_MS, Server, free_port, open_board, saved
from tests.unit.ui.planted import Planted
from tests.unit.ui.planted_captions import plant_captions

RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]


def _violations(page: Page) -> list[str]:
    found = []
    page.evaluate(AXE_SCRIPT)
    for theme in ("light", "dark"):
        page.evaluate(f"document.body.classList.toggle('dark', {str(theme == 'dark').lower()})")
        for width in (1680, 390):
            page.set_viewport_size({"width": width, "height": 900})
            result = page.evaluate(f"axe.run(document, {{runOnly: {RULES}}})")
            found += [
                f"{theme} {width}: {each['id']} {each['nodes'][0]['target']}" for each in result["violations"]
            ]
    page.set_viewport_size({"width": 1440, "height": 900})
    return found


def test_axe_finds_nothing_on_the_curate_page_its_drawers_and_its_dialogs(page, server):
    open_board(page, server, "/?show=all")
    page.keyboard.press("x")
    assert _violations(page) == []
    page.locator(".pf-own-panel summary").click()
    page.evaluate("document.body.classList.add('pf-show-left', 'pf-show-right')")
    assert _violations(page) == []
    page.evaluate("document.body.classList.remove('pf-show-left', 'pf-show-right')")
    for key in ("?", "Space"):
        page.locator(".pf-tile .pf-line").first.click()
        page.keyboard.press(key)
        expect(page.get_by_role("dialog")).to_be_visible()
        assert _violations(page) == [], key
        page.keyboard.press("Escape")
    page.keyboard.press("a")
    page.get_by_role("button", name="Caption kept here (").click()
    expect(page.get_by_role("dialog")).to_contain_text("without a caption by")
    page.get_by_text("its words").click()
    assert _violations(page) == []


def test_axe_finds_nothing_on_the_jobs_page(page, server):
    failed, done = (
        Journal(server.planted.run, ["fetch", "runs/a"]),
        Journal(server.planted.run, ["select", "runs/a"]),
    )
    failed.begin("fetch", 90, "pictures")
    failed.advance(60, {"not_found": 5})
    failed.say("a line")
    failed.close("failed", "the disk is full")
    done.close("done")
    page.goto(f"{server.address}/jobs?job={failed.job_id}")
    page.get_by_role("button", name="not found").click()
    expect(page.locator(".pf-examples li").first).to_contain_text("404")

    assert _violations(page) == []

    working = Journal(server.planted.run, ["retrieve", "runs/a"])
    working.begin("retrieve", 3, "centroids")
    page.goto(f"{server.address}/jobs?start=caption")
    expect(page.locator(".pf-sample img").first).to_be_visible()
    assert _violations(page) == []
    working.close("done")
    page.get_by_label("--force").check()
    page.get_by_role("button", name="Start", exact=True).click()
    expect(page.get_by_role("dialog", name="Start over?")).to_be_visible()
    assert _violations(page) == []


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_the_page_follows_the_systems_theme(chromium, server, theme):
    context = chromium.new_context(color_scheme=theme)
    page = context.new_page()
    open_board(page, server)

    back = page.locator(".pf-bar-top").evaluate("node => getComputedStyle(node).backgroundColor")
    red, green, blue = map(int, re.findall(r"\d+", back)[:3])
    assert (red + green + blue > 600) == (theme == "light")
    context.close()


def test_axe_finds_nothing_on_pages_of_an_empty_run_and_each_says_what_to_do(page, tmp_path):
    start_run(tmp_path / "run", demo_models=True)
    made = Server(Planted(Run(tmp_path / "run"), [], []), free_port())
    made.start()
    try:
        for path, said in (
            ("captions", "This run has nothing to caption yet: start “run” on the Jobs page"),
            ("jobs", "No job yet on this run."),
            ("release", "No stage is finished yet: start “run” on the Jobs page."),
            ("setup", "has not run yet"),
        ):
            page.goto(f"{made.address}/{path}")
            expect(page.get_by_text(said).first).to_be_visible()
            assert _violations(page) == [], path
    finally:
        made.kill()


def test_a_centroid_is_opened_filtered_and_decided_on_without_a_mouse(page, fresh):
    open_board(page, fresh)
    page.get_by_label("Search centroids").focus()
    page.keyboard.type("#2")
    page.keyboard.press("Tab")
    page.locator(".pf-list").focus()
    page.keyboard.press("ArrowDown")
    expect(page.locator('.pf-centroid[aria-selected="true"]')).to_have_attribute(
        "data-centroid", "2", timeout=WAIT_MS
    )
    expect(page.locator(".pf-tile").first).to_be_visible(
        timeout=WAIT_MS
    )  # no key decides before there are pictures
    slider = page.get_by_label("Aesthetic, at least, slider")
    slider.focus()
    before = int(page.locator(".pf-passed").inner_text())
    for _ in range(10):
        page.keyboard.press("ArrowRight")
    expect(page.locator(".pf-passed")).not_to_have_text(str(before))
    page.keyboard.press("a")  # from the slider: verdict keys work wherever the focus is

    saved(page)
    assert len(fresh.stored()) == 1 and fresh.stored()[0][0] == "keep"
    page.keyboard.press("Tab")
    page.keyboard.press("?")
    dialog = page.get_by_role("dialog", name="Keys")
    expect(dialog).to_be_visible()
    for _ in range(4):
        page.keyboard.press("Tab")
    assert page.evaluate(
        "document.querySelector('dialog').contains(document.activeElement) || document.activeElement === document.body"
    )
    page.keyboard.press("Escape")
    expect(dialog).to_be_hidden()
    assert page.evaluate("document.activeElement !== document.body")


def test_axe_finds_nothing_on_the_captions_release_and_setup_pages(page, server):
    plant_captions(server.planted)
    page.goto(f"{server.address}/captions")
    expect(page.locator(".pf-cap-here")).to_be_visible()
    for key in ("r", "e"):
        page.keyboard.press(key)
        page.wait_for_timeout(200)
        assert _violations(page) == [], key
    page.keyboard.press("Escape")
    page.evaluate("document.body.classList.add('pf-show-run')")
    assert _violations(page) == []
    page.goto(f"{server.address}/release")
    expect(page.locator(".pf-chart svg").first).to_be_visible()
    assert _violations(page) == []
    page.get_by_role("button", name="Look and release…").click()
    expect(page.get_by_role("dialog").get_by_role("region", name="Card")).to_be_visible()
    assert _violations(page) == []
    page.goto(f"{server.address}/setup")
    expect(page.locator(".pf-set-disk")).to_be_visible()
    for summary in page.locator(".pf-set-part summary, .pf-set-keys summary").all():
        summary.click()
    assert _violations(page) == []
