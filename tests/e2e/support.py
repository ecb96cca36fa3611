"""The real command as its own process, and small runs on the demo models."""

import dataclasses
import os
import subprocess
import sys
from pathlib import Path

from popfactory.settings_file import start_run
from spine.config import load_config, write_config
from spine.run import Run


def call(*arguments: object, timeout_s: float = 280) -> "subprocess.CompletedProcess[str]":
    """Run `popfactory ARGUMENTS` as its own process, as a person does."""
    return subprocess.run(
        [sys.executable, "-m", "popfactory", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
        env={**os.environ, "COLUMNS": "200"},
    )


def small_run(folder: Path, concepts: Path | str, pool: Path | str, **tables: dict[str, object]) -> Run:
    """A run on the demo models with small numbers; `tables` change settings: select={"quota_per_centroid": 2}."""
    run = Run(folder)
    start_run(folder, concepts=str(concepts), pool=str(pool), demo_models=True)
    config = load_config(run.config)
    changes = {
        "centroids": {"k": 5},
        "retrieve": {"k": 60},
        "select": {"quota_per_centroid": 4},
        "filters": {"min_side_px": 256, "pwatermark_max": 0.5},
        "caption": {"batch_size": 8},
    }
    for table, settings in tables.items():
        changes[table] = {**changes.get(table, {}), **settings}
    for table, settings in changes.items():
        config = dataclasses.replace(
            config, **{table: dataclasses.replace(getattr(config, table), **settings)}
        )
    write_config(run.config, config)
    return run
