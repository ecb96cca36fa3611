"""Centroids and indexes made by a process of its own, killed with SIGKILL between any two of its files."""

import itertools
import os
import signal
import subprocess
import sys

import numpy as np
import pyarrow as pa
import pytest

from spine.config import write_config
from spine.manifest import read_manifest, verify
from spine.run import Run
from spine.settings import CentroidsConfig, Config, IndexConfig
from spine.shards import write_shard
from spine.stage import Stage
from spine.tables import METADATA
from tests.unit.index_builder.scattered import scattered

N, D = 4_000, 64

SCRIPT = """
import os, signal, sys
from pathlib import Path

from index_builder import indexes
from index_builder.centroids import centroids
from index_builder.indexing import index_lists
from index_builder.metadata import metadata_rows
from spine.run import Run

# Small parts, so that there are many.
index_lists._PART_BYTES = index_lists._LEAST_PART_BYTES = 2**14
indexes.METADATA_ROWS = metadata_rows.METADATA_ROWS = 1_500

left, rename = int(sys.argv[3]), Path.replace


def renamed(path, target):
    global left
    left -= 1
    if not left:
        os.kill(os.getpid(), signal.SIGKILL)  # the file is whole, and has its temporary name
    return rename(path, target)


Path.replace = renamed
{"centroids": centroids, "index": indexes.index}[sys.argv[2]](Run(Path(sys.argv[1])))
"""


def new_run(folder):
    run = Run(folder)
    run.folder.mkdir()
    settings = Config(
        centroids=CentroidsConfig(k=40, iterations=3, vocabulary=""), index=IndexConfig(memory_budget="170kB")
    )
    write_config(run.config, settings)
    vectors = scattered(N, D, middles=60, noise=0.5)
    for name in ("concepts", "pool"):
        stage = Stage.open(name, run.collection(name), {}, {"source": "drawn"})
        for number, rows in enumerate(np.array_split(np.arange(N), 3)):
            table = pa.table({"id": rows * 10 + 1, "caption": [f"caption {row % 60}" for row in rows]})
            for column in METADATA:
                if column.name not in table.column_names:
                    table = table.append_column(column, pa.nulls(len(rows), column.type))
            write_shard(stage.folder, number, vectors[rows], table.select(METADATA.names).cast(METADATA))
        stage.finish({"embedded": N}, {"d": D, "model": "tiny", "demo_models": False})
    return run


def made(script, run, stage, root, killed_at=0):
    """Start a stage; it kills itself before its file of this number gets its name. The process's exit code."""
    command = [sys.executable, str(script), str(run.folder), stage, str(killed_at)]
    environment = os.environ | {"PYTHONPATH": str(root)}
    return subprocess.run(command, env=environment, check=False, timeout=120).returncode


def files_of(folder):
    notes = {"manifest.json", "index_report.json", "index_report.svg"}  # they tell times
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.name not in notes
    }


@pytest.mark.skipif(os.name == "nt", reason="needs SIGKILL")
@pytest.mark.parametrize(("stage", "step"), [("centroids", 1), ("index", 2)])
def test_killed_before_any_of_its_files_has_its_name_it_goes_on_and_gives_the_same(
    tmp_path, root, stage, step
):
    script = tmp_path / "make.py"
    script.write_text(SCRIPT)
    unbroken, broken = new_run(tmp_path / "unbroken"), new_run(tmp_path / "broken")
    assert made(script, unbroken, stage, root) == 0
    folders = [getattr(run, stage) for run in (unbroken, broken)]

    for number in itertools.count(step, step):
        code = made(script, broken, stage, root, killed_at=number)
        if code == 0:
            break
        assert code == -signal.SIGKILL
        assert "not finished" in verify(folders[1])[0]

    assert number > 3 * step  # it was killed three times at least
    assert files_of(folders[1]) == files_of(folders[0])
    assert read_manifest(folders[1]).digest == read_manifest(folders[0]).digest
    assert verify(folders[1]) == []
