"""The Curate page's larger tools in a real browser: bulk decisions, centroids, dialogs, views, other curators."""

import json
import random
import re
import shutil
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from playwright.sync_api import expect

from curation.decisions import Decisions
from spine.config import load_config, with_demo_models, write_config
from spine.filters import judge
from spine.jobs import Journal
from spine.publish import publish_table
from spine.run import Run, part_path
from spine.settings import AestheticMin, Config, FiltersConfig, SelectConfig
from spine.tables import POOL_SIMILARITIES
from tests.e2e.board_server import WAIT_MS, Server, eventually, free_port, open_board, saved, tile
from tests.small_disk import fill, small_disk
from tests.unit.ui.planted import EACH, HOSTILE, Planted, pass_over, plant, state_of
from ui.board import Measured, judged_values
from ui.snapshot import Snapshot

READY = [number for number in range(EACH) if state_of(number) == "ready"]
PASSING = [number for number in READY if number % 5 != 4 and number % 6 != 2]


def _events(server):
    return Decisions.open(server.planted.run.decisions).history()


def test_the_rest_of_what_is_shown_is_decided_as_one_with_its_filter(page, fresh):
    open_board(page, fresh, "/?f=aesthetic:3.5..")
    wanted = [number for number in PASSING if 3.0 + 0.05 * number >= 3.5]
    page.keyboard.press("a")
    saved(page)
    left = [number for number in wanted if number not in fresh.verdicts()]

    page.keyboard.press("Shift+R")

    saved(page)
    event = _events(fresh)[-1]
    assert (event.action, sorted(event.ids)) == (
        "reject",
        sorted(fresh.planted.ids[number] for number in left),
    )
    assert "f=aesthetic:3.5.." in event.filter and "f=side_px:64.." in event.filter and event.ids_digest
    open_board(page, fresh, "/?show=decided")
    page.keyboard.press("u")
    eventually(lambda: len(fresh.verdicts()) == 1, "the bulk decision is not undone as one")
    page.keyboard.press("Shift+U")
    eventually(lambda: len(fresh.verdicts()) == 1 + len(left), "nor done again")


def test_unsure_and_notes_are_kept_and_found_again_and_change_no_verdict(page, fresh):
    open_board(page, fresh)
    page.keyboard.press("q")
    page.keyboard.press("e")
    page.get_by_role("textbox", name="Note").fill(HOSTILE)
    page.keyboard.press("Enter")
    saved(page)

    open_board(page, fresh, "/?show=unsure")

    expect(page.locator(".pf-tile")).to_have_count(1)
    expect(tile(page, fresh, PASSING[0])).to_have_class(re.compile("pf-is-unsure"))
    assert fresh.verdicts() == {} and page.evaluate("window.ran") is None
    notes = Decisions.open(fresh.planted.run.decisions).fold().notes
    assert notes[fresh.planted.ids[PASSING[0]]] == ("unsure", None)
    assert notes[fresh.planted.ids[PASSING[1]]][1] == HOSTILE


def test_ticks_by_shift_and_undone_ticks(page, fresh):
    open_board(page, fresh)

    page.keyboard.press("Shift+ArrowRight")
    page.keyboard.press("Shift+ArrowRight")
    expect(page.locator(".pf-status")).to_contain_text("3 ticked")
    tile(page, fresh, PASSING[6]).locator(".pf-line").click(modifiers=["Shift"])
    expect(page.locator(".pf-status")).to_contain_text("7 ticked")
    page.keyboard.press("Escape")
    expect(page.locator(".pf-status")).not_to_contain_text("ticked")
    page.keyboard.press("u")

    expect(page.locator(".pf-status")).to_contain_text("7 ticked")
    assert _events(fresh) == []


def test_a_centroid_is_done_left_out_and_given_settings_of_its_own(page, fresh):
    open_board(page, fresh)
    page.keyboard.press("d")
    expect(page.locator('.pf-centroid[aria-selected="true"]')).to_have_attribute("data-centroid", "1")
    page.keyboard.press("Shift+D")
    page.get_by_role("textbox", name="Why").fill("all the same")
    page.keyboard.press("Enter")
    expect(page.locator('.pf-centroid[aria-selected="true"]')).to_have_attribute("data-centroid", "2")
    page.locator(".pf-own-panel summary").click()
    page.get_by_label("Quota of this centroid").fill("7")
    page.keyboard.press("Tab")
    page.get_by_label("Shorter side ≥ of this centroid").fill("90")
    page.keyboard.press("Tab")
    saved(page)

    folded = Decisions.open(fresh.planted.run.decisions).fold()
    assert {key: verdict.action for key, verdict in folded.centroids.items()} == {0: "keep", 1: "reject"}
    assert folded.centroids[1].reason == "all the same"
    assert {name: each.value for name, each in folded.settings[2].items()} == {
        "quota_per_centroid": 7,
        "min_side_px": 90,
    }
    expect(page.get_by_label("Shorter side, at least", exact=True)).to_have_value("90")
    expect(page.locator(".pf-passed")).to_have_text("0")
    open_board(page, fresh, "/?centroid=2&show=all")
    page.keyboard.press("u")
    expect(page.locator(".pf-passed")).not_to_have_text("0")


def test_the_preview_shows_all_that_is_known_and_keys_go_on_deciding(page, fresh, seen):
    open_board(page, fresh, "/?show=all")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Space")

    dialog = page.get_by_role("dialog", name="Picture")
    expect(dialog).to_contain_text("<script>window.ran=1</script>")
    expect(dialog.locator(".pf-story")).to_contain_text("centroid 0 (red squares): rank 1")
    page.keyboard.press("r")
    expect(dialog).to_contain_text("rank 2 ·")
    page.keyboard.press("ArrowLeft")
    expect(dialog).to_contain_text("✕ rejected")
    page.keyboard.press("Escape")

    expect(dialog).to_be_hidden()
    saved(page)
    assert fresh.stored() == [("reject", [1])]
    assert page.evaluate("window.ran") is None and seen.errors == []


def test_of_near_duplicates_the_best_is_kept_and_pictures_are_compared(page, fresh):
    open_board(page, fresh, "/?show=duplicates&f=pwatermark:off")
    expect(page.locator(".pf-tile")).to_have_count(2)
    page.keyboard.press("g")
    expect(page.get_by_role("dialog")).to_contain_text("2 near-duplicates")
    page.get_by_role("button", name="Keep the best").click()

    saved(page)
    assert fresh.stored() == [("reject", [1])]  # of equal size, the more aesthetic stays
    assert _events(fresh)[0].reason == f"near-duplicate of {fresh.planted.ids[2]}"
    page.keyboard.press("Control+a")
    page.keyboard.press("c")
    panes = page.get_by_role("dialog").locator(".pf-pane img")
    page.get_by_role("button", name="Closer").click()
    transforms = panes.evaluate_all("nodes => nodes.map((node) => node.style.transform)")
    assert len(transforms) == 2 and len(set(transforms)) == 1 and "scale(1.5)" in transforms[0]


def test_a_lasso_lists_what_lies_inside_and_stands_in_the_address(page, server, chromium):
    open_board(page, server)
    canvas = page.locator(".pf-map-canvas")
    box = canvas.bounding_box()
    page.keyboard.down("Shift")
    page.mouse.move(box["x"] + 5, box["y"] + 5)
    page.mouse.down()
    for x, y in ((0.4, 0.05), (0.4, 0.4), (0.05, 0.4)):
        page.mouse.move(box["x"] + x * box["width"], box["y"] + y * box["height"], steps=3)
    page.mouse.up()
    page.keyboard.up("Shift")

    expect(page.locator(".pf-foot")).to_contain_text("0 of 3 centroids")  # all three lie in the middle
    expect(page).to_have_url(re.compile("lasso="))
    page.get_by_role("button", name="clear the lasso").click()
    expect(page.locator(".pf-foot")).to_contain_text("3 centroids")
    canvas.click(position={"x": box["width"] / 2, "y": box["height"] / 2})
    expect(page.locator('.pf-centroid[aria-selected="true"]')).to_have_count(1)


def test_a_saved_view_opens_from_its_name_and_others_see_it_once_shared(page, fresh, chromium):
    open_board(page, fresh, "/?centroid=2&f=aesthetic:3.5..&sort=aesthetic")
    shown = page.locator(".pf-tile").evaluate_all("tiles => tiles.map((tile) => tile.dataset.id)")
    page.get_by_label("Name of this view").fill(HOSTILE[:80])
    page.get_by_label("other curators see it").check()
    page.get_by_role("button", name="Save", exact=True).click()
    expect(page.locator(".pf-views a")).to_have_count(1)

    context = chromium.new_context(viewport={"width": 1440, "height": 900})
    other = context.new_page()
    open_board(other, fresh)
    other.get_by_label("Your name").fill("bob")
    open_board(other, fresh)
    other.locator(".pf-views a").click()

    expect(other.locator(".pf-tile")).to_have_count(len(shown), timeout=WAIT_MS)
    assert other.locator(".pf-tile").evaluate_all("tiles => tiles.map((tile) => tile.dataset.id)") == shown
    context.close()


def test_what_others_decide_and_open_is_seen_within_seconds_and_a_conflict_shows_both(chromium, fresh):
    pages = []
    for name in ("ada", "bob"):
        context = chromium.new_context(viewport={"width": 1440, "height": 900})
        context.add_init_script(f"localStorage.setItem('popfactory.curator', '{name}')")
        pages.append(context.new_page())
        open_board(pages[-1], fresh)
    ada, bob = pages

    ada.keyboard.press("a")
    expect(tile(bob, fresh, PASSING[0])).to_have_class(re.compile("pf-is-keep"), timeout=WAIT_MS)
    expect(bob.locator('.pf-centroid[data-centroid="0"] .pf-who')).to_have_text("ada")
    bob.route("**/api/news*", lambda route: route.abort())
    ada.keyboard.press("r")
    saved(ada)
    bob.keyboard.press("ArrowRight")
    bob.keyboard.press("a")

    both = tile(bob, fresh, PASSING[1]).locator(".pf-both")
    expect(both).to_contain_text("✕ ada")
    expect(both).to_contain_text("✓ you")
    tile(bob, fresh, PASSING[1]).locator(".pf-line").click()
    bob.keyboard.press("a")
    eventually(lambda: fresh.verdicts()[PASSING[1]] == "keep", "the second verdict does not overrule")
    for each in pages:
        each.context.close()


def _post(server, client, curator, events):
    request = urllib.request.Request(
        f"{server.address}/api/decisions",
        json.dumps({"client": client, "curator": curator, "events": events}).encode(),
        {"Content-Type": "application/json", "X-Popfactory": "1"},
    )
    try:
        with urllib.request.urlopen(request, timeout=60) as reply:
            return reply.status, json.load(reply)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


def test_a_conflict_is_answered_with_409_and_what_counts_now(fresh):
    picture = str(fresh.planted.ids[0])
    event = {"seq": 1, "ids": [picture], "centroid_id": "0"}
    assert _post(fresh, "one", "ada", [event | {"action": "keep"}])[0] == 200

    status, answer = _post(fresh, "two", "bob", [event | {"action": "reject"}])

    assert status == 409
    assert answer["conflicts"] == [{"id": picture, "curator": "ada", "action": "keep"}]
    assert answer["verdicts"] == {picture: {"decision": "keep", "curator": "ada"}}


def test_of_ten_curators_at_once_no_decision_is_lost_or_out_of_order(fresh):
    def curate(number):
        for seq in range(1, 31):
            picture = str(fresh.planted.ids[number * 9 + seq % 9])
            action = "keep" if seq % 2 else "reject"
            event = {"seq": seq, "action": action, "ids": [picture], "centroid_id": "0", "last_seen": 10**9}
            status, _ = _post(fresh, f"tab{number}", f"curator {number}", [event])
            assert status == 200

    with ThreadPoolExecutor(10) as pool:
        list(pool.map(curate, range(10)))

    events = _events(fresh)
    assert len(events) == 300
    for number in range(10):
        assert [event.seq for event in events if event.client == f"tab{number}"] == list(range(1, 31))


def test_a_revealed_picture_is_written_down_with_who_looked(page, fresh):
    reveals = fresh.planted.run.reveals
    reveals.unlink(missing_ok=True)
    open_board(page, fresh, "/?show=all")
    blurred = next(number for number in READY if number % 7 == 3)
    page.get_by_label("Your name").fill("ada")
    tile(page, fresh, blurred).locator(".pf-line").click()

    page.keyboard.press("v")

    eventually(reveals.exists, "the reveal is not written down")
    entry = json.loads(reveals.read_text().splitlines()[0])
    assert (entry["sha256"], entry["curator"]) == (fresh.planted.hashes[blurred], "ada")


def test_a_picture_that_a_list_names_is_blocked_on_an_open_page(page, fresh):
    run = fresh.planted.run
    before = run.config.read_text()
    open_board(page, fresh)
    try:
        (run.folder / "takedown.txt").write_text(f"{fresh.planted.ids[PASSING[0]]}\n")
        run.config.write_text(before.replace("takedown = []", 'takedown = ["takedown.txt"]'))

        expect(tile(page, fresh, PASSING[0])).to_have_class(re.compile("pf-blocked"), timeout=60_000)
        page.keyboard.press("b")
        expect(tile(page, fresh, PASSING[0]).locator("img")).to_have_count(0)
    finally:
        run.config.write_text(before)


def test_words_need_a_server_and_the_page_says_how_to_start_one(page, server):
    open_board(page, server)

    expect(page.locator(".pf-advice")).to_contain_text("popfactory serve --run")
    open_board(page, server, "/?centroid=0")
    page.keyboard.press("m")
    expect(page.locator(".pf-empty")).to_contain_text("popfactory serve --run")


def test_filters_found_by_looking_are_saved_for_the_run(page, fresh):
    run = fresh.planted.run
    before = run.config.read_text()
    open_board(page, fresh)
    try:
        page.get_by_label("Aesthetic, at least", exact=True).fill("3.5")
        page.keyboard.press("Tab")
        page.get_by_role("button", name="Save to popfactory.toml").click()
        expect(page.locator(".pf-notice")).to_contain_text("Saved in [filters]")

        filters = load_config(run.config).filters
        assert (filters.aesthetic_min.value, filters.min_side_px, filters.unknown) == (3.5, 64, "keep")
        expect(page.locator(".pf-pill")).to_have_count(0)
        expect(page).not_to_have_url(re.compile("f="))
    finally:
        run.config.write_text(before)


def test_a_filter_that_takes_nothing_says_so_in_the_funnel_and_one_that_takes_some_does_not(page, fresh):
    """Of the similarities none is below 0.1; of the widths, 48 or 96, those of every fifth picture are."""
    small = sum(number % 5 == 4 for number in READY)
    open_board(page, fresh, "/?f=similarity:0.1..&f=pwatermark:off&f=side_px:64..")
    taken = page.locator(".pf-funnel-line .pf-loss")

    expect(taken).to_have_text([f"shorter side−{small}", "similarity−0 no effect"])

    page.get_by_label("Similarity, at least", exact=True).fill("0.895")
    page.keyboard.press("Tab")
    expect(taken).to_have_text([f"shorter side−{small}", f"similarity−{len(READY) - small - 1}"])


@pytest.mark.parametrize(("low", "said"), [(4, "−4 no effect"), (5, "−5")])
def test_a_filter_that_keeps_more_than_995_of_1000_is_said_to_have_no_effect(page, server, low, said):
    open_board(page, server, "/?f=similarity:0.1..&f=pwatermark:off&f=side_px:off")
    page.evaluate(
        """async (low) => {
          const main = document.querySelector('script[src$="/main.js"]').src;
          const { changed, state } = await import(main.replace("main.js", "curate/state.js"));
          const one = state.rows.find((row) => row.state === "ready");
          const row = (place) => ({ ...one, id: String(place), rank: place, similarity: place < low ? 0.05 : 0.5 });
          state.rows = Array.from({ length: 1000 }, (_, place) => row(place));
          changed();
        }""",
        low,
    )

    expect(page.locator(".pf-funnel-line .pf-loss")).to_have_text([f"similarity{said}"])


def test_violence_unscored_and_changed_pictures_are_left_out_on_the_page_as_in_select(page, tmp_path):
    filters = FiltersConfig(min_side_px=64, pwatermark_max=0.8, violence_max=0.15)
    config = with_demo_models(Config(filters=filters, select=SelectConfig(same_picture=0.5)))
    planted = plant(tmp_path / "run", config=config)
    part = part_path(planted.run.scores, 0)
    scores = pq.read_table(part)
    publish_table(part, scores.filter(pc.not_equal(scores.column("id"), planted.ids[0])))
    likeness = {"id": planted.ids[:4], "similarity": [0.9, 0.4, 0.5, 0.9]}
    publish_table(planted.run.pool_similarities_table, pa.table(likeness, schema=POOL_SIMILARITIES))
    board = Server(planted, free_port())
    board.start()
    try:
        open_board(page, board, "/?centroid=0")
        lost = page.locator(".pf-funnel-line .pf-loss")
        expect(lost).to_have_text(
            ["unscored−1", "changed−1", "shorter side−5", "watermark−3", re.compile("^violence−")]
        )
        expect(page.get_by_label("Violence, at most", exact=True)).to_have_value("0.15")
        left = int(page.locator(".pf-passed").inner_text())
        page.get_by_label("Violence, at most", exact=True).fill("")
        page.keyboard.press("Tab")
        expect(lost).to_have_count(4)
        assert int(page.locator(".pf-passed").inner_text()) > left
        page.get_by_label("Violence, at most", exact=True).fill("0.25")
        page.keyboard.press("Tab")
        page.get_by_role("button", name="Save to popfactory.toml").click()
        eventually(lambda: load_config(planted.run.config).filters.violence_max == 0.25, "the filter")
        page.locator(".pf-own-panel summary").click()
        page.get_by_label("Violence ≤ of this centroid").fill("-0.1")
        page.keyboard.press("Tab")
        expect(page.get_by_label("Violence, at most", exact=True)).to_have_value("-0.1")
        saved(page)
        own = Decisions.open(planted.run.decisions).fold().settings[0]
        assert {name: each.value for name, each in own.items()} == {"violence_max": -0.1}
    finally:
        board.kill()


def test_a_thousand_filters_pass_in_the_browser_what_they_pass_in_select(page, server):
    open_board(page, server, "/?centroid=1")
    generator = random.Random(13)
    limits = [
        {
            "side_px": [generator.choice([None, 47, 48, 49, 80, 81]), None],
            "pwatermark": [None, generator.choice([None, 0.1, 0.5, 0.95, generator.random()])],
            "punsafe": [None, generator.choice([None, 0.04, 0.05, 0.9, generator.random()])],
            "violence": [None, generator.choice([None, -0.4, 0.0, 0.1, generator.random() - 0.5])],
            "aesthetic": [generator.choice([None, 3.0, 3.5, 3 + 1.5 * generator.random()]), None],
            "unknown": generator.choice(["keep", "drop"]),
        }
        for _ in range(1_000)
    ]
    passed = page.evaluate(
        """async (limits) => {
          const main = document.querySelector('script[src$="/main.js"]').src;
          const { state, shownOf } = await import(main.replace("main.js", "curate/state.js"));
          return limits.map((given) => {
            Object.assign(state.filters, given);
            shownOf(state.rows);
            return state.rows.filter((row) => row.state === "ready" && !row.failed).map((row) => row.id);
          });
        }""",
        limits,
    )

    snapshot = Snapshot(server.planted.run)
    neighbours = snapshot.neighbours(1)
    ids = neighbours.column("id").to_numpy()
    tables = (snapshot.images(), snapshot.scores(), snapshot.groups(), snapshot.captions())
    values = judged_values(neighbours, Measured(*(table.rows(ids) for table in tables))).take(pa.array(READY))
    for given, found in zip(limits, passed, strict=True):
        config = FiltersConfig(
            min_side_px=given["side_px"][0] or 0,
            pwatermark_max=given["pwatermark"][1],
            punsafe_max=given["punsafe"][1],
            violence_max=given["violence"][1],
            aesthetic_min=AestheticMin(value=given["aesthetic"][0]),
            unknown=given["unknown"],
        )
        expected = ids[READY][judge(values, config).passed]
        assert found == [str(each) for each in expected], given


def test_a_key_is_changed_where_it_is_listed_and_stays_changed_for_its_curator(page, fresh, seen):
    open_board(page, fresh)
    page.get_by_label("Your name").fill("ada")
    page.get_by_label("Your name").blur()
    page.reload()
    expect(page.locator(".pf-tile").first).to_be_visible()
    page.keyboard.press("?")
    keys = page.get_by_role("dialog", name="Keys")
    keep = keys.locator('button:has(kbd[data-key="A"])')

    keep.click()
    page.keyboard.press("r")  # another deed's
    expect(keys.get_by_role("status")).to_contain_text("R is taken: reject them")
    keep.click()
    page.keyboard.press("Control+y")
    expect(keys.get_by_role("status")).to_contain_text("can't be used")
    keep.click()
    page.keyboard.press("y")
    expect(keys.get_by_role("status")).to_contain_text("Y: keep the ticked ones")
    expect(keep).to_have_text("Y")
    page.keyboard.press("Escape")

    expect(page.get_by_role("button", name="Keep Y", exact=True)).to_be_visible()
    page.reload()
    expect(page.get_by_role("button", name="Keep Y", exact=True)).to_be_visible()
    expect(page.locator(".pf-tile").first).to_be_visible()
    first = page.locator(".pf-tile").nth(0).get_attribute("data-id")
    page.keyboard.press("a")  # does nothing any more
    page.keyboard.press("y")  # one
    page.keyboard.press("x")
    page.keyboard.press("k")
    page.keyboard.press("x")
    page.keyboard.press("y")  # two ticked, by the same key
    saved(page)
    history = Decisions.open(fresh.planted.run.decisions).history()
    assert [(event.action, len(event.ids)) for event in history] == [("keep", 1), ("keep", 2)]
    assert str(history[0].ids[0]) == first

    page.get_by_label("Your name").fill("bob")
    page.get_by_label("Your name").blur()
    page.reload()
    expect(page.get_by_role("button", name="Keep A", exact=True)).to_be_visible()
    page.get_by_label("Your name").fill("ada")
    page.get_by_label("Your name").blur()
    page.reload()
    expect(page.get_by_role("button", name="Keep Y", exact=True)).to_be_visible()
    expect(page.locator(".pf-tile").first).to_be_visible()
    page.keyboard.press("?")
    keys.get_by_role("button", name="The usual keys").click()
    page.keyboard.press("Escape")
    expect(page.get_by_role("button", name="Keep A", exact=True)).to_be_visible()
    assert seen.errors == []


def test_pictures_that_could_not_be_had_and_a_stale_link_say_why(page, server):
    open_board(page, server, "/?centroid=0&show=all")
    for number in range(EACH):
        if state_of(number) == "gone":
            expect(tile(page, server, number).locator(".pf-why")).to_have_text("could not be had: not found")

    open_board(page, server, "/?centroid=999")

    expect(page.get_by_role("alert")).to_contain_text("Centroid 999 of this address is not in the run")
    expect(page.get_by_role("alert")).to_contain_text("“red squares” is open instead")


def test_a_stopped_server_is_told_with_what_to_do_on_tiles_and_above_them(page, fresh):
    open_board(page, fresh, "/?centroid=1&show=all")
    page.wait_for_load_state("networkidle")  # the next centroid is here too, but for most of its pictures
    fresh.kill()
    page.keyboard.press("a")
    expect(page.get_by_role("alert")).to_contain_text("start it again with `popfactory ui RUN`")
    expect(page.get_by_role("alert")).to_contain_text("waits in this browser")

    page.get_by_label("Which pictures to show").select_option("passing")
    page.keyboard.press("v")
    page.keyboard.press("b")

    expect(page.locator(".pf-why", has_text="the board's server can't be reached").first).to_be_visible()
    expect(page.locator(".pf-saving")).to_contain_text("1 not saved")
    fresh.start()
    saved(page)
    assert [action for action, _ in fresh.stored()] == ["keep"]


def test_on_a_full_disk_decisions_wait_in_the_browser_though_the_server_is_killed(page, tmp_path):
    with small_disk(tmp_path / "disk", "4m") as disk:
        server = Server(plant(disk / "run"), free_port())
        server.start()
        try:
            filler = fill(disk)
            open_board(page, server, "/?centroid=1")
            page.keyboard.press("a")
            expect(page.get_by_role("alert")).to_contain_text("the disk is full; free some space")
            expect(page.get_by_role("alert")).to_contain_text("waits in this browser")
            filler.unlink()
            saved(page)
            filler = fill(disk)
            page.keyboard.press("r")
            expect(page.locator(".pf-saving")).to_contain_text("not saved")

            server.kill()
            filler.unlink()
            server.start()

            saved(page)
            passing = [EACH + number for number in range(EACH) if _passes(EACH + number)]
            assert server.stored() == [("keep", [passing[0]]), ("reject", [passing[1]])]
        finally:
            server.kill()


def _passes(number):
    return state_of(number) == "ready" and number % 5 != 4 and number % 6 != 2


def test_a_picture_that_a_filter_spared_fetch_says_so_on_its_tile_and_on_jobs(page, tmp_path):
    planted = plant(tmp_path / "run")
    pass_over(planted, [0, 3], "min_side_px")
    journal = Journal(planted.run, ["fetch", str(planted.run.folder)])
    journal.begin("fetch", 90, "pictures")
    journal.advance(90, {"min_side_px": 2, "not_found": 1})
    journal.close("done")
    server = Server(planted, free_port())
    server.start()
    try:
        open_board(page, server, "/?centroid=0&show=passed_over")
        expect(page.locator(".pf-tile .pf-why")).to_have_text(["not fetched: shorter side too small"] * 2)
        expect(page.locator(".pf-status")).to_contain_text("2 passed over")
        page.get_by_label("Which pictures to show").select_option("passing")
        expect(tile(page, server, 1)).to_be_visible()
        expect(tile(page, server, 0)).to_have_count(0)

        page.goto(f"{server.address}/jobs?job={journal.job_id}")
        page.get_by_role("button", name="not fetched: shorter side too small").click()
        expect(page.locator(".pf-examples li")).to_have_count(2)
        expect(page.locator(".pf-examples li").first).to_contain_text("the pool says 300")
    finally:
        server.kill()


def test_an_empty_run_and_one_in_progress_say_what_comes_next(page, server, tmp_path):
    run = Run(tmp_path / "run")
    run.folder.mkdir()
    write_config(run.config, with_demo_models(Config()))
    new = Server(Planted(run, [], []), free_port())
    new.start()
    try:
        page.goto(new.address)
        expect(page.locator(".pf-empty")).to_contain_text(
            "This run has no centroids yet. Start “run” on the Jobs page"
        )

        given = server.planted.run
        for stage in (given.concepts, given.centroids):
            shutil.copytree(stage, run.folder / stage.name)
        page.reload()

        expect(page.locator(".pf-centroid")).to_have_count(3)
        expect(page.locator(".pf-empty")).to_contain_text("No neighbours yet: run `popfactory retrieve`")
    finally:
        new.kill()


def test_the_list_of_centroids_is_searched_and_stands_in_every_order_it_offers(page, fresh):
    page.goto(f"{fresh.address}/?centroid=1")
    expect(page.locator(".pf-tile").first).to_be_visible()
    page.keyboard.press("a")
    saved(page)
    rows = page.request.get(f"{fresh.address}/api/centroids").json()["centroids"]
    number = {row["centroid"]: int(row["centroid"]) for row in rows}
    keys = {
        "id": lambda row: number[row["centroid"]],
        "size": lambda row: -row["size"],
        "open": lambda row: row["kept"] + row["rejected"] - row["neighbours"],
        "selected": lambda row: -row["selected"],
        "short": lambda row: (row["selected"], number[row["centroid"]]),
        "disputed": lambda row: (-row["disputed"], number[row["centroid"]]),
        "label": lambda row: row["label"],
    }
    for order, key in keys.items():
        page.get_by_label("Order of centroids").select_option(order)
        shown = page.locator(".pf-centroid").evaluate_all("rows => rows.map((row) => row.dataset.centroid)")
        assert shown == [row["centroid"] for row in sorted(rows, key=key)], order
        if order == "id":
            expect(page).not_to_have_url(re.compile("csort="))
        else:
            expect(page).to_have_url(re.compile(f"csort={order}"))

    page.get_by_label("Search centroids").fill("SQUARES")
    expect(page.locator(".pf-centroid")).to_have_count(1)
    expect(page.locator(".pf-centroid")).to_contain_text("red squares")
    page.get_by_label("Search centroids").fill("")
    mine = page.locator('.pf-centroid[data-centroid="1"]')
    chosen = next(row for row in rows if row["centroid"] == "1")
    expect(mine).to_contain_text(f"{chosen['selected']}/{chosen['neighbours']}")
    expect(mine.locator(".pf-kept")).to_have_text("✓1")


def test_nine_tabs_of_one_browser_all_work(chromium, fresh):
    context = chromium.new_context()
    pages = [context.new_page() for _ in range(9)]
    for number, page in enumerate(pages):
        page.set_default_timeout(WAIT_MS)
        page.goto(f"{fresh.address}/?centroid={number % 3}&show=all")
        expect(page.locator(".pf-tile").first).to_be_visible()
    for page in reversed(pages):
        page.keyboard.press("k")
        page.keyboard.press("a")
        saved(page)
    context.close()

    assert len(fresh.stored()) == 9
