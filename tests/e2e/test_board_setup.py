"""The Setup page in a real browser: what stands, and settings that are changed."""

import re

from playwright.sync_api import Page, expect

from spine.config import load_config
from tests.e2e.board_server import eventually


def table(page: Page, name: str):
    return page.locator(f'details[data-table="{name}"]')


def test_servers_lists_models_and_disk_are_told_and_what_to_do_about_each(page, server, seen):
    run = server.planted.run
    hostile = "<img src=x onerror='window.ran=1'>.txt"
    (run.folder / hostile).write_text("example.org\n")
    text = run.config.read_text()
    text = text.replace("takedown = []", f'takedown = ["{hostile}", "gone.txt"]')
    run.config.write_text(text.replace("endpoints = []", 'endpoints = ["http://127.0.0.1:9/v1"]'))

    page.goto(f"{server.address}/setup")

    expect(page.get_by_text("No server: search by text and picture is off.")).to_be_visible()
    expect(page.get_by_text("gone.txt: can't be read").first).to_be_visible()
    expect(page.get_by_text("Until it can be read, no page shows pictures.")).to_be_visible()
    expect(page.locator(".pf-set-list li").first).to_contain_text("can't be reached")
    expect(page.get_by_text("demo model", exact=True).first).to_be_visible()
    expect(page.locator(".pf-set-disk")).to_contain_text("images/")
    expect(page.locator('tr[data-filter="min_side_px"]')).to_contain_text("at work")
    expect(page.locator('tr[data-filter="violence_max"]')).to_contain_text("no limit is set")
    (run.folder / "gone.txt").write_text("1\n2\n")
    page.get_by_role("button", name="Look again").click()
    expect(page.get_by_text("Until it can be read")).to_have_count(0)
    expect(page.get_by_role("region", name="Lists")).to_contain_text(hostile)
    assert page.evaluate("window.ran") is None
    assert [error for error in seen.errors if "409" not in error] == []


def test_a_setting_is_changed_with_its_comment_kept_a_wrong_one_refused_and_a_second_editor_noticed(
    page, server, seen
):
    config = server.planted.run.config
    page.goto(f"{server.address}/setup")
    table(page, "filters").locator("summary").click()
    side = page.get_by_label("[filters] min_side_px")
    expect(side).to_have_value("64")

    side.fill("-5")
    save = page.get_by_role("button", name="Save 1 to popfactory.toml")
    save.click()
    expect(page.get_by_role("alert")).to_contain_text("[filters] min_side_px = -5, 0 or more was needed")
    side.fill("640")
    save.click()
    expect(page.get_by_role("alert")).to_contain_text("Saved")
    assert load_config(config).filters.min_side_px == 640
    assert "# Pixels of the shorter side at least." in config.read_text()

    config.write_text(config.read_text().replace("min_side_px = 640", "min_side_px = 512"))
    page.get_by_label("[filters] min_side_px").fill("1024")
    save.click()
    expect(page.get_by_role("alert")).to_contain_text("changed since you read it")
    expect(save).to_be_visible()  # what was typed is still there, on the file as it is now
    save.click()
    eventually(lambda: load_config(config).filters.min_side_px == 1024, "the change")


def test_every_document_is_linked_and_every_link_leads_to_its_text(page, server, root):
    page.goto(f"{server.address}/setup")
    links = page.locator(".pf-set-docs a")
    expect(links.first).to_be_visible()

    found = {str(link.get_attribute("href")): link.inner_text() for link in links.all()}

    assert set(found) == {f"/docs/{path.name}" for path in (root / "docs").glob("*.md")}
    for address, title in found.items():
        answer = page.request.get(server.address + address)
        assert answer.headers["content-type"].startswith("text/plain"), address
        assert answer.text() == (root / address.lstrip("/")).read_text() and title in answer.text()
    assert page.request.get(f"{server.address}/docs/gone.md").status == 409
    assert page.request.get(f"{server.address}/docs/..%2FREADME.md").status in (404, 409)


def test_settings_are_searched_and_the_view_is_in_the_address(page, server):
    page.goto(f"{server.address}/setup?settings=changed")
    expect(page.get_by_label("Which settings")).to_have_value("changed")
    expect(table(page, "clip")).to_have_attribute("open", "")

    page.get_by_label("Which settings").select_option("all")
    page.get_by_label("Search settings").fill("near_dup")

    expect(page.locator("tr[data-setting]")).to_have_count(1)
    expect(page).not_to_have_url(re.compile("settings="))
