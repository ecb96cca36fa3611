"""What a search found outside all neighbours and a person keeps: through fetch, select and release as any candidate."""

import pytest

from curation.candidates import fetched_reach
from curation.dataset import assemble
from curation.decisions import Decisions, Event, read_verdicts
from curation.fetched_images import fetch
from curation.found import FOUND, found_text, values_of
from curation.funnel import funnel
from curation.selection import select
from curation.story import why
from spine.lists import BlockLists
from spine.manifest import read_manifest
from spine.settings import ListsConfig
from spine.table_files import read_parts, read_table
from spine.tables import CAPTIONS, IMAGES, SELECTION
from tests.integration.curation_runs import CONFIG, Planted, caption_all, local, plant, score_all, with_lists


@pytest.fixture
def found(tmp_path):
    """Four pictures of the pool that no centroid has: plain, small, taken down, and one file that is gone."""
    rows = [local(tmp_path / "pool", number) for number in (100, 101, 102, 103)]
    small = local(tmp_path / "pool", 104, width=16, height=8)
    rows[1] = small
    (tmp_path / "pool" / "103.png").unlink()
    return rows


@pytest.fixture
def run(tmp_path, found):
    neighbours = [local(tmp_path / "own", number) for number in range(4)]
    planted = plant(
        tmp_path / "run", [Planted(each // 2, each % 2, row) for each, row in enumerate(neighbours)]
    )
    with_lists(planted, CONFIG, takedown=f"{found[2]['id']}\n")
    return planted


def keep(run, rows, centroid=1, seq=1):
    told = {row["id"]: values_of(row | {"similarity": 0.3}) for row in rows}
    event = Event(
        client="t",
        seq=seq,
        curator="ada",
        action="keep",
        target="image",
        ids=tuple(told),
        centroid_id=centroid,
        tag=FOUND,
        text=found_text("text:stars", told),
    )
    Decisions.open(run.decisions).record([event])


def bring_up_to_date(run):
    fetch(run)
    score_all(run)
    select(run)
    return {row["id"]: row for row in read_table(run.selection_table, SELECTION).to_pylist()}


def test_a_kept_find_is_fetched_and_selected_and_every_gate_holds_for_it(run, found):
    before = bring_up_to_date(run)
    keep(run, found)
    rows = bring_up_to_date(run)

    plain, small, taken, gone = (rows[row["id"]] for row in found)
    assert (plain["centroid_id"], plain["rank"], plain["verdict"], plain["rule"]) == (
        1,
        2,
        "selected",
        "person",
    )
    assert (small["verdict"], small["rule"]) == ("selected", "person")  # a person beats a filter
    assert (taken["verdict"], taken["rule"]) == ("rejected", "takedown")
    assert (gone["verdict"], gone["rule"]) == ("rejected", "unfetched")
    assert set(rows) == {*before, *(row["id"] for row in found)}
    counts = read_manifest(run.selection).counts
    by_rule = sum(count for name, count in counts.items() if name.startswith("rejected_"))
    assert counts["candidates"] == len(rows) == counts["selected"] + by_rule
    images = read_manifest(run.images).counts
    assert images["candidates"] == images["fetched"] + images["failed"] == len(rows)
    assert read_parts(run.images, IMAGES).num_rows == images["candidates"]
    assert any("a search found it" in line for line in why(run, found[0]["id"]))


def test_what_is_found_is_released_with_what_the_pool_says_of_it(run, found):
    keep(run, found[:1])
    bring_up_to_date(run)
    caption_all(run)

    lists = BlockLists.load(ListsConfig(), run.folder)
    rows = {row["id"]: row for row in assemble(run, lists, read_verdicts(run)).table.to_pylist()}

    row = rows[found[0]["id"]]
    assert (row["alt_txt"], row["key"], row["centroid_id"]) == ("number 100", "100", 1)
    assert row["selected_by"] == "ada" and len(rows) == len(read_parts(run.captions, CAPTIONS))
    assert [step.count for step in funnel(run) if step.label == "selected"] == [len(rows)]


def test_without_its_keep_it_is_no_candidate_at_once_and_the_next_fetch_forgets_it(run, found):
    before = bring_up_to_date(run)
    keep(run, found[:1])
    bring_up_to_date(run)
    Decisions.open(run.decisions).undo(1, client="t", seq=2, curator="ada")

    select(run)
    assert {row["id"] for row in read_table(run.selection_table, SELECTION).to_pylist()} == set(before)
    assert fetched_reach(run).found is not None

    assert set(bring_up_to_date(run)) == set(before)
    assert fetched_reach(run).found is None and not run.found_table.exists()


def test_what_a_centroid_has_among_its_neighbours_stays_its_neighbour(run, tmp_path):
    own = local(tmp_path / "own", 0)  # the nearest of centroid 0
    keep(run, [own], centroid=1)

    row = bring_up_to_date(run)[own["id"]]

    assert (row["centroid_id"], row["rank"], row["rule"]) == (0, 0, "person")
    assert fetched_reach(run).found is None
