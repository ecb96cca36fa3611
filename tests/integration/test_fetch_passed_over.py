"""What the filters reject by the pool's own word is not fetched; people and looser filters bring it in."""

from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from curation.decisions import Decisions
from curation.fetched_images import fetch
from curation.funnel import funnel
from curation.selection import select
from curation.story import why
from spine.config import write_config
from spine.run import Run
from spine.settings import Config
from spine.table_files import read_parts, read_table
from spine.tables import IMAGES, NEIGHBOURS, SELECTION
from tests.integration.curation_runs import CONFIG, Planted, by_address, plant, score_all, with_lists
from tests.integration.test_centroid_settings import decide, id_at
from tests.integration.test_curation_fetch import Site, loopback, rows_by_id, site

__all__ = ["site"]

SAID = [
    {},  # the pool says nothing
    {"width": 15, "height": 800},
    {"pwatermark": 0.93},
    {"width": 800, "height": 900, "pwatermark": 0.2},
    {"punsafe": 0.99, "width": 15, "height": 15},
    {"punsafe": 0.99},
]
RULES_BY_RANK = {1: "min_side_px", 2: "pwatermark_max", 4: "min_side_px", 5: "punsafe_max"}
STRICT = replace(CONFIG, filters=replace(CONFIG.filters, punsafe_max=0.5))


def planted(folder: Path, address: str, config: Config = STRICT, centroids: int = 1) -> Run:
    rows = [
        Planted(c, rank, by_address(f"{address}/p/{rank}", rank) | said)
        for c in range(centroids)
        for rank, said in enumerate(SAID)
    ]
    return plant(folder, rows, config)


def outcome(run: Run) -> list[dict]:
    """The selection; what the pool says of watermarks counts before a classifier's word."""
    ids = {
        row["id"]
        for row in read_parts(run.neighbours, NEIGHBOURS, ["id", "pwatermark"]).to_pylist()
        if row["pwatermark"]
    }
    score_all(run, watermark=dict.fromkeys(ids))
    select(run)
    return read_table(run.selection_table, SELECTION).to_pylist()


@pytest.mark.parametrize("unknown", ["keep", "drop"])
def test_what_the_pool_says_is_asked_before_the_web_and_every_table_tells_the_same(tmp_path, site, unknown):
    Site.asked.clear()
    run = planted(tmp_path / "run", site, replace(STRICT, filters=replace(STRICT.filters, unknown=unknown)))

    with loopback(site) as web:
        manifest = fetch(run, depths=[6], web=web)

    counts = Counter(RULES_BY_RANK.values())
    assert manifest.counts == {
        "candidates": 6,
        "fetched": 2,
        "rejected": 4,
        "failed": 0,
        **{f"rejected_{rule}": count for rule, count in sorted(counts.items())},
    }
    assert {path for path in Site.asked if path.startswith("/p/")} == {"/p/0", "/p/3"}
    rows = {row["id"]: row for row in read_parts(run.images, IMAGES).to_pylist()}
    selection = outcome(run)
    for row in selection:
        image, rule = rows[row["id"]], RULES_BY_RANK.get(row["rank"], "selected")
        assert (row["rule"], image["status"]) == (rule, "fetched" if rule == "selected" else "rejected")
        assert (image["reason"] or "selected", image["attempts"]) == (rule, int(rule == "selected"))
        told = [line for line in why(run, row["id"]) if rule in line]
        assert len(told) == (1 if rule == "selected" else 2), "fetch and select name the same rule"
    (step,) = [step for step in funnel(run) if step.label == "fetched"]
    assert (step.count, step.losses) == (2, dict(sorted(counts.items())))


def test_a_looser_threshold_brings_them_in_as_if_it_had_never_been_tighter(tmp_path, site):
    run, fresh = planted(tmp_path / "run", site), planted(tmp_path / "fresh", site, CONFIG)

    with loopback(site) as web:
        fetch(run, depths=[6], web=web)
        strict = outcome(run)
        write_config(run.config, CONFIG)
        score_all(run)
        select(run)
        stale = read_table(run.selection_table, SELECTION).to_pylist()
        Site.asked.clear()
        loosened = fetch(run, web=web)
        asked = set(Site.asked)
        fetch(fresh, depths=[6], web=web)

    assert [row["rule"] for row in strict].count("selected") == 2
    assert (stale[5]["rule"], stale[5]["detail"]) == ("unfetched", "passed over by punsafe_max; fetch again")
    assert "/p/5" in asked and not asked & {"/p/0", "/p/1", "/p/2", "/p/3", "/p/4"}
    assert loosened.counts == {
        "candidates": 6,
        "fetched": 3,
        "rejected": 3,
        "failed": 0,
        "rejected_min_side_px": 2,
        "rejected_pwatermark_max": 1,
    }
    for number, row in rows_by_id(run).items():
        assert row | {"image_path": None} == rows_by_id(fresh)[number] | {"image_path": None}
    assert outcome(run) == outcome(fresh)


def test_a_keep_brings_in_what_the_filters_passed_over_and_its_undoing_keeps_it_but_selects_it_no_more(
    tmp_path, site
):
    run = planted(tmp_path / "run", site)
    with loopback(site) as web:
        fetch(run, depths=[6], web=web)
        number = id_at(run, 0, 2)
        event = decide(run, "keep", "image", number, centroid_id=0)
        kept = fetch(run, web=web)
        chosen = {row["id"]: row["rule"] for row in outcome(run) if row["verdict"] == "selected"}
        Decisions.open(run.decisions).undo(event, client="tab", seq=9, curator="ada")
        undone = fetch(run, web=web)

    assert (kept.counts["fetched"], kept.counts["rejected"]) == (3, 3)
    assert chosen[number] == "person"
    assert undone.counts == kept.counts
    assert {row["id"] for row in outcome(run) if row["verdict"] == "selected"} == set(chosen) - {number}


def test_a_centroid_of_looser_filters_brings_a_picture_in_and_the_others_still_turn_it_away(tmp_path, site):
    run = planted(tmp_path / "run", site, centroids=2)
    decide(run, "set", "centroid", 1, tag="pwatermark_max", text="null")

    with loopback(site) as web:
        manifest = fetch(run, depths=[6, 6], web=web)

    assert (manifest.counts["fetched"], manifest.counts["rejected"]) == (3, 3)
    verdicts = {(row["centroid_id"], row["rank"]): row["rule"] for row in outcome(run)}
    assert (verdicts[0, 2], verdicts[1, 2]) == ("pwatermark_max", "selected")


def test_a_list_is_named_before_a_filter_and_a_failure_is_not_asked_for_again_once_it_is_passed_over(
    tmp_path, site
):
    run = planted(tmp_path / "run", site)
    with_lists(run, STRICT, takedown=f"{site}/p/1\n")

    with loopback(site) as web:
        manifest = fetch(run, depths=[6], web=web)
        with_lists(run, STRICT)
        unlisted = fetch(run, web=web)

    assert (manifest.counts["failed_takedown"], manifest.counts["rejected_min_side_px"]) == (1, 1)
    assert (unlisted.counts["failed"], unlisted.counts["rejected_min_side_px"]) == (0, 2)


def test_local_pictures_are_passed_over_too_and_a_finished_fetch_does_nothing(tmp_path):
    rows = [
        Planted(0, rank, {"id": rank, "image_path": str(tmp_path / f"{rank}.png"), "width": 8, "height": 8})
        for rank in range(3)
    ]
    run = plant(tmp_path / "run", rows)

    manifest = fetch(run)

    assert manifest.counts["rejected_min_side_px"] == 3
    assert fetch(run) == manifest
    assert fetch(run, force=True).counts == manifest.counts
