"""Every setting as it stands with default and meaning, and changes to popfactory.toml that keep its comments."""

import fcntl
import hashlib
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any

import tomlkit
from tomlkit.exceptions import TOMLKitError

from spine.config import meanings, parse_config
from spine.errors import ConfigError
from spine.publish import publish_bytes
from spine.settings import Config


@dataclass(frozen=True, slots=True)
class Setting:
    """One setting."""

    table: str
    key: str
    """With a point where it is in a table of its own: "aesthetic_min.value"."""
    value: Any
    default: Any
    meaning: str


def settings_of(config: Config) -> list[Setting]:
    """Every setting of every table, in the order of popfactory.toml."""
    usual = Config()
    return [
        setting
        for item in fields(config)
        for setting in _settings(item.name, "", getattr(config, item.name), getattr(usual, item.name))
    ]


def digest_of(content: bytes) -> str:
    """What tells a popfactory.toml from a later one: SHA-256 of its bytes, in hex."""
    return hashlib.sha256(content).hexdigest()


def change_settings(path: Path, changes: Mapping[tuple[str, str], Any], *, seen: str) -> str:
    """Change some settings, and leave everything else in the file as it is, comments included.

    Args:
        path: popfactory.toml.
        changes: By table and key (as in `Setting`) the value; None switches it off, if that can be.
        seen: `digest_of` the file that the changes are meant for.

    Returns:
        The digest of the file now.

    Raises:
        ConfigError: The file changed since, or with the changes it would be wrong; then it stays as it is.
    """
    with _alone(path.parent):
        content = path.read_bytes()
        if digest_of(content) != seen:
            raise ConfigError(
                f"{path}: changed since you read it; look at it as it is now and change it again"
            )
        parse_config(content, path)
        written = _changed(content, changes, path)
        config = parse_config(written, path)
        for (table, key), value in changes.items():
            found = _found(config, table, key)
            if found != (tuple(value) if isinstance(value, list) else value):
                raise ConfigError(f"{path}: [{table}] {key} can't be switched off")
        publish_bytes(path, written)
        return digest_of(written)


def _settings(table: str, before: str, here: Any, usual: Any) -> Iterator[Setting]:
    meant = meanings(type(here))
    for item in fields(here):
        value, default = getattr(here, item.name), getattr(usual, item.name)
        if is_dataclass(value):
            yield from _settings(table, f"{before}{item.name}.", value, default)
        else:
            yield Setting(table, before + item.name, value, default, meant[item.name])


def _changed(content: bytes, changes: Mapping[tuple[str, str], Any], path: Path) -> bytes:
    try:
        document = tomlkit.parse(content)
        for (table, key), value in changes.items():
            *above, last = [table, *key.split(".")]
            place: Any = document
            for name in above:
                place = place.setdefault(
                    name, tomlkit.table() if place is document else tomlkit.inline_table()
                )
            if value is None and _found(Config(), table, key) is None:
                place.pop(last, None)
            else:
                place[last] = False if value is None else value
        return tomlkit.dumps(document).encode()
    except (TOMLKitError, AttributeError, TypeError, ValueError) as error:
        raise ConfigError(f"{path}: can't be changed ({error}); edit it by hand") from None


def _found(config: Config, table: str, key: str) -> Any:
    value: Any = config
    for name in (table, *key.split(".")):
        value = getattr(value, name)
    return value


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Keep other processes of ours from changing settings of this folder meanwhile."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
