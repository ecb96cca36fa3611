import math
import random

import pyarrow as pa
import pytest

from spine.filters import FILTERS, RULES, judge
from spine.settings import AestheticMin, FiltersConfig


def _plainly(row, config):
    """The same rules, one picture at a time."""
    side = None if row["width"] is None or row["height"] is None else min(row["width"], row["height"])
    for name, value, limit, fails in (
        ("min_side_px", side, config.min_side_px or None, lambda value, limit: value < limit),
        ("pwatermark_max", row["pwatermark"], config.pwatermark_max, lambda value, limit: value > limit),
        ("punsafe_max", row["punsafe"], config.punsafe_max, lambda value, limit: value > limit),
        ("violence_max", row["violence"], config.violence_max, lambda value, limit: value > limit),
        ("aesthetic_min", row["aesthetic"], config.aesthetic_min.value, lambda value, limit: value < limit),
    ):
        if limit is None:
            continue
        if value is None or math.isnan(value):
            if config.unknown == "drop":
                return name
        elif fails(value, limit):
            return name
    return None


@pytest.mark.parametrize("unknown", ["keep", "drop"])
@pytest.mark.parametrize("aesthetic", [None, 5.0])
def test_judge_agrees_with_the_rules_tried_one_by_one(unknown, aesthetic):
    generator = random.Random(1)
    maybe = lambda value: None if generator.random() < 0.2 else value  # noqa: E731
    rows = [
        {
            "width": maybe(generator.randrange(500, 1200)),
            "height": maybe(generator.randrange(500, 1200)),
            "pwatermark": maybe(generator.random()),
            "punsafe": maybe(generator.random()),
            "violence": maybe(generator.uniform(-0.1, 0.1)),
            "aesthetic": maybe(generator.uniform(0, 10)),
        }
        for _ in range(500)
    ]
    config = FiltersConfig(
        punsafe_max=0.5, violence_max=0.0, aesthetic_min=AestheticMin(value=aesthetic), unknown=unknown
    )

    judged = judge(pa.Table.from_pylist(rows), config)

    assert [judged.rule(i) for i in range(500)] == [_plainly(row, config) for row in rows]
    assert {judged.rule(i) for i in range(500)} >= {None, *FILTERS[:4]}


def test_the_limits_themselves_pass():
    table = pa.table({"width": [768], "height": [900], "pwatermark": [0.8]})
    assert judge(table, FiltersConfig()).rule(0) is None


def test_a_score_of_another_head_is_unknown():
    table = pa.table({"aesthetic": [1.0, 1.0], "aesthetic_model": ["v2", "v1"]})
    config = FiltersConfig(
        min_side_px=0, pwatermark_max=None, aesthetic_min=AestheticMin(head="v2", value=5.0)
    )
    judged = judge(table, config)
    assert [judged.rule(0), judged.rule(1)] == ["aesthetic_min", None]


def test_the_detail_names_value_and_limit():
    judged = judge(pa.table({"width": [500, None], "height": [900, None]}), FiltersConfig(unknown="drop"))
    assert judged.detail(0) == "500, limit 768"
    assert judged.detail(1) == "unknown, limit 768"


def test_every_filter_has_its_meaning():
    assert set(FILTERS) <= set(RULES)
