"""What a benchmark prints: one figure a line, as JSON, with the goal it is held to and what it ran on.

report("bulk_knn_speedup", 4.1, "x faiss.contrib.big_batch_search", at_least=3, n=200_000, d=768, k=40,
       recall=0.991, nprobe=32)
"""

import json
import os
import platform
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

ENGINES = (
    "popfactory",
    "numpy",
    "faiss-cpu",
    "numba",
    "faiss-gpu",
    "torch",
    "open_clip_torch",
    "transformers",
    "pyarrow",
)


def report(
    figure: str,
    value: float,
    unit: str,
    *,
    at_least: float | None = None,
    at_most: float | None = None,
    **conditions: object,
) -> None:
    """Print one figure; whether its goal is met is worked out here, never claimed.

    Args:
        figure: Its name, one word for one thing, such as "bulk_knn_speedup".
        value: What was measured.
        unit: What one of it is; for a ratio, of what: "x faiss.Kmeans".
        at_least: The goal, where more is better.
        at_most: The goal, where less is better; of the two one at most. With neither, `met` is null.
        conditions: n, d, k, recall and whatever else the figure depends on; cores, CPU and versions are added.

    Raises:
        ValueError: Both goals are given.
    """
    if at_least is not None and at_most is not None:
        raise ValueError(f"{figure}: one goal a figure, at_least or at_most")
    goal, met = None, None
    if at_least is not None:
        goal, met = f">= {at_least:g}", value >= at_least
    if at_most is not None:
        goal, met = f"<= {at_most:g}", value <= at_most
    line = {
        "figure": figure,
        "value": float(f"{value:.4g}"),
        "unit": unit,
        "goal": goal,
        "met": met,
        "conditions": conditions | machine(),
    }
    print(json.dumps(line, allow_nan=False), flush=True)


@cache
def machine() -> dict[str, object]:
    """The cores this process may use, the CPU's name, and the versions of Python and the engines here."""
    versions = {"python": platform.python_version()}
    for name in ENGINES:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            continue
    return {"cores": _cores(), "cpu": _cpu_name(), "versions": versions}


def _cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor() or platform.machine())
