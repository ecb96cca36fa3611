"""centroids, index and retrieve joined over real files: killed and resumed, and against a real server."""

import os
import signal
import subprocess
import sys
import time

import numpy as np
import pyarrow as pa
import pytest

from index_builder.centroids import centroids
from index_builder.neighbours import retrieve
from retrieval_server.settings import IndexSettings, ServerSettings
from spine.config import write_config
from spine.errors import ServiceError
from spine.manifest import read_manifest, verify
from spine.run import Run
from spine.settings import CentroidsConfig, Config, IndexConfig, PoolConfig, RetrieveConfig
from spine.shards import write_shard
from spine.stage import Stage
from spine.table_files import read_parts
from spine.tables import METADATA, NEIGHBOURS
from tests.integration.server_index import running

N, D, K = 3_000, 32, 25

STAGES = """
import sys
from pathlib import Path
from index_builder import neighbours
from index_builder.centroids import centroids
from index_builder.indexes import index
from spine.run import Run
neighbours.BLOCK = 5
run = Run(Path(sys.argv[1]))
for stage in (centroids, index, neighbours.retrieve):
    stage(run)
"""


def unit(vectors):
    return (vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)).astype(np.float32)


def collections_run(folder, **pool):
    """A run with embedded concepts and pool; the pool's last rows nearly repeat its first."""
    run = Run(folder)
    folder.mkdir(parents=True)
    config = Config(
        centroids=CentroidsConfig(k=40),
        index=IndexConfig(memory_budget="100kB"),
        retrieve=RetrieveConfig(k=K),
        pool=PoolConfig(**pool),
    )
    write_config(run.config, config)
    random = np.random.default_rng(0)
    middles = random.standard_normal((40, D))
    for name, n in (("concepts", 500), ("pool", N)):
        vectors = unit(middles[random.integers(40, size=n)] + 0.6 * random.standard_normal((n, D)))
        vectors[-50:] = unit(vectors[:50] + 0.02 * random.standard_normal((50, D)))
        stage = Stage.open(name, run.collection(name), {}, {})
        for number, rows in enumerate(np.array_split(np.arange(n), 3)):
            table = pa.Table.from_pylist(
                [
                    {
                        "id": int(row) * 11 - 4,
                        "url": f"http://x/{row}",
                        "caption": f"shape {row % 9}",
                        "width": 700,
                        "height": 700,
                    }
                    for row in rows
                ],
                schema=METADATA,
            )
            write_shard(run.collection(name), number, vectors[rows], table)
        stage.finish({"embedded": n}, {"n": n, "d": D, "model": "tiny", "demo_models": False})
    return run


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run whose three stages ran without a stop."""
    run = collections_run(tmp_path_factory.mktemp("runs") / "whole")
    subprocess.run([sys.executable, "-c", STAGES, str(run.folder)], check=True, timeout=120)
    return run


def kill_when(run, path):
    """Start the stages, and kill -9 the process as soon as `path` is there."""
    process = subprocess.Popen([sys.executable, "-c", STAGES, str(run.folder)])
    deadline = time.monotonic() + 120
    while not path.exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.0005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    return process.returncode == -signal.SIGKILL


@pytest.mark.skipif(os.name == "nt", reason="needs SIGKILL")
def test_killed_again_and_again_the_stages_end_as_if_never_stopped(tmp_path, whole):
    run = collections_run(tmp_path / "run")

    moments = [
        run.centroids / "plan.json",
        run.centroids / "centroids.parquet",
        run.index / "metadata" / "0.arrow",
        run.index / "image.index",
        run.neighbours / "plan.json",
        run.neighbours / ".found-00002.parquet",
        run.neighbours / ".found-00006.parquet",
        run.neighbours / "part-00001.parquet",
    ]
    killed = sum(kill_when(run, moment) for moment in moments)
    subprocess.run([sys.executable, "-c", STAGES, str(run.folder)], check=True, timeout=120)

    assert killed >= 4, "the kills came too late to test anything"
    for folder in ("centroids", "index", "neighbours"):
        stopped, unbroken = run.folder / folder, whole.folder / folder
        names = sorted(path.relative_to(stopped) for path in stopped.rglob("*") if path.is_file())
        assert names == sorted(path.relative_to(unbroken) for path in unbroken.rglob("*") if path.is_file())
        notes = read_manifest(stopped).notes  # seconds, speeds
        for name in names:
            if name.name != "manifest.json" and name.as_posix() not in notes:
                assert (stopped / name).read_bytes() == (unbroken / name).read_bytes()
        assert verify(stopped) == []
    assert retrieve(run).digest == retrieve(whole).digest


@pytest.mark.parametrize("batch", [True, False])
def test_a_server_gives_the_same_neighbours_as_the_index_it_serves(tmp_path, whole, monkeypatch, batch):
    settings = ServerSettings(
        indices=(
            IndexSettings(name="other", folder=whole.index),
            IndexSettings(name="theirs", folder=whole.index),
        )
    )
    if not batch:  # as the original back end: one request a query
        monkeypatch.setattr("spine.protocol.RetrievalClient._batch_or_none", lambda *_: None)
    with running(settings, token="geheim") as address:
        run = collections_run(tmp_path / "run", server=address, indice_name="theirs")
        centroids(run)
        with pytest.raises(ServiceError, match="401"):
            retrieve(run)
        monkeypatch.setenv("POPFACTORY_POOL_TOKEN", "geheim")

        manifest = retrieve(run)

        wrong = collections_run(tmp_path / "wrong", server=address, indice_name="mine")
        centroids(wrong)
        with pytest.raises(ServiceError, match="one of: other, theirs"):
            retrieve(wrong)
    ours, theirs = (read_parts(each.neighbours, NEIGHBOURS) for each in (whole, run))
    names = [name for name in NEIGHBOURS.names if name not in ("duplicate_of", "similarity")]
    assert theirs.select(names).equals(ours.select(names))
    np.testing.assert_allclose(
        theirs.column("similarity").to_numpy(), ours.column("similarity").to_numpy(), atol=1e-6
    )
    assert theirs.column("duplicate_of").null_count == theirs.num_rows, "a server gives no vectors"
    assert ours.column("duplicate_of").null_count < ours.num_rows
    assert manifest.counts == retrieve(whole).counts


def test_another_runs_index_folder_serves_as_pool(tmp_path, whole):
    run = collections_run(tmp_path / "run", index=str(whole.index))
    centroids(run)

    retrieve(run)

    assert read_parts(run.neighbours, NEIGHBOURS).equals(read_parts(whole.neighbours, NEIGHBOURS))
    assert not run.index.exists()
