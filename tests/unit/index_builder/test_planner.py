import pytest
from hypothesis import given
from hypothesis import strategies as st

from index_builder.planner import FLAT_MAX, list_count, plan_index
from spine.errors import ConfigError

GB = 10**9


@pytest.mark.parametrize(
    ("n", "d", "memory", "kind"),
    [
        (1, 4, GB, "Flat"),
        (FLAT_MAX, 768, GB, "Flat"),
        (FLAT_MAX + 1, 768, GB, "SQ8"),
        (FLAT_MAX, 768, 100 * 10**6, "SQ8"),
        (1_000_000, 768, GB, "SQ8"),
        (1_000_000, 768, GB // 2, "RaBitQ"),
        (10_000_000, 768, 2 * GB, "RaBitQ"),
        (50_000_000, 768, 8 * GB, "RaBitQ"),
    ],
)
def test_codes_get_coarser_as_memory_gets_tight(n, d, memory, kind):
    plan = plan_index(n, d, memory)

    assert plan.kind == kind
    assert plan.size_bytes <= memory
    assert plan.keeps_vectors == (kind == "RaBitQ")


def test_a_budget_that_nothing_fits_says_what_is_needed():
    with pytest.raises(
        ConfigError, match=r"memory_budget = 50\.0 MB, 1\d\d\.\d MB at least was needed for 1,000,000"
    ):
        plan_index(1_000_000, 768, 50 * 10**6)


@given(st.integers(1, 10**10))
def test_every_list_has_enough_vectors_to_train_it(n):
    nlist = list_count(n)

    assert nlist >= 1
    assert nlist == 1 or n // nlist >= 40
    assert nlist <= 131_072


@given(st.integers(1, 10**9), st.integers(1, 2_048))
def test_more_memory_never_gives_a_coarser_index(n, d):
    order = ["RaBitQ", "SQ8", "Flat"]
    kinds = []
    for memory in (GB // 100, GB, 100 * GB, 10_000 * GB):
        try:
            kinds.append(order.index(plan_index(n, d, memory).kind))
        except ConfigError:
            kinds.append(-1)

    assert kinds == sorted(kinds)
    assert kinds[-1] > 0
