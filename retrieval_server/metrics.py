"""Prometheus metrics under clip-retrieval's names, and its summary of them.

Source of names and texts: clip-retrieval 2.45, clip_retrieval/clip_back.py.
"""

import contextlib
import os
import time
from collections.abc import Iterator

from prometheus_client import CollectorRegistry, Histogram, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector

from retrieval_server.processes import SHARED_METRICS

_DESCRIPTIONS = {
    "full_knn_request_time": "Time spent processing knn request",
    "download_time": "Time spent downloading",
    "text_clip_inference_time": "Time spent doing a text clip inference",
    "image_clip_inference_time": "Time spent doing a image clip inference",
    "metadata_get_time": "Time spent retrieving metadata",
    "knn_index_time": "Time spent doing a knn on the index",
    "dedup_time": "Time spent on dedup",
    "safety_time": "Time spent on safety",
    "image_prepro_time": "Time spent preprocessing images",
    "text_prepro_time": "Time spent preprocessing text",
}


class Metrics:
    """The histograms of one server, whatever processes it has; threads may share them."""

    def __init__(self) -> None:
        self._registry = self._shown = CollectorRegistry()
        if SHARED_METRICS in os.environ:
            self._shown = CollectorRegistry()
            MultiProcessCollector(self._shown)  # type: ignore[no-untyped-call]
        self._histograms = {
            name: Histogram(name, words, registry=self._registry) for name, words in _DESCRIPTIONS.items()
        }

    @contextlib.contextmanager
    def time(self, name: str, requests: int = 1) -> Iterator[None]:
        """Count what the block takes, failed or not, under one of clip-retrieval's names, for so many requests."""
        start = time.perf_counter()
        try:
            yield
        finally:
            taken = time.perf_counter() - start
            for _ in range(requests):
                self._histograms[name].observe(taken)

    def text(self) -> bytes:
        """Everything, as Prometheus reads it."""
        return generate_latest(self._shown)

    def summary(self) -> str:
        """What the requests spent their time on, for a person, as clip-retrieval words it."""
        calls, seconds = {}, {}
        for metric in self._shown.collect():
            for sample in metric.samples:
                if sample.name == f"{metric.name}_count":
                    calls[metric.name] = int(sample.value)
                elif sample.name == f"{metric.name}_sum":
                    seconds[metric.name] = sample.value
        total_calls, total = calls["full_knn_request_time"], seconds["full_knn_request_time"]
        if not total_calls:
            return "No request yet, go do some"
        lines = [
            f"There are a total of {total_calls} calls to the knn service "
            f"with an average time of {total / total_calls:.4f}s per request",
            f"{'name':<28}{'description':<44}{'calls':>10}{'average':>12}{'proportion':>12}",
        ]
        means = {name: seconds[name] / calls[name] for name in calls if calls[name]}
        for name in sorted(means, key=lambda name: -means[name]):
            share = seconds[name] / total if total else 0.0
            lines.append(
                f"{name:<28}{_DESCRIPTIONS[name]:<44}{calls[name]:>10}{means[name]:>11.4f}s{share:>12.1%}"
            )
        return "\n".join(lines) + "\n"
