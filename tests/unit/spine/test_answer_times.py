"""Quantiles of a server's histogram, against the answers themselves."""

import numpy as np
from prometheus_client import CollectorRegistry, Histogram, generate_latest

from spine.answer_times import answer_times

NAME = "full_knn_request_time"


def page_of(seconds, buckets):
    registry = CollectorRegistry()
    histogram = Histogram(NAME, "time", registry=registry, buckets=buckets)
    other = Histogram("dedup_time", "time", registry=registry)
    for each in seconds:
        histogram.observe(each)
        other.observe(9.0)
    return generate_latest(registry).decode()


def test_a_quantile_lies_in_the_bucket_that_the_answers_own_quantile_lies_in():
    seconds = np.random.default_rng(3).gamma(2.0, 0.02, 5000)
    buckets = np.arange(0.01, 0.5, 0.01).round(3).tolist()

    found = answer_times(page_of(seconds, buckets), NAME)

    assert found.count == 5000
    for q in (0.1, 0.5, 0.95, 0.99):
        assert abs(found.quantile(q) - np.quantile(seconds, q)) <= 0.01


def test_answers_of_one_length_are_spread_within_their_bucket_as_prometheus_does():
    found = answer_times(page_of([0.03] * 10, [0.02, 0.04]), NAME)

    assert found.quantile(0.5) == 0.03  # half of the way from 0.02 to 0.04
    assert found.quantile(1.0) == 0.04


def test_beyond_the_last_bucket_is_beyond_and_without_answers_nothing_is_known():
    assert answer_times(page_of([99.0], [0.1, 1.0]), NAME).quantile(0.95) == float("inf")
    assert answer_times(page_of([], [0.1, 1.0]), NAME).quantile(0.95) is None
    assert answer_times("<html>a page that is none</html>", NAME) is None


def test_histograms_of_several_labels_are_added_up():
    registry = CollectorRegistry()
    histogram = Histogram(NAME, "time", ["process"], registry=registry, buckets=[0.1, 0.2])
    histogram.labels("one").observe(0.05)
    for _ in range(3):
        histogram.labels("two").observe(0.15)

    found = answer_times(generate_latest(registry).decode(), NAME)

    assert found.count == 4 and found.counts == (1.0, 4.0, 4.0)
