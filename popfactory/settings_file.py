"""What a run or a server starts from: popfactory.toml for `init`, the indices for `serve`."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from spine.config import preset, with_demo_models, write_config
from spine.errors import ConfigError
from spine.run import Run
from spine.settings import ConceptsConfig, ListsConfig

if TYPE_CHECKING:
    from retrieval_server.settings import ServerSettings

NO_LISTS = ListsConfig()
"""Nothing is taken down."""


def start_run(
    folder: Path,
    preset_name: str = "standard",
    *,
    concepts: str = "",
    pool: str = "",
    demo_models: bool = False,
    force: bool = False,
) -> Path:
    """Write a new run's popfactory.toml.

    Args:
        folder: The run folder; made where it is missing.
        preset_name: One of `spine.config.PRESETS`.
        concepts: Source of the concepts, empty to set it later.
        pool: Source of the pool, empty to set it later.
        demo_models: Name the small models that come with popfactory.
        force: Write over settings that are there.

    Returns:
        The path of the settings.

    Raises:
        ConfigError: There are settings already, a source is missing, or the preset is unknown.
    """
    run = Run(folder)
    if run.config.exists() and not force:
        raise ConfigError(f"{run.config}: there already; edit it, or write over it with --force")
    config = preset(preset_name)
    if demo_models:
        config = with_demo_models(config)
    config = replace(
        config,
        concepts=ConceptsConfig(source=_absolute(concepts)),
        pool=replace(config.pool, source=_absolute(pool)),
    )
    write_config(run.config, config)
    return run.config


def _absolute(source: str) -> str:
    """A local source by its full path, so that the run works from any folder."""
    if not source or "://" in source:
        return source
    path = Path(source).expanduser().resolve()
    if not path.exists():
        raise ConfigError(f"{source}: no such file or folder; give one with pictures")
    return str(path)


def server_settings(
    indices: Path | None, run_folder: Path | None, lists: ListsConfig = NO_LISTS
) -> "ServerSettings":
    """What `serve` serves.

    Args:
        indices: clip-retrieval's indices_paths.json.
        run_folder: A run, whose index is served. One of the two.
        lists: Takedown and hash lists of a server without a run; a run names its own.

    Raises:
        ConfigError: One can't be served, or lists are given beside a run's.
        ValueError: Neither or both are given.
    """
    from retrieval_server.settings import load_indices_paths, settings_for_run

    if indices is not None and run_folder is None:
        return replace(load_indices_paths(indices), lists=lists)
    if run_folder is not None and indices is None:
        if lists != NO_LISTS:
            raise ConfigError(
                f"serve: name the lists in {run_folder}/popfactory.toml, [lists]: every stage heeds them"
            )
        return settings_for_run(Run(run_folder).require())
    raise ValueError("a run or indices: one of the two was needed")
