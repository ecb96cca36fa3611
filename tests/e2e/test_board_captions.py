"""The Captions page in a real browser, over planted captions and the real captioner."""

import json
import random
import re
import time
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator

import pytest
from playwright.sync_api import Page, expect

from curation.caption_choice import choose, chosen_captions
from curation.decisions import Decisions
from curation.verdicts import Verdict
from spine.config import load_config
from spine.jobs import list_jobs
from spine.table_files import read_parts
from spine.tables import CAPTIONS
from tests.e2e.board_server import JOB_MS, Server, eventually, free_port
from tests.unit.ui.planted import HOSTILE, plant
from tests.unit.ui.planted_captions import BEFORE, plant_captions, row_of, selected
from ui.caption_list import STATES, state_of


@pytest.fixture(scope="module")
def server(tmp_path_factory) -> Iterator[Server]:
    planted = plant(tmp_path_factory.mktemp("captions") / "run")
    plant_captions(planted)
    made = Server(planted, free_port())
    made.start()
    yield made
    made.kill()


def open_captions(page: Page, server: Server, query: str = "") -> None:
    page.goto(f"{server.address}/captions{query}")
    expect(page.locator(".pf-cap").first).to_be_visible()


def verdicts(server: Server) -> dict[str, Verdict]:
    return Decisions.open(server.planted.run.decisions).fold().captions


def cursor(page: Page, server: Server) -> int:
    """Number of the picture under the cursor."""
    return server.planted.ids.index(int(page.locator(".pf-cap-here").get_attribute("data-id") or 0))


def within(page: Page, holds: Callable[[], bool]) -> None:
    """Wait until something holds, while the page goes on."""
    deadline = time.monotonic() + 20
    while not holds():
        assert time.monotonic() < deadline
        page.wait_for_timeout(20)


def saved(page: Page) -> None:
    expect(page.locator(".pf-saving")).to_have_text("saved")


def test_keys_keep_edit_reject_choose_and_undo_and_what_counts_is_what_is_released(page, server, seen):
    open_captions(page, server)
    names = {number: row_of(server.planted, number)["caption_id"] for number in (0, 1, 3, 5)}

    assert cursor(page, server) == 0
    page.keyboard.press("a")
    expect(page.locator(".pf-cap").first).to_have_attribute("data-state", "kept")
    page.keyboard.press("e")
    page.locator(".pf-cap-edit").fill("mine <b>and</b> mine alone")
    page.keyboard.press("Control+Enter")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("2")  # of the captioner before
    page.keyboard.press("a")
    page.keyboard.press("r")
    page.get_by_role("button", name="makes something up").click()
    saved(page)

    said = verdicts(server)
    before = row_of(server.planted, 3, BEFORE)["caption_id"]
    assert {name: (verdict.action, verdict.text, verdict.reason) for name, verdict in said.items()} == {
        names[0]: ("keep", None, None),
        names[1]: ("keep", "mine <b>and</b> mine alone", None),
        before: ("keep", None, None),
        names[5]: ("reject", None, "makes something up"),
    }
    states = page.locator(".pf-cap").evaluate_all(
        "cards => cards.slice(0, 5).map((card) => card.dataset.state)"
    )
    assert states == ["kept", "edited", "kept", "rejected", "new"]
    chosen = chosen_captions(server.planted.run, said, ())
    with urllib.request.urlopen(f"{server.address}/api/captions?limit=200") as reply:
        cards = json.load(reply)["cards"]
    assert {int(card["id"]): card["text"] for card in cards} == {
        number: choice.text for number, choice in chosen.items()
    }

    page.reload()
    expect(page.locator(".pf-cap").nth(1).locator(".pf-cap-text").first).to_have_text(
        "mine <b>and</b> mine alone"
    )
    held = []  # a slow server: each answer comes when the next undo waits already
    page.route("**/api/decisions", lambda route, _: held.append(route))
    page.keyboard.press("u")
    for last in (False, False, True):
        within(page, lambda: len(held) == 1)
        if not last:
            page.keyboard.press("u")
        held.pop().continue_()
    eventually(lambda: set(verdicts(server)) == {names[0], names[1]}, "three undos")
    expect(page.locator(".pf-cap").nth(3)).to_have_attribute("data-state", "new")
    assert seen.errors == []


def test_a_caption_is_kept_without_what_it_guesses_by_one_key(page, server, seen):
    open_captions(page, server, "?flag=speculating")
    number = cursor(page, server)
    row = row_of(server.planted, number)
    marked = page.locator(".pf-cap-here mark").all_inner_texts()
    assert " ".join(marked) == "It might be a wall, possibly."

    page.keyboard.press("c")
    saved(page)

    verdict = verdicts(server)[row["caption_id"]]
    assert (verdict.action, verdict.text) == ("keep", row["clean_caption"])
    assert cursor(page, server) != number and seen.errors == []


def test_flags_states_and_orders_are_in_the_address_and_hostile_text_stays_text(page, server, seen):
    open_captions(page, server)
    expect(page.locator(".pf-cap").nth(1)).to_contain_text(HOSTILE[:40])

    page.get_by_label("Flag", exact=True).select_option("loops")
    expect(page.locator(".pf-cap .pf-chip-bad").first).to_have_text("loops")
    page.get_by_label("Order").select_option("-repetition")
    expect(page).to_have_url(re.compile("sort=-repetition&at="))
    shown = page.locator(".pf-cap").evaluate_all("cards => cards.map((card) => card.dataset.id)")
    page.locator(".pf-cap").nth(2).locator(".pf-cap-text").first.click()
    expect(page).to_have_url(re.compile(f"at={shown[2]}"))
    fresh = page.context.new_page()
    seen.watch(fresh)
    fresh.goto(page.url)

    expect(fresh.locator(".pf-cap-here")).to_have_attribute("data-id", shown[2])
    expect(page).to_have_url(re.compile("flag=loops"))
    expect(page).to_have_url(re.compile("sort=-repetition"))
    assert page.evaluate("window.ran") is None
    assert {url.split("/")[2] for url in seen.urls if url.startswith("http")} == {f"127.0.0.1:{server.port}"}
    assert seen.errors == []


def test_a_try_of_two_prompts_is_shown_side_by_side_and_chosen_for_the_run(page, server, seen):
    open_captions(page, server)
    form = page.get_by_label("Captioning", exact=True)
    form.get_by_label("detail").uncheck()
    form.get_by_label("short").check()
    form.get_by_label("Pictures to try on").fill("2")

    form.get_by_role("button", name="Try").click()
    table = page.locator(".pf-cap-table")
    expect(table.locator("tbody tr")).to_have_count(2, timeout=JOB_MS)

    expect(table.locator("thead th")).to_have_count(3)
    texts = table.locator("tbody tr").first.locator(".pf-cap-text").all_inner_texts()
    assert len(texts) == 2 and all(texts)
    expect(page).to_have_url(re.compile("preview="))
    job = list_jobs(server.planted.run)[0]
    assert (job.state, job.command[2:6]) == ("done", ["--prompt", "laion-pop", "--prompt", "short"])
    table.get_by_role("button", name="Use for the run").nth(1).click()
    eventually(
        lambda: 'prompt = "short"' in server.planted.run.config.read_text(), "the prompt was not saved"
    )
    assert "# Id of the prompt" in server.planted.run.config.read_text()
    page.keyboard.press("Escape")
    expect(page.locator(".pf-cap").first).to_be_visible()
    assert seen.errors == []


def test_another_caption_is_asked_for_all_that_the_filters_show(page, server, seen):
    open_captions(page, server, "?flag=loops")
    shown = page.locator(".pf-cap").evaluate_all("cards => cards.map((card) => card.dataset.id)")
    page.get_by_role("button", name=f"Ask again for the {len(shown)} shown").click()
    dialog = page.get_by_role("dialog", name="Caption again")
    dialog.get_by_label("Prompt").select_option("short")
    dialog.get_by_role("button", name="Ask", exact=True).click()

    for picture in shown:
        blocks = page.locator(f'.pf-cap[data-id="{picture}"] .pf-cap-block')
        expect(blocks.filter(has_text="demo-llava · short")).to_have_count(1, timeout=JOB_MS)
    job = list_jobs(server.planted.run)[0]
    assert (job.state, job.command[0]) == ("done", "caption")
    assert {word for word in job.command if word in shown} == set(shown)
    strip = page.locator(".pf-cap-run .pf-job")
    expect(strip).to_have_attribute("data-state", "done")
    expect(strip).to_contain_text(f"{job.done} of {job.total} {job.unit}")
    assert job.done == len(shown) and seen.errors == []


def test_without_its_server_the_page_keeps_what_was_decided_until_it_is_back(page, server):
    open_captions(page, server, "?show=new")
    number = cursor(page, server)
    server.kill()
    page.keyboard.press("a")
    expect(page.locator(".pf-saving")).to_have_text("1 not saved, retrying")
    server.start()
    saved(page)

    assert row_of(server.planted, number)["caption_id"] in verdicts(server)


def test_the_page_finds_the_caption_that_counts_as_the_release_does_on_random_verdicts(page, server):
    generator = random.Random(7)
    cards, wanted = [], []
    for number in range(400):
        rows, verdicts_ = [], {}
        for place in range(generator.randint(0, 4)):
            name = f"{number}-{place}"
            failed = generator.random() < 0.25
            rows.append(
                {"caption_id": name, "own": place == 0 or generator.random() < 0.3}
                | {"status": "failed" if failed else "captioned", "reason": "empty" if failed else None}
                | {"caption": None if failed else f"words {place}"}
            )
            action = generator.choice(["keep", "reject", None])
            if action is not None:
                text = f"mine {place}" if action == "keep" and generator.random() < 0.5 else None
                event = generator.randint(1, 10**6)
                verdicts_[name] = Verdict(action=action, curator="ada", event=event, text=text)
        own = [row for row in rows if row["own"]]
        choice = choose(own, [row for row in rows if not row["own"]], verdicts_)
        wanted.append([choice.text, choice.edited_by, STATES[state_of(choice, verdicts_)]])
        for row in own + [row for row in rows if not row["own"]]:
            said = verdicts_.get(row["caption_id"])
            row |= {"decision": said and said.action, "curator": said and said.curator}
            row |= {"edited": said and said.text, "event": said.event if said else 0}
        cards.append({"id": str(number), "captions": own + [row for row in rows if not row["own"]]})
    page.goto(f"{server.address}/captions")

    shown = page.evaluate(
        """async (cards) => {
          const main = document.querySelector('script[type="module"][src$="/main.js"]').src;
          const { settle } = await import(main.replace("main.js", "captions/state.js"));
          return cards.map((card) => { settle(card); return [card.text, card.edited_by, card.state]; });
        }""",
        cards,
    )

    assert shown == wanted


def test_a_captioning_run_is_estimated_started_with_the_chosen_prompt_and_followed_to_its_end(
    page, server, seen
):
    open_captions(page, server)
    form = page.get_by_label("Captioning", exact=True)
    expect(form.get_by_label("Engine")).to_have_value("embedded")
    form.get_by_label("Prompt", exact=True).select_option("detail")
    form.get_by_role("button", name="Save to popfactory.toml").click()
    eventually(lambda: load_config(server.planted.run.config).caption.prompt == "detail", "the prompt")
    form.get_by_role("button", name="Estimate").click()
    pictures = len(selected(server.planted))
    expect(form.get_by_text(f"{pictures} of {pictures} would be asked")).to_be_visible()

    form.get_by_role("button", name="Caption", exact=True).click()

    expect(form.locator(".pf-job")).to_contain_text(f"{pictures} of {pictures} pictures", timeout=JOB_MS)
    expect(form.locator(".pf-job")).to_have_attribute("data-state", "done", timeout=JOB_MS)
    job = list_jobs(server.planted.run)[0]
    assert (job.command[0], job.state, job.done, job.total) == ("caption", "done", pictures, pictures)
    counts = Counter(row["status"] for row in rows_now(server))
    expect(form).to_contain_text(
        f"{counts['captioned']} captioned, {counts['failed']} failed, 0 not asked yet."
    )
    assert {row["prompt_id"] for row in rows_now(server)} == {"detail"} and seen.errors == []


def rows_now(server: Server) -> list[dict]:
    """What the captioner asked now wrote."""
    return read_parts(server.planted.run.captions, CAPTIONS).to_pylist()
