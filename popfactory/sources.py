"""Where the pictures of a run come from."""

from spine.errors import ConfigError
from spine.manifest import find_manifest
from spine.run import Run
from spine.settings import Config


def source_of(run: Run, config: Config, collection: str) -> str:
    """Where a collection's pictures come from: its setting, else what `popfactory embed` was given.

    Raises:
        ConfigError: Neither is there.
    """
    source = config.concepts.source if collection == "concepts" else config.pool.source
    if source:
        return source
    manifest = find_manifest(run.collection(collection))
    if manifest is not None and manifest.facts.get("source"):
        return str(manifest.facts["source"])
    raise ConfigError(
        f"{run.config}: [{collection}] source is empty; set it, "
        f"or run `popfactory embed {run.folder} {collection} FOLDER`"
    )
