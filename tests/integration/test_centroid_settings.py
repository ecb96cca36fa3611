"""What curators set for single centroids, through fetch, select and refill over real files."""

import json
from collections import Counter
from pathlib import Path

from curation.decisions import Decisions
from curation.events import Event
from curation.fetched_images import fetch
from curation.refill import deeper
from curation.selection import select
from spine.run import Run
from spine.table_files import read_parts, read_table
from spine.tables import NEIGHBOURS, SELECTION
from tests.integration.curation_runs import CONFIG, Planted, local, plant, score_all


def grid(tmp_path: Path, centroids: int = 3, each: int = 12) -> Run:
    """Every third picture is small."""
    rows = [
        Planted(c, rank, local(tmp_path / "pool", 100 * c + rank, **({"height": 8} if rank % 3 == 0 else {})))
        for c in range(centroids)
        for rank in range(each)
    ]
    return plant(tmp_path / "run", rows)


def decide(run: Run, action: str, target: str, number: int, **values: object) -> int:
    decisions = Decisions.open(run.decisions)
    event = Event(
        client="tab",
        seq=decisions.last_event() + 1,
        curator="ada",
        action=action,
        target=target,
        ids=(number,),
        **values,  # type: ignore[arg-type]
    )
    return decisions.record([event]).recorded[event.seq]


def fill(run: Run) -> list[dict]:
    """Fetch, score and select until nothing can be gained, as the pipeline does."""
    depths = None
    while True:
        manifest = fetch(run, depths=depths)
        score_all(run)
        select(run)
        depths = deeper(run, CONFIG, manifest.parameters["depths"])
        if depths is None:
            return read_table(run.selection_table, SELECTION).to_pylist()


def selected(rows: list[dict]) -> dict[int, list[int]]:
    found: dict[int, list[int]] = {}
    for row in rows:
        if row["verdict"] == "selected":
            found.setdefault(row["centroid_id"], []).append(row["rank"])
    return found


def id_at(run: Run, centroid: int, rank: int) -> int:
    rows = read_parts(run.neighbours, NEIGHBOURS, ["centroid_id", "rank", "id"]).to_pylist()
    return next(row["id"] for row in rows if (row["centroid_id"], row["rank"]) == (centroid, rank))


def test_each_centroid_is_filled_by_its_own_quota_and_thresholds(tmp_path):
    run = grid(tmp_path)
    decide(run, "set", "centroid", 1, tag="quota_per_centroid", text="6")
    decide(run, "set", "centroid", 2, tag="min_side_px", text="0")

    rows = fill(run)

    assert selected(rows) == {0: [1, 2, 4], 1: [1, 2, 4, 5, 7, 8], 2: [0, 1, 2]}
    details = {row["detail"] for row in rows if row["rule"] == "quota" and row["centroid_id"] == 1}
    assert details <= {"6 a centroid"}


def test_undone_settings_give_the_same_selection_as_none(tmp_path):
    run = grid(tmp_path)
    plain = fill(run)
    decisions = Decisions.open(run.decisions)
    for tag, text in (("quota_per_centroid", "1"), ("min_side_px", "20")):
        event = decide(run, "set", "centroid", 0, tag=tag, text=text)
        assert fill(run) != plain
        decisions.undo(event, client="tab", seq=decisions.last_event() + 1, curator="ada")

        assert fill(run) == plain


def test_a_centroid_left_out_is_out_until_that_is_undone(tmp_path):
    run = grid(tmp_path)
    event = decide(run, "reject", "centroid", 0)
    rows = fill(run)

    assert 0 not in selected(rows)
    assert {row["rule"] for row in rows if row["centroid_id"] == 0} == {"centroid_left_out"}
    Decisions.open(run.decisions).undo(event, client="tab", seq=9, curator="ada")
    assert selected(fill(run))[0] == [1, 2, 4]


def test_a_refill_brings_in_as_many_neighbours_as_asked_for(tmp_path):
    run = grid(tmp_path)
    before = fetch(run).parameters["depths"]
    decide(run, "refill", "centroid", 2, text=json.dumps(11))

    after = fetch(run).parameters["depths"]

    assert after == [*before[:2], 11]
    assert Counter(row["centroid_id"] for row in fill(run))[2] == 11


def test_a_kept_picture_beyond_the_depth_is_fetched_and_selected(tmp_path):
    run = grid(tmp_path)
    depths = fetch(run).parameters["depths"]
    assert depths[1] < 11
    number = id_at(run, 1, 11)
    event = decide(run, "keep", "image", number, centroid_id=1)

    rows = fill(run)

    kept = [row for row in rows if row["id"] == number]
    assert [(row["centroid_id"], row["rank"], row["verdict"], row["rule"]) for row in kept] == [
        (1, 11, "selected", "person")
    ]
    assert Counter(row["centroid_id"] for row in rows)[1] == depths[1] + 1
    Decisions.open(run.decisions).undo(event, client="tab", seq=9, curator="ada")
    assert number not in {row["id"] for row in fill(run)}
