"""popfactory.toml read into `spine.settings.Config`, and written with each setting's meaning.

A wrong key, type or value stops a run before any work, in one line that names file, table and key.
"""

import ast
import difflib
import functools
import inspect
import itertools
import os
import re
import textwrap
import threading
import tomllib
import types
import typing
from collections.abc import Callable
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import Any

from spine.errors import ConfigError
from spine.prompts import prompts_of
from spine.publish import publish_text
from spine.run import Run
from spine.settings import (
    TWO_STEP,
    AestheticQuery,
    CaptionConfig,
    ClipConfig,
    Config,
    FiltersConfig,
    RetrieveConfig,
    ScoreConfig,
)
from spine.sizes import parse_size

DEMO = "demo"
"""As a model's or head's name: the small one that comes with popfactory."""

_PATHS = {
    "concepts": ("source",),
    "centroids": ("vocabulary",),
    "pool": ("source", "index", "side_tables"),
    "score": (
        "aesthetic_head",
        "aesthetic_query_vectors",
        "unsafe_head",
        "watermark_head",
        "violence_prompts",
    ),
    "lists": ("takedown", "hash_block"),
}
"""Settings that are paths. A model is none: it is a name, or a path as typed."""

_KNOWN_NAME = re.compile(r"zero-shot|builtin|laion-[a-z0-9-]+")  # where a path would stand

CENTROID_METHODS = ("auto", "exact", "neighbours", "faiss-kmeans", "faiss-superkmeans")
"""Values of [centroids] method."""

_DEVICES = re.compile(r"auto|(cpu|cuda(:\d+)?)(, ?(cpu|cuda(:\d+)?))*")

PRESETS = ("standard", "laion-pop-2023")
"""Names for `popfactory init --preset`."""


def preset(name: str) -> Config:
    """The settings a preset starts from.

    Args:
        name: One of PRESETS. laion-pop-2023 has the published settings: ViT-L/14, 10,000 centroids,
            aesthetic weight 0.5, 768 px, LAION's NSFW detector, LLaVA-1.5-13B.

    Raises:
        ConfigError: There is no such preset.
    """
    if name not in PRESETS:
        raise ConfigError(f"preset {name!r} is unknown; there are: {', '.join(PRESETS)}")
    if name == "laion-pop-2023":
        return Config(
            retrieve=RetrieveConfig(aesthetic_query=AestheticQuery(rating=9, weight=0.5)),
            score=ScoreConfig(aesthetic_query_vectors="laion-ratings-l14", unsafe_head="laion-nsfw-l14"),
            caption=CaptionConfig(model="llava-hf/llava-1.5-13b-hf"),
        )
    return Config()


def with_demo_models(config: Config) -> Config:
    """The same settings on the small models that come with popfactory."""
    return replace(
        config,
        clip=ClipConfig(model=DEMO, pretrained="", batch_size=config.clip.batch_size),
        score=ScoreConfig(
            aesthetic_head=DEMO, aesthetic_query_vectors=DEMO, unsafe_head=DEMO, watermark_head=DEMO
        ),
        caption=replace(
            config.caption, engine="embedded", model=DEMO, revision="", max_new_tokens=160, batch_size=32
        ),
    )


def uses_demo_models(config: Config) -> bool:
    """Whether any result of these settings comes from a small demo model, to be said wherever it is shown."""
    heads = (config.score.aesthetic_head, config.score.unsafe_head, config.score.watermark_head)
    return DEMO in (config.clip.model, config.caption.model, *heads)


def load_config(path: Path) -> Config:
    """Read popfactory.toml; its relative paths start from the folder it is in, wherever the command runs.

    Raises:
        ConfigError: The file is missing or no TOML, or a table, key or value is wrong.
    """
    try:
        return _located(parse_config(path.read_bytes(), path), path.parent)
    except FileNotFoundError:
        raise ConfigError(f"{path}: missing; make one with `popfactory init {path.parent}`") from None


def parse_config(content: bytes, path: Path) -> Config:
    """The settings that a popfactory.toml says.

    Args:
        content: Of the file.
        path: Named in errors; prompts.toml may lie beside it.

    Raises:
        ConfigError: It is no TOML, or a table, key or value is wrong.
    """
    try:
        tables = tomllib.loads(content.decode())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: no valid TOML: {error}") from None
    config: Config = _build(Config, tables, str(path), "")
    _check(config, str(path))
    prompts = prompts_of(Run(path.parent))
    if config.caption.prompt not in prompts:
        needed = f"one of {', '.join(prompts)} was needed"
        raise ConfigError(f"{path}: [caption] prompt = {config.caption.prompt!r}, {needed}")
    return config


def _located(config: Config, folder: Path) -> Config:
    """The same settings, each path in full."""

    def full(name: str) -> str:
        if not name or name == DEMO or "://" in name or _KNOWN_NAME.fullmatch(name):
            return name
        # Not Path: names that aren't UTF-8, and a trailing slash, stay as they are.
        return os.path.join(os.path.abspath(folder), os.path.expanduser(name))  # noqa: PTH100, PTH111, PTH118

    tables = {}
    for table, names in _PATHS.items():
        settings = getattr(config, table)
        values = {name: getattr(settings, name) for name in names}
        tables[table] = replace(
            settings,
            **{
                name: full(value) if isinstance(value, str) else tuple(map(full, value))
                for name, value in values.items()
            },
        )
    return replace(config, **tables)


def write_config(path: Path, config: Config) -> None:
    """Publish `config` as TOML, each setting under a comment with its meaning."""
    lines = ["# Settings of this run. Each stage reads them when it starts."]
    for item in fields(config):
        table = getattr(config, item.name)
        meant = meanings(type(table))
        lines += ["", _comment(inspect.getdoc(type(table)) or ""), f"[{item.name}]"]
        for entry in fields(table):
            lines.append(_comment(meant[entry.name]))
            lines.append(_line(entry.name, getattr(table, entry.name), entry.default))
    publish_text(path, "\n".join(lines) + "\n")


def _build(kind: type, content: dict[str, Any], path: str, table: str) -> Any:
    known = typing.get_type_hints(kind)
    values = {}
    for key, value in content.items():
        if key not in known:
            raise ConfigError(f"{path}: {_place(table, key)} is unknown{_nearest(key, list(known))}")
        values[key] = _value(known[key], value, path, table, key)
    return kind(**values)


def _value(kind: Any, value: Any, path: str, table: str, key: str) -> Any:
    if is_dataclass(kind):
        if not isinstance(value, dict):
            raise ConfigError(f"{path}: {_place(table, key)} is {value!r}, a table was needed")
        return _build(typing.cast(type, kind), value, path, f"{table}.{key}" if table else key)
    options = typing.get_args(kind) if isinstance(kind, types.UnionType) else (kind,)
    if value is False and types.NoneType in options:
        return None
    for option in options:
        if typing.get_origin(option) is tuple:
            if isinstance(value, list) and all(isinstance(entry, str) for entry in value):
                return tuple(value)
        elif option is float and isinstance(value, int) and not isinstance(value, bool):
            return float(value)
        elif isinstance(option, type) and type(value) is option:
            return value
    wanted = " or ".join(
        _TYPE_NAMES.get(option, "a list of texts") for option in options if option is not types.NoneType
    )
    off = ", or false for off," if types.NoneType in options else ""
    raise ConfigError(f"{path}: {_place(table, key)} = {value!r}, {wanted}{off} was needed")


_TYPE_NAMES: dict[Any, str] = {
    int: "a whole number",
    float: "a number",
    str: "a text in quotes",
    bool: "true or false",
}


def _place(table: str, key: str) -> str:
    return f"[{table}] {key}" if table else f"[{key}]"


def _nearest(key: str, known: list[str]) -> str:
    near = difflib.get_close_matches(key, known, n=1, cutoff=0.4)
    return f"; did you mean {near[0]}?" if near else f"; there are: {', '.join(known)}"


def _check(config: Config, path: str) -> None:
    for place, ok, needed in _rules(config):
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


def _rules(config: Config) -> list[tuple[str, bool, str]]:
    filters: FiltersConfig = config.filters
    query, minimum = config.retrieve.aesthetic_query, filters.aesthetic_min
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


_READING = threading.Lock()


def meanings(kind: type) -> dict[str, str]:
    """The docstring under each field of a dataclass, on one line."""
    # Python 3.11 can't read source in two threads at once: "AST constructor recursion depth mismatch".
    with _READING:
        return dict(_read_meanings(kind))


@functools.cache
def _read_meanings(kind: type) -> dict[str, str]:
    body = typing.cast(ast.ClassDef, ast.parse(textwrap.dedent(inspect.getsource(kind))).body[0]).body
    found = {}
    for statement, after in itertools.pairwise(body):
        if (
            isinstance(statement, ast.AnnAssign)
            and isinstance(after, ast.Expr)
            and isinstance(after.value, ast.Constant)
        ):
            found[typing.cast(ast.Name, statement.target).id] = " ".join(str(after.value.value).split())
    return found


def _comment(text: str) -> str:
    return "\n".join(textwrap.wrap(" ".join(text.split()), 108, initial_indent="# ", subsequent_indent="# "))


def _line(name: str, value: Any, default: Any) -> str:
    if value is None:  # TOML has no null, and a key that isn't there is the default
        return f"# {name} =" if default is None else f"{name} = false"
    return f"{name} = {_toml(value)}"


def _toml(value: Any) -> str:
    match value:
        case bool():
            return "true" if value else "false"
        case int():
            return f"{value:_}" if value >= 10_000 else str(value)
        case float():
            return repr(value)
        case str():
            return _toml_text(value)
        case tuple():
            return "[" + ", ".join(_toml_text(entry) for entry in value) + "]"
        case _:
            entries = ((item.name, getattr(value, item.name)) for item in fields(value))
            return (
                "{ "
                + ", ".join(f"{name} = {_toml(entry)}" for name, entry in entries if entry is not None)
                + " }"
            )


_ESCAPES = {'"': '\\"', "\\": "\\\\", "\n": "\\n", "\t": "\\t", "\r": "\\r"}


def _toml_text(text: str) -> str:
    signs = (
        _ESCAPES.get(sign, sign if sign >= " " and sign != "\x7f" else f"\\u{ord(sign):04x}") for sign in text
    )
    return '"' + "".join(signs) + '"'
