"""Every key of the grid that the other tests don't press, the map under the mouse, and hostile texts on Jobs."""

import json
import re

import pyarrow as pa
from playwright.sync_api import Page, expect

from curation.decisions import Decisions
from spine.jobs import Journal
from spine.publish import publish_table
from spine.run import part_paths
from spine.table_files import read_table
from spine.tables import CAPTIONS
from tests.e2e.board_server import Server, free_port, open_board, saved, tile
from tests.unit.ui.planted import EACH, HOSTILE, SHOWN, plant, state_of
from tests.unit.ui.planted_captions import plant_captions

PASSING = [
    number for number in range(EACH) if state_of(number) == "ready" and number % 5 != 4 and number % 6 != 2
]


def _cursor(page: Page) -> int:
    """Place of the cursor among the tiles."""
    return int(
        page.locator(".pf-tile").evaluate_all(
            "tiles => tiles.findIndex((tile) => tile.classList.contains('pf-cursor'))"
        )
    )


def test_every_key_that_moves_moves_the_cursor_and_decides_nothing(page, fresh):
    open_board(page, fresh)
    last = page.locator(".pf-tile").count() - 1
    columns = page.locator(".pf-tile").evaluate_all(
        "tiles => tiles.filter((tile) => tile.offsetTop === tiles[0].offsetTop).length"
    )
    steps = {
        "k": 1,
        "ArrowRight": 2,
        "j": 1,
        "ArrowLeft": 0,
        "ArrowDown": columns,
        "ArrowUp": 0,
        "End": last,
        "Home": 0,
    }
    for key, place in steps.items():
        page.keyboard.press(key)
        assert _cursor(page) == place, key
    page.keyboard.press("PageDown")
    assert _cursor(page) > 0
    page.keyboard.press("PageUp")
    assert _cursor(page) == 0
    assert fresh.stored() == []


def test_a_verdict_is_cleared_redone_and_given_by_every_key_that_means_it(page, fresh):
    open_board(page, fresh)
    first = tile(page, fresh, PASSING[0])
    for key, mark in (("p", "keep"), ("Home", "keep"), ("0", None), ("u", "keep"), ("Shift+U", None)):
        page.keyboard.press(key)
        if mark:
            expect(first).to_have_class(re.compile(f"pf-is-{mark}"))
        else:
            expect(first).not_to_have_class(re.compile("pf-is-"))
    page.keyboard.press("Home")
    page.keyboard.press("Delete")
    expect(first).to_have_class(re.compile("pf-is-reject"))
    page.keyboard.press("Control+z")
    expect(first).not_to_have_class(re.compile("pf-is-"))
    page.keyboard.press("Control+Shift+Z")
    expect(first).to_have_class(re.compile("pf-is-reject"))
    saved(page)
    assert fresh.verdicts() == {PASSING[0]: "reject"}


def test_the_best_of_a_group_is_kept_and_the_previous_centroid_opened_by_one_key_each(page, fresh):
    open_board(page, fresh, "/?centroid=0&show=all&f=pwatermark:off")
    tile(page, fresh, 1).locator(".pf-line").click()
    page.keyboard.press("Shift+G")
    saved(page)
    assert fresh.stored() == [("reject", [1])]  # of equal size, the more aesthetic stays

    page.keyboard.press("n")
    expect(page).to_have_url(re.compile("centroid=1"))
    page.keyboard.press("Shift+N")
    expect(page).to_have_url(re.compile("centroid=0"))


def test_more_of_a_centroids_neighbours_are_asked_for_and_the_view_to_start_with_is_opened(page, fresh):
    open_board(page, fresh, "/?centroid=2&sort=aesthetic")
    page.locator(".pf-own-panel summary").click()
    page.get_by_role("button", name="Fetch 2 more").click()
    saved(page)
    refills = Decisions.open(fresh.planted.run.decisions).fold().refills
    assert {number: each.value for number, each in refills.items()} == {2: EACH}
    expect(page.get_by_role("button", name="Fetch now")).to_be_visible()

    page.get_by_label("Name of this view").fill("mine")
    page.get_by_role("button", name="Save", exact=True).click()
    page.get_by_role("button", name="start here").click()
    expect(page.get_by_role("button", name="starts here")).to_be_visible()
    open_board(page, fresh, "/")
    expect(page.locator('.pf-centroid[aria-selected="true"]')).to_have_attribute("data-centroid", "2")
    expect(page.get_by_label("Order of pictures")).to_have_value("aesthetic")


def test_the_map_is_coloured_zoomed_and_clicked(page, fresh):
    open_board(page, fresh, "/?centroid=1")
    canvas = page.locator(".pf-map-canvas")
    page.wait_for_timeout(600)  # the ring around the open centroid is drawn last
    look = "node => node.toDataURL()"
    seen = {canvas.evaluate(look)}
    for colours in ("yield", "aesthetic", "people"):
        page.get_by_label("Colours of the map").select_option(colours)
        seen.add(canvas.evaluate(look))
    assert len(seen) >= 3  # of three alike some colours are the same
    before = canvas.evaluate(look)
    box = canvas.bounding_box()
    page.mouse.move(box["x"] + 20, box["y"] + 20)
    page.mouse.wheel(0, -400)
    page.wait_for_function(
        "([node, before]) => node.toDataURL() !== before", arg=[canvas.element_handle(), before]
    )
    page.get_by_role("button", name="All", exact=True).first.click()
    canvas.click(position={"x": box["width"] / 2, "y": box["height"] / 2})  # where all three lie
    expect(page.locator('.pf-centroid[aria-selected="true"]')).to_have_count(1)


def test_hostile_text_in_a_job_and_in_what_it_wrote_stays_text(page, tmp_path, seen):
    planted = plant(tmp_path / "run")
    plant_captions(planted)
    run = planted.run
    path = part_paths(run.captions)[-1]
    rows = read_table(path, CAPTIONS).to_pylist()
    rows[-1] |= {"status": "captioned", "caption": HOSTILE}
    publish_table(path, pa.Table.from_pylist(rows, schema=CAPTIONS))
    journal = Journal(run, ["caption", HOSTILE])
    journal.begin("caption", 5, HOSTILE)
    journal.advance(1, {HOSTILE: 1})
    journal.say(HOSTILE)
    board = Server(planted, free_port())
    board.start()
    try:
        page.goto(f"{board.address}/jobs?start={json.dumps(HOSTILE)}")
        expect(page.locator(".pf-sample-said").first).to_have_text(SHOWN)
        expect(page.locator(".pf-log")).to_have_text(SHOWN)
        expect(page.locator(".pf-job-detail .pf-command")).to_contain_text(SHOWN[:30])
        expect(page.locator(".pf-failures button")).to_have_text(SHOWN)
        page.locator(".pf-failures button").click()
        expect(page.get_by_text("no examples are kept of this stage")).to_be_visible()
        journal.close("failed", HOSTILE)
        expect(page.locator(".pf-job-detail .pf-bad")).to_have_text(SHOWN)
        expect(page.get_by_label("Command")).to_have_value("run")
        assert page.evaluate("window.ran") is None and seen.errors == []
    finally:
        board.kill()


def test_on_a_narrow_screen_drawers_are_opened_walked_and_closed_by_keys(page, server):
    page.set_viewport_size({"width": 390, "height": 844})
    open_board(page, server)
    for name, part in (("Centroids", "centroids"), ("Filters", "side")):
        opener, drawer = (
            page.get_by_role("button", name=name, exact=True),
            page.locator(f'[data-part="{part}"]'),
        )
        opener.focus()
        page.keyboard.press("Enter")
        expect(drawer).to_be_focused()
        expect(drawer).to_be_in_viewport(ratio=0.9)
        page.keyboard.press("Tab")
        assert drawer.evaluate("node => node.contains(document.activeElement)")

        drawer.focus()
        page.keyboard.press("Escape")
        expect(opener).to_be_focused()
        expect(drawer).not_to_be_in_viewport()

    page.get_by_role("button", name="Centroids", exact=True).click()
    page.mouse.click(370, 500)  # beside it
    expect(page.locator('[data-part="centroids"]')).not_to_be_in_viewport()


def test_the_large_picture_has_its_verdicts_as_buttons(page, fresh):
    open_board(page, fresh)
    page.keyboard.press("Space")
    dialog = page.get_by_role("dialog", name="Picture")
    expect(dialog.get_by_role("button", name="Close")).to_be_focused()
    dialog.get_by_role("button", name="Keep").click()
    dialog.get_by_role("button", name="Reject").click()
    page.keyboard.press("Escape")

    saved(page)
    assert fresh.stored() == [("keep", [PASSING[0]]), ("reject", [PASSING[1]])]


def test_keys_are_listed_changed_and_refused_where_they_are_taken_and_curate_goes_by_them(page, server, seen):
    page.goto(f"{server.address}/setup")
    curate = page.locator('details[data-keys="curate"]')
    expect(curate.locator("summary")).to_have_text("Curate: the usual keys")
    page.get_by_role("button", name="Change the keys of Curate").click()
    dialog = page.get_by_role("dialog", name="Keys")
    dialog.get_by_role("button", name="Q", exact=True).click()
    page.keyboard.press("r")
    expect(dialog.get_by_role("status")).to_contain_text("R is taken: reject them")
    dialog.get_by_role("button", name="Q", exact=True).click()
    page.keyboard.press("w")
    page.keyboard.press("Escape")

    expect(curate.locator("summary")).to_have_text("Curate: 1 changed")
    curate.locator("summary").click()
    expect(curate.locator("dd.pf-set-changed")).to_have_text("unsure: for a second look (changed)")
    page.get_by_role("button", name="Change the keys of Captions").click()
    dialog.get_by_role("button", name="A", exact=True).click()
    page.keyboard.press("3")
    expect(dialog.get_by_role("status")).to_contain_text("3 is taken: choose among its captions")
    page.keyboard.press("Escape")

    page.goto(f"{server.address}/")
    expect(page.get_by_role("button", name="Unsure")).to_contain_text("W")
    assert seen.errors == []
