from dataclasses import replace

import pyarrow as pa
import pytest

from curation.decisions import Decisions, Event
from spine.publish import publish_table
from spine.run import part_path
from spine.stage import Stage
from spine.table_files import read_parts
from spine.tables import IMAGES
from tests.unit.ui.planted_captions import plant_captions
from ui.desk import Desk
from ui.release_figures import ReleaseFigures


@pytest.fixture
def figures(planted):
    plant_captions(planted)
    desk = Desk(planted.run)
    yield ReleaseFigures(desk)
    desk.close()


def test_what_hosts_reserve_is_counted_of_selected_pictures_and_what_was_left_for_it(planted, figures):
    run = planted.run
    rows = read_parts(run.images, IMAGES).to_pylist()
    for number, row in enumerate(rows):
        if row["status"] == "failed":
            row["reason"] = "opted_out"
        else:
            row["opt_out"] = [None, "none", "noai"][number % 3]
    stage = Stage.open("images", run.images, {"depths": [28, 28, 28]}, {}, force=True)
    publish_table(part_path(run.images, 0), pa.Table.from_pylist(rows, schema=IMAGES))
    stage.finish({"images": len(rows)})
    chosen = set(figures._desk.snapshot.selection().filter(_selected(figures))["id"].to_pylist())

    rights = figures.figures()["rights"]

    said = [row["opt_out"] for row in rows if row["id"] in chosen]
    assert rights == {
        "nothing": said.count("none"),
        "reserved": said.count("noai"),
        "not_asked": said.count(None),
        "not_fetched": sum(row["status"] == "failed" for row in rows),
    }
    assert all(rights.values())


def _selected(figures):
    return [verdict == "selected" for verdict in figures._desk.snapshot.selection()["verdict"].to_pylist()]


def test_agreement_counts_pictures_that_several_curators_judged(planted, figures):
    assert figures.figures()["agreement"] == {"several": 0, "differently": 0}
    event = Event(client="a", seq=1, curator="ada", action="keep", target="image", ids=(), centroid_id=0)
    one, two, three = planted.ids[:3]
    Decisions.open(planted.run.decisions).record(
        [
            replace(event, ids=(one, two, three)),
            replace(event, client="b", curator="bob", ids=(one,), last_seen=9),
            replace(event, client="b", seq=2, curator="bob", action="reject", ids=(two,), last_seen=9),
        ]
    )

    assert figures.figures()["agreement"] == {"several": 2, "differently": 1}


def test_figures_are_counted_again_only_where_something_changed(planted, figures):
    first = figures.figures()

    assert figures.figures() is first
    text = planted.run.config.read_text()
    planted.run.config.write_text(text.replace('version = "1.0"', 'version = "2"'))
    assert figures.figures() is not first
