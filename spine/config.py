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
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import Any

from spine.errors import ConfigError
from spine.prompts import prompts_of
from spine.publish import publish_text
from spine.run import Run
from spine.setting_rules import require_sound
from spine.settings import (
    AestheticQuery,
    CaptionConfig,
    ClipConfig,
    Config,
    RetrieveConfig,
    ScoreConfig,
)

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
    require_sound(config, str(path))
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
