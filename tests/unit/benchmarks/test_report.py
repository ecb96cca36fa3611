import json

import pytest

from benchmarks.report import report


def test_a_figure_line_holds_its_goal_and_conditions(capsys):
    report("bulk_knn_speedup", 4.12345, "x plain", at_least=3, n=1000, d=64, k=40, recall=0.99)

    line = json.loads(capsys.readouterr().out)

    assert list(line) == ["figure", "value", "unit", "goal", "met", "conditions"]
    assert line["goal"] == ">= 3"
    assert line["met"] is True
    assert line["conditions"].items() >= {"n": 1000, "d": 64, "k": 40, "recall": 0.99}.items()
    assert line["conditions"]["cores"] >= 1
    assert "python" in line["conditions"]["versions"]


@pytest.mark.parametrize(
    ("value", "goals", "met"),
    [
        (2.9, {"at_least": 3}, False),
        (1.06, {"at_most": 1.05}, False),
        (1.05, {"at_most": 1.05}, True),
        (7, {}, None),
    ],
)
def test_whether_a_goal_is_met_follows_from_the_value(capsys, value, goals, met):
    report("figure", value, "s", **goals)

    assert json.loads(capsys.readouterr().out)["met"] is met


def test_a_figure_with_two_goals_is_refused():
    with pytest.raises(ValueError, match="one goal"):
        report("figure", 1, "s", at_least=1, at_most=2)


def test_a_figure_that_is_no_number_is_refused():
    with pytest.raises(ValueError, match="JSON"):
        report("figure", float("nan"), "s")
