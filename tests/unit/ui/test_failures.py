import pyarrow as pa

from spine.publish import publish_table
from spine.run import part_path
from spine.tables import LINKS, STATUSES
from tests.unit.ui.planted import DEPTH, EACH, pass_over, plant
from ui.failures import examples


def test_examples_of_a_cause_are_rows_that_failed_for_it(tmp_path):
    planted = plant(tmp_path / "run")

    found = examples(planted.run, "fetch", "not_found", 4)

    gone = {str(picture) for number, picture in enumerate(planted.ids) if EACH - 5 <= number % EACH < DEPTH}
    assert len(found) == 4 and {row["what"] for row in found} <= gone
    assert all(row["message"] == "404" for row in found)
    assert examples(planted.run, "fetch", "timeout") == examples(planted.run, "score", "any") == []


def test_examples_of_a_filter_are_rows_that_fetch_passed_over(tmp_path):
    planted = plant(tmp_path / "run")
    pass_over(planted, [3, 8], "pwatermark_max")

    found = examples(planted.run, "fetch", "pwatermark_max")

    assert {row["what"] for row in found} == {str(planted.ids[number]) for number in (3, 8)}
    assert {row["message"] for row in found} == {"the pool says 300"}


def test_examples_of_inputs_that_could_not_be_embedded_name_them_without_folders(tmp_path):
    run = plant(tmp_path / "run").run
    rows = [
        {"input": f"/data/{number}.jpg", "status": "failed", "reason": "truncated"}
        | {"id": None, "message": f"/data/{number}.jpg: it ends early"}
        for number in range(9)
    ]
    publish_table(part_path(run.pool / "statuses", 0), pa.Table.from_pylist(rows, schema=STATUSES))

    found = examples(run, "embed pool", "truncated")

    assert [row["what"] for row in found] == ["0.jpg", "1.jpg", "2.jpg", "3.jpg", "4.jpg"]
    assert found[0]["message"] == "0.jpg: it ends early"


def test_examples_of_links_are_the_addresses_that_died_or_changed(tmp_path):
    run = plant(tmp_path / "run").run
    given = ["alive", "changed", "alike", "failed", "changed"]
    rows = [
        {"id": number, "url": f"http://pool.test/{number}.jpg", "status": status, "message": "told"}
        | {"reason": "not_found" if status == "failed" else None}
        for number, status in enumerate(given)
    ]
    publish_table(part_path(run.links, 0), pa.Table.from_pylist(rows, schema=LINKS))

    assert [row["what"] for row in examples(run, "links", "changed")] == ["1", "4"]
    assert [row["url"] for row in examples(run, "links", "not_found")] == ["http://pool.test/3.jpg"]
