"""What a server's histogram says of its answers: quantiles, as Prometheus itself works them out.

Source: the text exposition format, and `histogram_quantile` of the Prometheus documentation.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

_BUCKET = re.compile(r'(\w+)_bucket\{(?:[^}]*,)?le="([^"]+)"[^}]*\} (\S+)')


@dataclass(frozen=True, slots=True)
class AnswerTimes:
    """How long the answers of one kind took since the server started."""

    count: int
    limits_s: tuple[float, ...]
    """Upper ends of the buckets in seconds, ascending, the last infinite."""
    counts: tuple[float, ...]
    """Answers within each of these, those of the buckets below among them."""

    def quantile(self, q: float) -> float | None:
        """Seconds within which this share of the answers came, evenly spread within a bucket.

        Args:
            q: 0 to 1.

        Returns:
            Infinity where it lies above the last finite end; None where there was no answer.
        """
        if not self.count:
            return None
        wanted, lower, before = q * self.count, 0.0, 0.0
        for limit, count in zip(self.limits_s, self.counts, strict=True):
            if count >= wanted and count > before:
                share = (wanted - before) / (count - before)
                return limit if limit == float("inf") else lower + (limit - lower) * share
            lower, before = limit, count
        return None


def answer_times(metrics: str, name: str) -> AnswerTimes | None:
    """One histogram of a server's /metrics; several processes or labels of it are added up.

    Args:
        metrics: The page, in Prometheus's text format.
        name: Of the histogram, without _bucket.

    Returns:
        None where it has no such histogram.
    """
    sums: dict[float, float] = {}
    for found, limit, value in _BUCKET.findall(metrics):
        if found == name:
            try:
                sums[float(limit)] = sums.get(float(limit), 0.0) + float(value)
            except ValueError:
                return None
    limits: Sequence[float] = sorted(sums)
    if not limits or limits[-1] != float("inf"):
        return None
    counts = tuple(sums[limit] for limit in limits)
    return AnswerTimes(int(counts[-1]), tuple(limits), counts)
