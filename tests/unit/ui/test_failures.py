from tests.unit.ui.planted import DEPTH, EACH, plant
from ui.failures import examples


def test_examples_of_a_cause_are_rows_that_failed_for_it(tmp_path):
    planted = plant(tmp_path / "run")

    found = examples(planted.run, "fetch", "not_found", 4)

    gone = {str(picture) for number, picture in enumerate(planted.ids) if EACH - 5 <= number % EACH < DEPTH}
    assert len(found) == 4 and {row["id"] for row in found} <= gone
    assert all(row["message"] == "404" for row in found)
    assert examples(planted.run, "fetch", "timeout") == examples(planted.run, "score", "any") == []
