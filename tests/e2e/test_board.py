"""The board in a real browser, served by the real command over a planted run."""

import re
import time
from pathlib import Path
from urllib.parse import urlsplit

import pyarrow as pa
from playwright.sync_api import expect

from spine.filters import judge
from spine.jobs import list_jobs
from spine.settings import AestheticMin, FiltersConfig
from tests.e2e.board_server import WAIT_MS, eventually, open_board, saved, tile
from tests.unit.ui.planted import EACH, SHOWN, state_of, unsafe_of
from ui.board import Measured, judged_values
from ui.snapshot import Snapshot


def test_the_board_shows_every_centroid_and_the_first_ones_neighbours(page, server, seen):
    open_board(page, server)

    labels = page.locator(".pf-centroid .pf-label").all_inner_texts()
    assert labels[0] == "red squares" and labels[1].startswith("<script>") and labels[2].startswith("xxxx")
    expect(page.locator('.pf-centroid[aria-selected="true"]')).to_have_attribute("data-centroid", "0")
    shown = page.locator(".pf-tile").evaluate_all("tiles => tiles.map((tile) => tile.dataset.id)")
    assert shown == [str(server.planted.ids[number]) for number in _passing_numbers()]
    expect(page.locator(".pf-stamp")).to_contain_text("demo models")
    assert seen.errors == []


def _passing_numbers(centroid: int = 0) -> list[int]:
    """By the planted rules: not small, not watermarked, or gone."""
    numbers = range(centroid * EACH, (centroid + 1) * EACH)
    return [
        number
        for number in numbers
        if state_of(number) == "gone" or (state_of(number) == "ready" and number % 5 != 4 and number % 6 != 2)
    ]


def test_keys_keep_and_reject_in_order_and_undo_takes_back_after_a_reload(page, fresh):
    open_board(page, fresh)
    order = _passing_numbers()

    page.keyboard.press("a")
    page.keyboard.press("r")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Delete")
    page.keyboard.press("p")

    saved(page)
    assert fresh.stored() == [
        ("keep", [order[0]]),
        ("reject", [order[1]]),
        ("reject", [order[3]]),
        ("keep", [order[4]]),
    ]
    expect(tile(page, fresh, order[0])).to_have_class(re.compile("pf-is-keep"))
    expect(tile(page, fresh, order[1])).to_have_class(re.compile("pf-is-reject"))

    open_board(page, fresh)
    expect(tile(page, fresh, order[4])).to_have_class(re.compile("pf-is-keep"))
    page.keyboard.press("u")

    saved(page)
    expect(tile(page, fresh, order[4])).not_to_have_class(re.compile("pf-is-keep"))
    eventually(lambda: order[4] not in fresh.verdicts(), "the undo is not stored")
    assert fresh.verdicts() == {order[0]: "keep", order[1]: "reject", order[3]: "reject"}


def test_ticked_pictures_are_decided_together_and_undone_as_one(page, fresh):
    open_board(page, fresh)
    order = _passing_numbers()
    for _ in range(3):
        page.keyboard.press("x")
        page.keyboard.press("k")
    expect(page.locator(".pf-status")).to_contain_text("3 ticked")

    page.keyboard.press("r")

    saved(page)
    assert fresh.stored() == [("reject", sorted(order[:3]))]
    page.keyboard.press("Control+z")
    eventually(lambda: fresh.verdicts() == {}, "the undo is not stored")


def test_verdicts_as_fast_as_keys_can_be_sent_are_all_stored_in_order(page, fresh):
    open_board(page, fresh)
    order = _passing_numbers()
    keys = ["a", "r"] * (len(order) // 2)
    page.keyboard.press("Home")

    for key in keys:
        page.keyboard.press(key, delay=0)
    page.keyboard.press("Home")
    for key in keys:
        page.keyboard.press({"a": "r", "r": "a"}[key], delay=0)
    for _ in range(60 - 2 * len(keys)):
        page.keyboard.press("0", delay=0)

    saved(page)
    names = {"a": "keep", "r": "reject"}
    firsts = [(names[key], [order[place]]) for place, key in enumerate(keys)]
    seconds = [(names[{"a": "r", "r": "a"}[key]], [order[place]]) for place, key in enumerate(keys)]
    eventually(lambda: len(fresh.stored()) >= 2 * len(keys), "verdicts are missing")
    assert fresh.stored()[: 2 * len(keys)] == firsts + seconds


def test_verdicts_given_while_the_server_is_dead_are_stored_once_it_is_back(page, fresh):
    open_board(page, fresh)
    order = _passing_numbers()
    page.keyboard.press("a")
    saved(page)
    fresh.kill()

    page.keyboard.press("r")
    page.keyboard.press("a")
    expect(page.locator(".pf-saving")).to_contain_text("not saved, retrying")
    fresh.start()

    saved(page)
    assert fresh.stored() == [("keep", [order[0]]), ("reject", [order[1]]), ("keep", [order[2]])]


def test_a_page_closed_before_its_verdicts_were_sent_leaves_them_to_the_next(chromium, fresh):
    context = chromium.new_context(viewport={"width": 1440, "height": 900})
    first = context.new_page()
    open_board(first, fresh)
    fresh.kill()
    first.keyboard.press("a")
    expect(first.locator(".pf-saving")).to_contain_text("not saved, retrying")
    first.close()
    fresh.start()

    second = context.new_page()
    open_board(second, fresh)

    eventually(lambda: fresh.stored() == [("keep", [_passing_numbers()[0]])], "the verdict is lost")
    context.close()


def test_a_verdict_on_what_another_curator_decided_meanwhile_is_shown_and_can_be_overruled(chromium, fresh):
    pages = []
    for name in ("ada", "bob"):
        context = chromium.new_context(viewport={"width": 1440, "height": 900})
        pages.append(context.new_page())
        open_board(pages[-1], fresh)
        pages[-1].get_by_label("Your name").fill(name)
        pages[-1].get_by_label("Your name").press("Tab")
    ada, bob = pages
    first = _passing_numbers()[0]

    ada.keyboard.press("a")
    saved(ada)
    bob.keyboard.press("r")

    expect(bob.locator(".pf-notice")).to_contain_text("left as decided by ada")
    expect(tile(bob, fresh, first)).to_have_class(re.compile("pf-is-keep"))
    assert fresh.verdicts() == {first: "keep"}
    bob.keyboard.press("Home")
    bob.keyboard.press("r")
    eventually(lambda: fresh.verdicts() == {first: "reject"}, "the second verdict is not stored")
    for page in pages:
        page.context.close()


def test_a_click_moves_the_cursor_and_decides_nothing(page, fresh):
    open_board(page, fresh)
    order = _passing_numbers()

    tile(page, fresh, order[5]).locator(".pf-picture").click()

    expect(tile(page, fresh, order[5])).to_have_class(re.compile("pf-cursor"))
    page.keyboard.press("a")
    saved(page)
    assert fresh.stored() == [("keep", [order[5]])]


def test_letters_typed_into_a_field_decide_nothing(page, fresh):
    open_board(page, fresh)

    page.get_by_label("Search centroids").fill("")
    page.get_by_label("Search centroids").press_sequentially("par")

    expect(page.locator(".pf-foot")).to_contain_text("0 of 3")
    saved(page)
    assert fresh.stored() == []


def test_every_key_of_the_grid_has_a_button(page, fresh):
    open_board(page, fresh)
    order = _passing_numbers()

    page.get_by_role("button", name="Keep A", exact=True).click()
    page.get_by_role("button", name="Reject R", exact=True).click()
    page.get_by_role("button", name="Undo U", exact=True).click()

    eventually(lambda: fresh.verdicts() == {order[0]: "keep"}, "the buttons did not decide")
    page.keyboard.press("?")
    expect(page.get_by_role("dialog")).to_contain_text("untick all")
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_be_hidden()


def test_no_clear_pixel_of_a_blurred_picture_is_asked_for_until_it_is_revealed(page, server, seen):
    for centroid in range(3):
        open_board(page, server, f"/?centroid={centroid}&show=all")
        page.wait_for_load_state("networkidle")
    hidden = [
        number
        for number in range(3 * EACH)
        if state_of(number) == "ready" and unsafe_of(number) in (0.9, None)
    ]
    # A concept picture without a score is shown clear: the run's owner chose it.
    chosen_by_owner = [number for number in range(6) if unsafe_of(number) is None]
    hidden = [number for number in hidden if number not in chosen_by_owner]
    asked = {Path(urlsplit(url).path).name for url in seen.urls if "/thumb/" in url}

    assert any(f"{server.planted.hashes[number]}.blurred.webp" in asked for number in hidden)
    assert [number for number in hidden if f"{server.planted.hashes[number]}.webp" in asked] == []

    revealed = next(number for number in hidden if number >= 2 * EACH)
    tile(page, server, revealed).locator(".pf-line").click()
    with page.expect_request(f"**/{server.planted.hashes[revealed]}.webp?by=*"):
        page.keyboard.press("v")

    page.keyboard.press("v")
    blurred = re.compile(f"{server.planted.hashes[revealed]}.blurred.webp$")
    expect(tile(page, server, revealed).locator("img")).to_have_attribute("src", blurred)


def test_counts_of_the_filters_are_those_of_the_spine(page, server):
    open_board(page, server, "/?centroid=1")
    snapshot = Snapshot(server.planted.run)
    neighbours = snapshot.neighbours(1)
    ids = neighbours.column("id").to_numpy()
    measured = Measured(
        snapshot.images().rows(ids),
        snapshot.scores().rows(ids),
        snapshot.groups().rows(ids),
        snapshot.captions().rows(ids),
    )
    ready = [rank for rank in range(EACH) if state_of(rank) == "ready"]
    values = judged_values(neighbours, measured).take(pa.array(ready))
    for side_px, watermark, unsafe, aesthetic, unknown in [
        (None, None, None, None, "keep"),
        (64, 0.8, None, None, "keep"),
        (64, 0.8, 0.5, 3.5, "keep"),
        (None, None, 0.5, None, "drop"),
        (81, None, None, None, "keep"),
        (49, 0.5, 0.05, 3.25, "drop"),
    ]:
        for name, end, limit in (
            ("side_px", "min", side_px),
            ("pwatermark", "max", watermark),
            ("punsafe", "max", unsafe),
            ("aesthetic", "min", aesthetic),
        ):
            box = page.locator(f'[data-filter="{name}:{end}"]')
            box.fill("" if limit is None else str(limit))
            box.press("Tab")
        page.get_by_label("Pictures whose value is unknown").select_option(unknown)
        config = FiltersConfig(
            min_side_px=side_px or 0,
            pwatermark_max=watermark,
            punsafe_max=unsafe,
            aesthetic_min=AestheticMin(value=aesthetic),
            unknown=unknown,
        )

        expected = int(judge(values, config).passed.sum())

        expect(page.locator(".pf-passed")).to_have_text(str(expected))


def test_the_address_alone_restores_centroid_filters_and_order(page, server, chromium):
    open_board(page, server)
    page.keyboard.press("n")
    expect(page.locator('.pf-centroid[aria-selected="true"]')).to_have_attribute("data-centroid", "1")
    page.locator('[data-filter="aesthetic:min"]').fill("3.5")
    page.locator('[data-filter="aesthetic:min"]').press("Tab")
    page.get_by_label("Order of pictures").select_option("aesthetic")
    shown = page.locator(".pf-tile").evaluate_all("tiles => tiles.map((tile) => tile.dataset.id)")
    context = chromium.new_context(viewport={"width": 1440, "height": 900})
    other = context.new_page()

    other.goto(page.url)

    expect(other.locator(".pf-tile")).to_have_count(len(shown), timeout=WAIT_MS)
    assert other.locator(".pf-tile").evaluate_all("tiles => tiles.map((tile) => tile.dataset.id)") == shown
    context.close()


def test_hostile_labels_and_texts_are_shown_as_text_and_nothing_runs(page, server, seen):
    open_board(page, server, "/?centroid=0&show=all")
    tile(page, server, 1).locator(".pf-picture").click()
    expect(page.locator(".pf-detail")).to_contain_text("<script>window.ran=1</script>")
    page.locator('.pf-centroid[data-centroid="1"]').click()
    expect(page.locator(".pf-centroid-title")).to_have_text(SHOWN)
    page.locator('.pf-centroid[data-centroid="2"]').click()
    expect(page.locator(".pf-centroid-title")).to_contain_text("xxxx")
    expect(page.locator(".pf-tile").first).to_be_visible()

    assert page.evaluate("window.ran") is None
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    assert seen.errors == []


def test_no_other_host_is_ever_asked(page, server, seen):
    open_board(page, server)
    page.keyboard.press("n")
    page.wait_for_load_state("networkidle")
    page.goto(f"{server.address}/jobs")
    expect(page.get_by_role("button", name="Start", exact=True)).to_be_visible()
    page.wait_for_load_state("networkidle")

    hosts = {urlsplit(url).netloc for url in seen.urls if urlsplit(url).scheme not in ("data", "blob")}
    assert hosts == {f"127.0.0.1:{server.port}"}


def test_a_job_is_cancelled_from_the_page_and_nothing_follows_it(page, fresh):
    open_board(page, fresh)

    page.get_by_role("button", name="Caption what is selected").click()
    page.get_by_role("button", name="Cancel").click()

    page.goto(f"{fresh.address}/jobs")
    expect(page.get_by_role("button", name="Start", exact=True)).to_be_enabled(timeout=60_000)
    eventually(lambda: all(job.ended for job in list_jobs(fresh.planted.run)), "a job is still at work")
    assert "caption" not in {job.command[0] for job in list_jobs(fresh.planted.run) if job.state == "done"}


def test_a_job_that_fails_says_why_on_the_page(page, fresh):
    page.goto(f"{fresh.address}/jobs")
    page.get_by_role("button", name="Start", exact=True).click()  # "run" is the first of the commands

    row = page.locator('.pf-job-row[data-state="failed"]')
    expect(row).to_be_visible(timeout=60_000)
    row.click()
    expect(page.locator(".pf-job-detail .pf-bad")).to_contain_text("source")
    expect(page).to_have_url(re.compile("job="))


def test_selecting_and_captioning_started_from_the_page_run_to_their_end(page, fresh):
    open_board(page, fresh)
    page.keyboard.press("r")
    saved(page)
    began = time.time()

    page.get_by_role("button", name="Caption what is selected").click()

    expect(page.locator(".pf-strip .pf-job")).to_be_visible(timeout=WAIT_MS)
    page.goto(f"{fresh.address}/jobs")  # jobs don't belong to the page
    expect(page.locator('.pf-job-row[aria-pressed="true"]')).to_be_visible(timeout=WAIT_MS)
    expect(page.get_by_role("button", name="Start", exact=True)).to_be_enabled(
        timeout=240_000
    )  # nothing is at work any more
    jobs = {job.command[0]: job for job in reversed(list_jobs(fresh.planted.run)) if job.started >= began}
    assert {name: (job.state, job.message) for name, job in jobs.items()} == {
        "select": ("done", ""),
        "caption": ("done", ""),
    }
    expect(page.locator('.pf-job-row[data-state="done"]')).not_to_have_count(0)
    captioned = Snapshot(fresh.planted.run).captions().table.num_rows
    assert captioned == jobs["caption"].done == jobs["caption"].total
    expect(page.locator(".pf-job-row").first).to_contain_text(f"{captioned} of {captioned} pictures")
    chosen = Snapshot(fresh.planted.run).selection().to_pylist()
    rejected = next(row for row in chosen if row["id"] == fresh.planted.ids[_passing_numbers()[0]])
    assert (rejected["verdict"], rejected["rule"]) == ("rejected", "person")
    assert captioned == sum(row["verdict"] == "selected" for row in chosen)
    page.goto(f"{fresh.address}/?show=selected")
    expect(page.locator(".pf-detail")).to_contain_text("caption", timeout=WAIT_MS)
