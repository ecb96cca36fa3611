"""What the settings name is looked at before any work: a missing file should not end a night's run in its middle."""

import os
from pathlib import Path

from popfactory.sources import source_of
from spine.config import load_config
from spine.errors import ConfigError
from spine.lists import BlockLists
from spine.remote import is_remote
from spine.run import Run
from spine.settings import Config


def require_ready(run: Run) -> Config:
    """See that sources, lists, heads and vectors named by the settings are there and can be read.

    Models aren't looked for: they may be fetched on first use.

    Returns:
        The settings.

    Raises:
        ConfigError: A setting is wrong, or names what isn't there.
        ModelError: A head or rating vector is missing or unusable.
    """
    config = load_config(run.require().config)
    _require_source(run, config, "concepts")
    if config.pool.index:
        _require_index(run, config)
    elif not config.pool.server:
        _require_source(run, config, "pool")
    BlockLists.load(config.lists, run.folder)
    _require_scorers(run, config)
    return config


def _require_source(run: Run, config: Config, collection: str) -> None:
    source = source_of(run, config, collection)
    if is_remote(source):
        return  # embed lists it
    if not os.path.exists(os.path.expanduser(source)):  # noqa: PTH110, PTH111  # keeps names that aren't UTF-8
        raise ConfigError(f"{run.config}: [{collection}] source = {source!r}: no such file or folder")


def _require_index(run: Run, config: Config) -> None:
    if not Path(config.pool.index).expanduser().is_dir():
        raise ConfigError(f"{run.config}: [pool] index = {config.pool.index!r}: no such folder")


def _require_scorers(run: Run, config: Config) -> None:
    from index_builder.scoring.heads import load_rating_vector
    from index_builder.scoring.scorers import check_heads

    query, score = config.retrieve.aesthetic_query, config.score
    check_heads(score)
    if query.weight and not score.aesthetic_query_vectors:
        raise ConfigError(
            f"{run.config}: [retrieve] aesthetic_query has weight {query.weight:g}, which needs [score] "
            "aesthetic_query_vectors: name the folder with rating0.npy to rating9.npy, or set the weight to 0"
        )
    if query.weight:
        load_rating_vector(score.aesthetic_query_vectors, query.rating)
