"""What each setting's value must be, so that a wrong one stops a run before any work."""

import re
from collections.abc import Callable
from typing import Any

from spine.errors import ConfigError
from spine.settings import TWO_STEP, Config
from spine.sizes import parse_size

CENTROID_METHODS = ("auto", "exact", "neighbours", "faiss-kmeans", "faiss-superkmeans")
"""Values of [centroids] method."""

_DEVICES = re.compile(r"auto|(cpu|cuda(:\d+)?)(, ?(cpu|cuda(:\d+)?))*")

Rule = tuple[str, bool, str]
"""A setting's table and key, whether its value is sound, and what was needed."""


def require_sound(config: Config, path: str) -> None:
    """See that each setting has a value that a stage can work with.

    Args:
        config: As it was read.
        path: Of the file, named in the message.

    Raises:
        ConfigError: One has not; the message names it, its value and what was needed.
    """
    for place, ok, needed in (*_index_rules(config), *_picture_rules(config), *_dataset_rules(config)):
        if not ok:
            table, key = place.split(".", 1)
            value: Any = getattr(config, table)
            for part in key.split("."):
                value = getattr(value, part)
            raise ConfigError(f"{path}: [{table}] {key} = {value!r}, {needed} was needed")
    pools = [name for name in ("source", "index", "server") if getattr(config.pool, name)]
    if len(pools) > 1:
        raise ConfigError(
            f"{path}: [pool] {' and '.join(pools)} are set; name one of them, and empty the others"
        )


def _index_rules(config: Config) -> list[Rule]:
    query = config.retrieve.aesthetic_query
    return [
        ("clip.device", bool(_DEVICES.fullmatch(config.clip.device)), "auto, cpu, cuda, or several of them"),
        ("clip.precision", config.clip.precision in ("auto", "fp32", "bf16"), "auto, fp32 or bf16"),
        ("clip.batch_size", config.clip.batch_size >= 0, "0 or more"),
        ("clip.workers", config.clip.workers >= 0, "0 or more"),
        ("centroids.k", config.centroids.k >= 1, "1 or more"),
        ("centroids.iterations", config.centroids.iterations >= 1, "1 or more"),
        ("centroids.seed", config.centroids.seed >= 0, "0 or more"),
        (
            "centroids.method",
            config.centroids.method in CENTROID_METHODS,
            f"one of {', '.join(CENTROID_METHODS)}",
        ),
        ("index.memory_budget", _parses(parse_size, config.index.memory_budget), 'a size such as "8GB"'),
        ("index.recall", 0 < config.index.recall <= 1, "more than 0, at most 1"),
        ("index.builder", config.index.builder in ("planner", "autofaiss"), "planner or autofaiss"),
        ("retrieve.k", 1 <= config.retrieve.k <= 1_000_000, "1 to 1,000,000"),
        ("retrieve.nprobe", config.retrieve.nprobe >= 0, "0 or more"),
        ("retrieve.aesthetic_query.rating", 0 <= query.rating <= 9, "0 to 9"),
    ]


def _picture_rules(config: Config) -> list[Rule]:
    filters, minimum = config.filters, config.filters.aesthetic_min
    return [
        ("fetch.mode", config.fetch.mode in ("one-step", TWO_STEP), "one-step or two-step"),
        ("fetch.concurrency", config.fetch.concurrency >= 1, "1 or more"),
        ("fetch.processes", 0 <= config.fetch.processes <= 64, "0 to 64"),
        ("fetch.per_host", config.fetch.per_host >= 1, "1 or more"),
        ("fetch.timeout_s", config.fetch.timeout_s > 0, "more than 0 seconds"),
        ("fetch.max_bytes", config.fetch.max_bytes >= 1, "1 or more"),
        ("fetch.max_side_px", config.fetch.max_side_px >= 0, "0 or more"),
        ("fetch.disk_budget", _parses(parse_size, config.fetch.disk_budget), 'a size such as "100GB"'),
        ("fetch.workers", config.fetch.workers >= 0, "0 or more"),
        ("fetch.contact", _fits_a_header(config.fetch.contact), "plain ASCII without brackets"),
        ("fetch.placeholder_repeats", config.fetch.placeholder_repeats != 1, "2 or more, or 0 for off"),
        ("fetch.placeholder_repeats", config.fetch.placeholder_repeats >= 0, "2 or more, or 0 for off"),
        ("filters.min_side_px", filters.min_side_px >= 0, "0 or more"),
        ("filters.pwatermark_max", _share(filters.pwatermark_max), "0 to 1"),
        ("filters.punsafe_max", _share(filters.punsafe_max), "0 to 1"),
        (
            "filters.violence_max",
            filters.violence_max is None or -2 <= filters.violence_max <= 2,
            "-2 to 2",
        ),
        (
            "filters.aesthetic_min.value",
            minimum.value is None or -10 <= minimum.value <= 20,
            "a score on the head's scale",
        ),
        ("filters.unknown", filters.unknown in ("keep", "drop"), "keep or drop"),
        ("select.quota_per_centroid", config.select.quota_per_centroid >= 1, "1 or more"),
        ("select.near_duplicate", 0 < config.select.near_duplicate <= 2, "more than 0, at most 2"),
        ("select.same_picture", 0 <= config.select.same_picture < 1, "0 to 1, less than 1"),
    ]


def _dataset_rules(config: Config) -> list[Rule]:
    return [
        ("caption.engine", config.caption.engine in ("embedded", "http"), "embedded or http"),
        (
            "caption.endpoints",
            config.caption.engine != "http" or bool(config.caption.endpoints),
            "one address at least for the http engine",
        ),
        ("caption.max_new_tokens", 1 <= config.caption.max_new_tokens <= 4096, "1 to 4096"),
        ("caption.image_mode", config.caption.image_mode in ("crop", "pad", "squash"), "crop, pad or squash"),
        ("caption.batch_size", config.caption.batch_size >= 1, "1 or more"),
        ("caption.price_prompt", config.caption.price_prompt >= 0, "0 or more"),
        ("caption.price_caption", config.caption.price_caption >= 0, "0 or more"),
        ("caption.agreement_sample", config.caption.agreement_sample >= 0, "0 or more"),
        ("caption.in_flight", config.caption.in_flight >= 1, "1 or more"),
        ("caption.device", config.caption.device in ("auto", "cpu", "cuda"), "auto, cpu or cuda"),
        ("release.name", _plain_name(config.release.name), "letters, digits, - _ and ."),
        ("release.version", _plain_name(config.release.version), "letters, digits, - _ and ."),
    ]


def _share(value: float | None) -> bool:
    return value is None or 0 <= value <= 1


def _plain_name(name: str) -> bool:
    return (
        bool(name)
        and name[0] not in ".-"
        and all(sign.isascii() and (sign.isalnum() or sign in "-_.") for sign in name)
    )


def _fits_a_header(text: str) -> bool:
    return text.isascii() and (not text or text.isprintable()) and not set(text) & set("()\\")


def _parses(parse: Callable[[str], int], text: str) -> bool:
    try:
        parse(text)
    except ConfigError:
        return False
    return True
