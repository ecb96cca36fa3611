import json
import random
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from curation.decisions import Decisions, Event
from curation.funnel import funnel
from curation.selection import select
from curation.verdicts import Verdict
from spine.config import Config, load_config, with_demo_models, write_config
from spine.filters import judge
from spine.publish import publish_table
from spine.run import part_path
from spine.settings import AestheticMin, FiltersConfig, ListsConfig, SelectConfig
from spine.table_files import read_table
from spine.tables import NEIGHBOURS, POOL_SIMILARITIES, SELECTION, centroids_schema
from tests.unit.ui.planted import EACH, HOSTILE, D, pass_over, plant, state_of, unsafe_of
from ui.board import (
    Measured,
    centroid_rows,
    funnel_rows,
    judged_values,
    neighbour_rows,
    unsafe_limit,
)
from ui.desk import Desk
from ui.snapshot import Snapshot


def _nothing_blocked(_picture: int, _url: str | None, _image: dict) -> str | None:
    return None


@pytest.fixture
def snapshot(planted) -> Snapshot:
    return Snapshot(planted.run)


def _measured(snapshot: Snapshot, ids: list[int]) -> Measured:
    wanted = np.array(ids, dtype=np.int64)
    return Measured(
        snapshot.images().rows(wanted),
        snapshot.scores().rows(wanted),
        snapshot.groups().rows(wanted),
        snapshot.captions().rows(wanted),
    )


def _rows(
    snapshot: Snapshot, centroid: int = 0, verdicts: dict | None = None, blocks=_nothing_blocked
) -> list[dict]:
    neighbours = snapshot.neighbours(centroid)
    measured = _measured(snapshot, neighbours.column("id").to_pylist())
    selection = snapshot.selection()
    chosen = selection.filter(pa.compute.equal(selection.column("centroid_id"), centroid))
    return neighbour_rows(neighbours, measured, chosen, verdicts or {}, snapshot.config(), blocks)


def test_every_neighbour_has_a_row_in_order_of_rank_with_its_planted_values(planted, snapshot):
    rows = _rows(snapshot, centroid=1)

    assert [row["id"] for row in rows] == [str(picture) for picture in planted.ids[EACH : 2 * EACH]]
    assert [row["rank"] for row in rows] == list(range(EACH))
    for number, row in zip(range(EACH, 2 * EACH), rows, strict=True):
        assert row["state"] == state_of(number)
        if state_of(number) == "ready":
            assert row["sha256"] == planted.hashes[number]
            assert row["punsafe"] == pytest.approx(unsafe_of(number))
            assert min(row["width"], row["height"]) == (48 if number % 5 == 4 else 80)
        else:
            assert row["sha256"] is None


def test_a_picture_passed_over_says_which_rule_and_is_neither_gone_nor_to_come(planted):
    pass_over(planted, [3], "min_side_px")

    rows = _rows(Snapshot(planted.run))

    told = {name: rows[3][name] for name in ("state", "reason", "message", "sha256")}
    reason = "shorter side too small"
    assert told == {"state": "passed_over", "reason": reason, "message": "the pool says 300", "sha256": None}
    assert [row["state"] for row in rows].count("passed_over") == 1


def test_pictures_above_the_unsafe_limit_or_without_a_score_are_blurred_and_no_others(snapshot):
    blurred = {row["rank"] for row in _rows(snapshot) if row["state"] == "ready" and row["blurred"]}

    assert blurred == {
        number for number in range(EACH) if state_of(number) == "ready" and unsafe_of(number) in (0.9, None)
    }


def test_the_unsafe_limit_is_the_runs_own_where_it_is_set():
    assert unsafe_limit(FiltersConfig()) == 0.5
    assert unsafe_limit(FiltersConfig(punsafe_max=0.2)) == 0.2


def test_rows_survive_json_with_64_bit_ids_as_text(planted, snapshot):
    rows = json.loads(json.dumps(_rows(snapshot), allow_nan=False))

    assert [int(row["id"]) for row in rows] == planted.ids[:EACH]
    assert any(abs(int(row["id"])) > 2**53 for row in rows)


def test_a_persons_verdict_and_the_selections_stand_side_by_side(planted, snapshot):
    rows = _rows(snapshot, verdicts={planted.ids[4]: Verdict(action="keep", curator="ada", event=1)})

    assert (rows[4]["decision"], rows[4]["curator"]) == ("keep", "ada")
    assert (rows[4]["verdict"], rows[4]["rule"]) == ("rejected", "min_side_px")
    assert rows[0]["decision"] is None and rows[0]["verdict"] == "selected"


def test_of_a_picture_that_a_list_keeps_out_nothing_leaves_but_that_it_is_kept_out(planted, snapshot):
    rows = _rows(
        snapshot,
        blocks=lambda picture, url, image: "takedown" if image["sha256"] == planted.hashes[0] else None,
    )

    assert rows[0]["state"] == "blocked"
    assert {"sha256", "text", "caption", "address"} & rows[0].keys() == set()
    assert planted.hashes[0] not in json.dumps(rows)
    assert rows[1]["state"] == "ready"


def test_a_near_duplicate_names_the_picture_that_stands_for_it(planted, snapshot):
    rows = _rows(snapshot)

    assert (rows[2]["duplicate_of"], rows[2]["group_size"]) == (str(planted.ids[1]), 2)
    assert (rows[1]["duplicate_of"], rows[1]["group_size"]) == (None, 2)
    assert (rows[0]["duplicate_of"], rows[0]["group_size"]) == (None, 1)


def test_the_list_of_centroids_counts_neighbours_selected_and_decided(planted, snapshot):
    chosen = snapshot.selection().to_pylist()
    expected = sum(row["verdict"] == "selected" and row["centroid_id"] == 1 for row in chosen)

    rows = centroid_rows(
        snapshot.centroids(),
        snapshot.neighbour_counts(),
        snapshot.selection(),
        {1: (3, 2)},
        {2: Verdict(action="reject", curator="ada", event=1, reason="too odd")},
        snapshot.exemplars().table,
        0.5,
    )

    assert [row["centroid"] for row in rows] == ["0", "1", "2"]
    assert rows[1]["label"] == HOSTILE
    assert (rows[1]["neighbours"], rows[1]["selected"]) == (EACH, expected)
    assert (rows[1]["kept"], rows[1]["rejected"], rows[0]["kept"]) == (3, 2, 0)
    assert [row["state"] for row in rows] == [None, None, "out"] and rows[2]["reason"] == "too odd"
    assert [entry["sha256"] for entry in rows[1]["exemplars"]] == planted.hashes[2:4]


def test_values_unknown_to_the_scorers_come_from_the_pool_as_in_select(snapshot):
    neighbours = snapshot.neighbours(0)
    pool = pa.array([0.7] * EACH, pa.float32())
    at = neighbours.schema.get_field_index("punsafe")
    neighbours = neighbours.set_column(at, NEIGHBOURS.field("punsafe"), pool)

    unsafe = judged_values(neighbours, _measured(snapshot, neighbours.column("id").to_pylist())).column(
        "punsafe"
    )

    wanted = [
        unsafe_of(number) if state_of(number) == "ready" and unsafe_of(number) is not None else 0.7
        for number in range(EACH)
    ]
    assert unsafe.to_pylist() == pytest.approx(wanted)


def test_rows_carry_exactly_what_the_filters_judge(snapshot):
    """A plain loop over the rows, as the page does it, gives what spine.filters gives, unknown values included."""
    generator = random.Random(7)
    neighbours = snapshot.neighbours(2)
    values = judged_values(neighbours, _measured(snapshot, neighbours.column("id").to_pylist()))
    ready = [number for number in range(EACH) if state_of(number) == "ready"]
    rows = [_rows(snapshot, centroid=2)[number] for number in ready]
    for _ in range(200):
        config = FiltersConfig(
            min_side_px=generator.choice([0, 48, 49, 80, 81]),
            pwatermark_max=generator.choice([None, 0.1, 0.5, 0.95]),
            punsafe_max=generator.choice([None, 0.04, 0.05, 0.9]),
            violence_max=generator.choice([None, -0.4, 0.0, 0.1, 0.15]),
            aesthetic_min=AestheticMin(value=generator.choice([None, 3.0, 3.5, 4.2])),
            unknown=generator.choice(["keep", "drop"]),
        )
        expected = judge(values.take(pa.array(ready)), config).passed.tolist()
        assert [_passes(row, config) for row in rows] == expected


def _passes(row: dict, config: FiltersConfig) -> bool:
    side = min(row["width"], row["height"])
    trials = (
        (side, config.min_side_px or None, lambda value, limit: value >= limit),
        (row["pwatermark"], config.pwatermark_max, lambda value, limit: value <= limit),
        (row["punsafe"], config.punsafe_max, lambda value, limit: value <= limit),
        (row["violence"], config.violence_max, lambda value, limit: value <= limit),
        (row["aesthetic"], config.aesthetic_min.value, lambda value, limit: value >= limit),
    )
    return all(
        limit is None or (config.unknown == "keep" if value is None else holds(value, limit))
        for value, limit, holds in trials
    )


def test_the_board_leaves_in_what_select_leaves_in_by_every_filter_and_by_what_gives_no_fit(tmp_path):
    """Picture 0 is fetched without a score; 1 and 3 show something else than the pool's, and 3 is kept."""
    filters = FiltersConfig(min_side_px=64, pwatermark_max=0.8, violence_max=0.15, unknown="drop")
    settings = SelectConfig(same_picture=0.5, near_duplicate=2.0)
    planted = plant(tmp_path / "run", config=with_demo_models(Config(filters=filters, select=settings)))
    run = planted.run
    part = part_path(run.scores, 0)
    scores = pq.read_table(part)
    publish_table(part, scores.filter(pc.not_equal(scores.column("id"), planted.ids[0])))
    likeness = {"id": planted.ids[:4], "similarity": [0.9, 0.4, 0.5, 0.1]}
    publish_table(run.pool_similarities_table, pa.table(likeness, schema=POOL_SIMILARITIES))
    Decisions.open(run.decisions).record(
        [Event(client="a", seq=1, curator="ada", action="keep", target="image", ids=(planted.ids[3],))]
    )

    select(run, force=True)

    desk = Desk(run)
    rows = desk.gallery.of_centroid(0)
    desk.close()
    passing = {"selected", "quota", "near_duplicate", "other_centroid"}
    assert {row["rule"] for row in rows} > {"unscored", "changed", "violence_max"}
    for row in rows:
        if row["state"] == "ready" and row["decision"] is None:
            left_in = row["unusable"] is None and _passes(row, filters)
            assert left_in == (row["rule"] in passing), row
        elif row["state"] == "ready":
            assert (row["unusable"], row["verdict"], row["rule"]) == ("changed", "selected", "person")


def test_an_aesthetic_score_of_another_head_is_unknown_when_the_filter_names_one(planted, snapshot):
    config = replace(Config(), filters=FiltersConfig(aesthetic_min=AestheticMin(head="v2", value=4.0)))
    neighbours = snapshot.neighbours(0)
    measured = _measured(snapshot, planted.ids[:EACH])

    rows = neighbour_rows(neighbours, measured, SELECTION.empty_table(), {}, config, _nothing_blocked)

    assert {row.get("aesthetic") for row in rows} == {None}


def test_a_run_without_any_finished_stage_has_an_empty_board(tmp_path):
    from spine.config import write_config
    from spine.run import Run

    run = Run(tmp_path)
    write_config(run.config, Config())
    snapshot = Snapshot(run)

    assert snapshot.centroids().num_rows == 0
    assert snapshot.neighbours(0).num_rows == 0
    assert snapshot.images().rows(np.array([5], dtype=np.int64)).to_pylist()[0]["status"] is None
    assert snapshot.find_picture("0" * 64) is None


def test_the_funnel_shows_each_step_and_the_largest_loss_first(planted):
    rows = {row["label"]: row for row in funnel_rows(funnel(planted.run))}

    numbers = [number for number in range(3 * EACH) if state_of(number) != "pending"]
    small = sum(number % 5 == 4 for number in numbers if state_of(number) == "ready")
    losses = rows["selected"]["losses"]
    assert losses[0]["reason"] == "min_side_px" and losses[0]["count"] == small
    assert [loss["count"] for loss in losses] == sorted((loss["count"] for loss in losses), reverse=True)
    assert all(loss["meaning"] for loss in losses)
    assert rows["selected"]["count"] + sum(loss["count"] for loss in losses) == len(numbers)


def test_a_centroid_without_an_exemplar_is_shown_by_its_nearest_selected_picture(planted):
    run = planted.run
    table = read_table(run.centroids_table, centroids_schema(D))
    place = table.schema.get_field_index("exemplar_ids")
    without = pa.array([None, [], [planted.ids[4]]], table.schema.field(place).type)
    publish_table(run.centroids_table, table.set_column(place, "exemplar_ids", without))

    def pictures():
        desk = Desk(run)
        rows = desk.centroids()
        desk.close()
        return [row["exemplars"] for row in rows]

    first, second, own = pictures()
    assert (first, second) == (
        [{"sha256": planted.hashes[0], "blurred": False}],
        [{"sha256": planted.hashes[EACH], "blurred": False}],
    )
    assert own == [{"sha256": planted.hashes[4], "blurred": False}]

    (run.folder / "taken.txt").write_text(f"{planted.ids[0]}\n")
    lists = ListsConfig(takedown=("taken.txt",))
    write_config(run.config, replace(load_config(run.config), lists=lists))
    assert pictures()[:2] == [[], second]
    (run.folder / "taken.txt").unlink()
    assert pictures()[:2] == [[], []]  # a list that can't be read: no picture
