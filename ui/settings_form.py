"""The settings as pages show and change them: each with default and meaning, and which a page may change."""

import re
from typing import Any

from spine.config import load_config
from spine.config_edit import change_settings, digest_of, settings_of
from spine.errors import ConfigError, DataError
from spine.run import Run
from spine.settings import Config

EDITABLE: dict[str, tuple[str, ...]] = {
    "centroids": ("k", "iterations", "seed", "spherical"),
    "index": ("memory_budget",),
    "retrieve": ("aesthetic_query.rating", "aesthetic_query.weight", "k", "nprobe"),
    "fetch": ("concurrency", "per_host", "timeout_s", "max_bytes", "max_side_px", "disk_budget"),
    "filters": (
        "min_side_px",
        "pwatermark_max",
        "punsafe_max",
        "violence_max",
        "aesthetic_min.head",
        "aesthetic_min.value",
        "unknown",
    ),
    "select": ("quota_per_centroid", "near_duplicate", "one_centroid_per_image"),
    "caption": (
        "engine",
        "model",
        "revision",
        "endpoints",
        "prompt",
        "max_new_tokens",
        "second_try",
        "image_mode",
        "batch_size",
        "in_flight",
    ),
    "release": ("name", "version", "licence", "pixels", "aspect_buckets"),
}
"""By table the settings that a page may change. The others name files, lists and secrets of the machine that the run is
on: those are for who has the file."""


def setting_rows(config: Config) -> list[dict[str, Any]]:
    """Every setting for a page."""
    return [
        {
            "table": each.table,
            "key": each.key,
            "value": _plain(each.value),
            "default": _plain(each.default),
            "meaning": each.meaning,
            "kind": _kind(each.default, each.value),
            "editable": each.key in EDITABLE.get(each.table, ()),
        }
        for each in settings_of(config)
    ]


def save_settings(run: Run, content: Any) -> str:
    """Change settings as a page asks.

    Args:
        run: Its popfactory.toml is changed; comments in it stay.
        content: {"seen": digest of the file that the page shows, "changes": [{"table", "key", "value"}]}.

    Returns:
        The digest of the file now.

    Raises:
        DataError: It has another form, or a setting isn't a page's to change.
        ConfigError: A value is wrong, or the file changed since; then it stays as it is.
    """
    seen = content.get("seen") if isinstance(content, dict) else None
    sent = content.get("changes") if isinstance(content, dict) else None
    if not isinstance(seen, str) or not isinstance(sent, list) or not 1 <= len(sent) <= 100:
        raise DataError('{"seen": digest, "changes": [{"table", "key", "value"}]} was needed')
    changes = {}
    for each in sent:
        table, key = (each.get(name) if isinstance(each, dict) else None for name in ("table", "key"))
        if key not in EDITABLE.get(str(table), ()):
            raise DataError(f"[{table}] {key}: not to be changed from a page; edit {run.config.name}")
        changes[str(table), str(key)] = _checked(str(table), str(key), each.get("value"))
    caption = load_config(run.config).caption
    named = changes.get(("caption", "endpoints"), list(caption.endpoints))
    if caption.api_key_env and named != list(caption.endpoints):
        raise ConfigError(
            "[caption] endpoints: a key is sent to them ([caption] api_key_env), so only who has "
            f"{run.config.name} may name others"
        )
    return change_settings(run.config, changes, seen=seen)


def settings_digest(run: Run) -> str:
    """What a page sends back as `seen`."""
    return digest_of(run.config.read_bytes())


def _checked(table: str, key: str, value: Any) -> Any:
    """A value of JSON that a setting can have; which one it can, the settings themselves check."""
    texts = value if isinstance(value, list) else [value]
    for text in texts:
        if not (text is None and not isinstance(value, list)) and not isinstance(
            text, str | int | float | bool
        ):
            raise DataError(f"[{table}] {key}: a text, number, true, false or a list of texts was needed")
        if isinstance(text, str) and (len(text) > 1_000 or re.search(r"[\x00-\x1f\x7f]", text)):
            raise DataError(f"[{table}] {key}: a line of at most 1,000 signs was needed")
    return value


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _kind(default: Any, value: Any) -> str:
    """truth, number, texts or text: which field a page draws."""
    known = default if default is not None else value
    match known:
        case bool():
            return "truth"
        case None | int() | float():  # without a default are thresholds alone
            return "number"
        case tuple():
            return "texts"
    return "text"
