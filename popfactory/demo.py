"""The demo: the whole factory on pictures it draws itself."""

import shutil
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq

from curation.revisions import newest
from popfactory.demo_collection import draw_collection
from popfactory.report import funnel_lines
from spine.config import load_config, preset, with_demo_models, write_config
from spine.errors import ConfigError
from spine.run import Run
from spine.settings import (
    AestheticMin,
    AestheticQuery,
    CentroidsConfig,
    ConceptsConfig,
    Config,
    FiltersConfig,
    PoolConfig,
    ReleaseConfig,
    RetrieveConfig,
    SelectConfig,
)


def prepare(
    folder: Path, *, concepts: int, pool: int, seed: int, say: Callable[[str], object] | None = None
) -> None:
    """Draw the demo's pictures and write its settings, unless they are there.

    Args:
        folder: The run folder.
        concepts: Pictures of taste to draw.
        pool: Pictures to search to draw.
        seed: Same seed, same pictures.
        say: Told what is going on, in lines.

    Raises:
        ConfigError: The folder holds another run, or a number can't be.
    """
    if concepts < 1 or pool < 1:
        raise ConfigError(f"--concepts {concepts} --pool {pool}: at least one picture of each is needed")
    run = Run(folder.resolve())
    config = _settings(run, concepts)
    if run.config.exists() and load_config(run.config) != config:
        raise ConfigError(f"{folder}: holds another run; name another folder: `popfactory demo FOLDER`")
    if say is not None:
        say(f"drawing {concepts:,} pictures of taste and a pool of {pool:,} in {folder / run.drawings.name}")
    draw_collection(run.drawings, concepts=concepts, pool=pool, seed=seed)
    if not run.config.exists():
        write_config(run.config, config)


def _settings(run: Run, concepts: int) -> Config:
    """Like a real run's, at a size that is done in minutes."""
    config = with_demo_models(preset("standard"))
    return replace(
        config,
        concepts=ConceptsConfig(source=str(run.drawings / "concepts")),
        pool=PoolConfig(source=str(run.drawings / "pool")),
        centroids=CentroidsConfig(k=min(40, max(2, concepts // 12))),
        retrieve=RetrieveConfig(k=200, aesthetic_query=AestheticQuery(rating=9, weight=0.2)),
        filters=FiltersConfig(
            min_side_px=768, pwatermark_max=0.5, punsafe_max=0.5, aesthetic_min=AestheticMin(value=3.0)
        ),
        select=SelectConfig(quota_per_centroid=8),
        release=ReleaseConfig(name="demo-pop", licence="Apache-2.0; all pictures are drawn by popfactory"),
    )


def demo_lines(run: Run) -> list[str]:
    """What the demo prints at its end: the funnel, three captions, what to open next."""
    config = load_config(run.config)
    folder = newest(run, config.release.name, config.release.version)
    table = pq.read_table(folder / "dataset.parquet", columns=["image_path", "caption"])
    command = "popfactory" if shutil.which("popfactory") else sys.argv[0]
    step = max(1, table.num_rows // 3)
    lines = ["", *funnel_lines(run), "", "three of its captions:"]
    for row in table.take(list(range(0, table.num_rows, step))[:3]).to_pylist():
        lines += [f"  {row['image_path']}", f"    {' '.join(row['caption'].split())}"]
    return [
        *lines,
        "",
        "The captions and scores come from small models that know only drawn scenes.",
        "",
        f"dataset   {folder / 'dataset.parquet'}",
        f"samples   {folder / 'samples.html'}   (open it in a browser)",
        f"board     {command} ui {run.folder}",
        f"server    {command} serve --run {run.folder}",
        f"your own  {command} init RUN --concepts FOLDER --pool FOLDER",
    ]
