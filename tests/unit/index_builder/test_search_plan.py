import pytest

from index_builder.lists.search_plan import plan_search

GB = 2**30


def plan(queries, nprobe=64, *, n=10**8, nlist=32_768, codes="product", disk_bytes=0, **more):
    return plan_search(
        n,
        768,
        nlist,
        queries,
        nprobe,
        codes=codes,
        disk_bytes=disk_bytes,
        memory_bytes=16 * GB,
        **more,
    )


@pytest.mark.parametrize("codes", ["flat", "scalar", "product"])
def test_many_queries_share_lists_and_few_do_not(codes):
    assert not plan(1, codes=codes).list_major
    assert plan(1_000_000, codes=codes).list_major


def test_an_index_larger_than_memory_is_read_once_rather_than_for_each_query():
    assert not plan(300).list_major
    assert plan(300, disk_bytes=100 * GB).list_major
    assert plan(300, disk_bytes=100 * GB).reason.startswith("list-major")


def test_signs_are_shared_where_they_must_be_read_and_not_in_memory():
    assert not plan(1_000_000, codes="signs").list_major
    assert plan(1_000_000, codes="signs").reason.startswith("query by query")
    assert plan(300, codes="signs", disk_bytes=100 * GB).list_major


def test_what_a_pass_can_not_do_is_left_to_faiss():
    assert "no lists" in plan(10_000, nlist=0).reason
    assert "by FAISS alone" in plan(10_000, codes=None).reason
    assert not plan(10_000, nlist=0).list_major and not plan(10_000, codes=None).list_major


def test_more_lists_than_there_are_count_as_all():
    assert plan(5_000, 10**6, nlist=100).reason == plan(5_000, 100, nlist=100).reason
