import pytest
from prometheus_client.parser import text_string_to_metric_families

from retrieval_server.metrics import Metrics


def test_times_are_counted_under_clip_retrievals_names():
    metrics = Metrics()
    for _ in range(3):
        with metrics.time("full_knn_request_time"):
            pass
    with pytest.raises(ZeroDivisionError), metrics.time("full_knn_request_time"):
        _ = 1 / 0
    families = {family.name: family for family in text_string_to_metric_families(metrics.text().decode())}
    counts = {
        sample.name: sample.value
        for family in families.values()
        for sample in family.samples
        if sample.name.endswith("_count")
    }
    assert counts["full_knn_request_time_count"] == 4
    assert counts["dedup_time_count"] == 0
    assert len(counts) == 10


def test_the_summary_says_where_the_time_goes():
    metrics = Metrics()
    assert metrics.summary() == "No request yet, go do some"
    with metrics.time("full_knn_request_time"), metrics.time("knn_index_time"):
        pass
    lines = metrics.summary().splitlines()
    assert lines[0].startswith("There are a total of 1 calls")
    assert [line.split()[0] for line in lines[2:]] == ["full_knn_request_time", "knn_index_time"]
