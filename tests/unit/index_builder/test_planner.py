import faiss
import pytest
from hypothesis import given
from hypothesis import strategies as st

from index_builder.indexing.planner import FLAT_MAX, list_count, plan_index
from spine.errors import ConfigError

MB, GB = 10**6, 10**9


def kind(plan):
    return plan.factory.split(",")[-1]


@pytest.mark.parametrize(
    ("n", "d", "memory", "wanted", "keeps_vectors"),
    [
        (1, 4, GB, "Flat", False),
        (FLAT_MAX, 768, GB, "Flat", False),
        (FLAT_MAX, 768, 200 * MB, "RaBitQ", True),  # its rows fit too
        (FLAT_MAX, 768, 100 * MB, "SQ8", False),  # they don't
        (1_000_000, 768, 8 * GB, "RaBitQ", True),
        (1_000_000, 768, GB, "SQ8", False),
        (1_000_000, 768, GB // 2, "RaBitQ2", True),
        (1_000_000, 768, 180 * MB, "RaBitQ", True),
        (1_000_000, 768, 100 * MB, "RaBitQ", True),  # its lists stay on disk
        (50_000_000, 768, 8 * GB, "RaBitQ", True),
    ],
)
def test_the_kind_is_the_best_that_memory_holds(n, d, memory, wanted, keeps_vectors):
    plan = plan_index(n, d, memory)

    assert (kind(plan), plan.keeps_vectors) == (wanted, keeps_vectors)
    assert plan.size_bytes <= memory or "stay on disk" in plan.why
    assert f"{n:,} vectors of dimension {d}" in plan.line() and plan.why in plan.line()


def test_without_rows_on_disk_codes_are_as_fine_as_memory_allows():
    kinds = [
        kind(plan_index(10**6, 768, memory, keep_vectors=False)) for memory in (8 * GB, GB // 2, 180 * MB)
    ]

    assert kinds == ["SQ8", "RaBitQ2", "RaBitQ"]
    assert not plan_index(10**6, 768, 180 * MB, keep_vectors=False).keeps_vectors


def test_a_budget_without_room_for_the_lists_middles_says_what_is_needed():
    with pytest.raises(
        ConfigError, match=r"memory_budget = 5\.0 MB, 1\d\.\d MB at least was needed for the middles"
    ):
        plan_index(1_000_000, 768, 5 * MB)


@given(st.integers(1, 10**10))
def test_every_list_has_enough_vectors_to_train_it(n):
    nlist = list_count(n)

    assert nlist >= 1
    assert nlist == 1 or n // nlist >= 40
    assert nlist <= 131_072


@given(st.integers(1, 10**9), st.integers(16, 2_048), st.booleans())
def test_more_memory_never_gives_codes_that_need_more_reading_from_disk(n, d, keep_vectors):
    sizes = []
    for memory in (GB // 100, GB, 100 * GB, 10_000 * GB):
        try:
            plan = plan_index(n, d, memory, keep_vectors=keep_vectors)
        except ConfigError:
            sizes.append(0)
            continue
        in_memory = plan.keeps_vectors and plan.size_bytes + 2 * n * d <= memory
        sizes.append(plan.size_bytes + (2 * n * d if in_memory else 0))

    assert sizes == sorted(sizes)
    assert sizes[-1] > 0


@pytest.mark.parametrize(
    ("factory", "nlist", "keeps_vectors", "streams"),
    [
        ("Flat", 0, False, False),
        ("HNSW32", 0, False, False),
        ("IVF64,Flat", 64, False, True),
        ("IVF64_HNSW16,SQfp16", 64, False, True),
        ("IVF64,SQ4", 64, True, True),
        ("OPQ16_32,IVF64,PQ16", 64, True, True),
        ("RR64,IVF64,RaBitQ4", 64, True, True),
        ("IVF64,RaBitQfs", 64, True, False),
        ("PCA32,IVF64,PQ16x4fs", 64, True, False),
    ],
)
def test_an_index_can_be_asked_for_by_faiss_own_name(factory, nlist, keeps_vectors, streams):
    plan = plan_index(5_000, 64, 1, factory=factory)

    assert (plan.factory, plan.nlist, plan.keeps_vectors, plan.streams) == (
        factory,
        nlist,
        keeps_vectors,
        streams,
    )
    assert faiss.index_factory(64, factory, faiss.METRIC_INNER_PRODUCT).d == 64
    assert not plan_index(5_000, 64, 1, factory=factory, keep_vectors=False).keeps_vectors


@pytest.mark.parametrize(
    "factory",
    [
        "IVF64",
        "PQ8",
        "IDMap,Flat",
        "IVF64,Flat;x",
        "IVF0,Flat",
        "IVF5001,Flat",
        "LSH",
        "Flat\n",
        "HNSW32_PQ8",
    ],
)
def test_what_is_no_known_kind_is_refused_with_those_that_are(factory):
    with pytest.raises(ConfigError, match=r"\[index\] factory = "):
        plan_index(5_000, 64, GB, factory=factory)
