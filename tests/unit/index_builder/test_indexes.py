import json
import os
import shutil
import stat

import faiss
import numpy as np
import pyarrow as pa
import pytest

from index_builder import indexes
from index_builder.indexes import index
from index_builder.indexing.autofaiss import environment
from index_builder.indexing.index_file import INDEX_FILE, VECTORS_FILE
from index_builder.indexing.index_folder import IndexFolder
from index_builder.metadata import metadata_rows
from spine.config import write_config
from spine.errors import ConfigError, DataError
from spine.manifest import verify
from spine.run import Run
from spine.settings import Config, IndexConfig, PoolConfig
from spine.shards import write_shard
from spine.stage import Stage
from spine.tables import METADATA
from tests.unit.index_builder.scattered import near, scattered

N, D = 4_000, 64


@pytest.fixture(scope="module")
def vectors():
    return scattered(N, D, middles=60, noise=0.5)


@pytest.fixture(scope="module")
def queries(vectors):
    return near(vectors, 100, noise=0.05)


def pool_run(folder, vectors, *, shards=3, memory_budget="8GB", builder="planner", factory="", **pool):
    run = Run(folder)
    folder.mkdir(exist_ok=True)
    settings = IndexConfig(memory_budget=memory_budget, builder=builder, factory=factory)
    write_config(run.config, Config(index=settings, pool=PoolConfig(**pool)))
    stage = Stage.open("pool", run.pool, {}, {"source": str(len(vectors))})
    for number, rows in enumerate(np.array_split(np.arange(len(vectors)), shards)):
        table = pa.table({"id": rows * 10 + 1, "url": [f"http://x/{row}" for row in rows]})
        for column in METADATA:
            if column.name not in table.column_names:
                table = table.append_column(column, pa.nulls(len(rows), column.type))
        write_shard(run.pool, number, vectors[rows], table.select(METADATA.names).cast(METADATA))
    stage.finish({"embedded": len(vectors)}, {"d": D, "model": "tiny", "demo_models": False})
    return run


def recall_at(k, found, vectors, queries):
    known = np.argsort(-(queries @ vectors.T), axis=1)[:, :k]
    return np.mean([len(np.intersect1d(a, b)) / k for a, b in zip(found, known, strict=True)])


@pytest.mark.parametrize(
    ("memory_budget", "kind", "recall"),
    [
        ("2MB", "IndexFlat", 0.995),
        ("700kB", "IndexIVFRaBitQ", 0.95),
        ("400kB", "IndexIVFScalarQuantizer", 0.95),
        ("170kB", "IndexIVFRaBitQ", 0.95),
        ("60kB", "IndexIVFRaBitQ", 0.95),
    ],
)
def test_each_kind_finds_its_neighbours_and_their_metadata(
    tmp_path, vectors, queries, memory_budget, kind, recall
):
    run = pool_run(tmp_path / "run", vectors, memory_budget=memory_budget)

    manifest = index(run)

    folder = IndexFolder.open(run.index)
    similarities, rows = folder.search(queries, 20)
    assert recall_at(20, rows, vectors, queries) > recall
    np.testing.assert_allclose(similarities, (queries[:, None] * vectors[rows]).sum(2), atol=0.02)
    assert folder.metadata(rows[0], ["id"]).column("id").to_pylist() == (rows[0] * 10 + 1).tolist()
    assert folder.columns == METADATA.names
    assert (folder.n, folder.d, folder.model, folder.demo_models) == (N, D, "tiny", False)
    assert manifest.counts == {"vectors": N}
    assert manifest.facts["kind"].startswith(kind)
    report = json.loads((run.index / "index_report.json").read_text())
    assert report["nprobe"] == folder.nprobe == manifest.facts["nprobe"]
    assert report["over_fetch"] == folder.over_fetch == manifest.facts["over_fetch"]
    assert (folder.over_fetch > 0) == ("RaBitQ" in kind)
    assert report["search"]["recall_at_100"] >= recall and report["search"]["recall_reached"]
    assert (run.index / "index_report.svg").read_text().startswith("<svg")
    assert not list(run.index.glob(".*")), "what only the building needed is gone"
    assert report["size_bytes"] == (run.index / INDEX_FILE).stat().st_size
    assert (run.index / VECTORS_FILE).exists() == report["ranked_exactly"] == ("RaBitQ" in kind)
    assert verify(run.index) == []


def test_the_built_index_fits_its_budget(tmp_path, vectors):
    for memory_budget in ("1100kB", "400kB", "230kB", "180kB"):
        run = pool_run(tmp_path / memory_budget, vectors, memory_budget=memory_budget)
        index(run)

        assert (run.index / INDEX_FILE).stat().st_size < 1.02 * float(memory_budget[:-2]) * 1_000


@pytest.mark.parametrize("memory_budget", ["8GB", "400kB", "170kB"])
def test_built_again_it_is_the_same_file_for_file(tmp_path, vectors, memory_budget):
    runs = [pool_run(tmp_path / name, vectors, memory_budget=memory_budget) for name in "ab"]

    digests = {index(run).digest for run in runs}

    assert len(digests) == 1
    assert index(runs[0], force=True).digest in digests


def test_another_recall_measures_again_and_builds_nothing(tmp_path, vectors):
    run = pool_run(tmp_path / "run", vectors, memory_budget="400kB")
    before = index(run).facts["nprobe"]
    built = (run.index / VECTORS_FILE, run.index / "metadata" / "0.arrow")
    kept = built[1].stat().st_mtime_ns
    write_config(run.config, Config(index=IndexConfig(memory_budget="400kB", recall=0.5)))

    after = index(run).facts["nprobe"]

    assert after < before and built[1].stat().st_mtime_ns == kept
    assert faiss.read_index(str(run.index / INDEX_FILE)).nprobe == after == IndexFolder.open(run.index).nprobe
    assert json.loads((run.index / "index_report.json").read_text())["build"]["found_built"]


@pytest.mark.parametrize("factory", ["HNSW16", "IVF32,SQfp16", "PCA32,IVF32,PQ16x4", "IVF32,RaBitQfs"])
def test_an_index_asked_for_by_name_is_built_and_read(tmp_path, vectors, queries, factory):
    run = pool_run(tmp_path / "run", vectors, factory=factory)

    manifest = index(run)

    assert manifest.parameters["factory"] == factory
    found = IndexFolder.open(run.index).search(queries, 20)[1]
    assert recall_at(20, found, vectors, queries) > 0.93


def test_metadata_of_many_rows_is_cut_into_files_across_shards(tmp_path, vectors, monkeypatch):
    monkeypatch.setattr(indexes, "METADATA_ROWS", 700)
    monkeypatch.setattr(metadata_rows, "METADATA_ROWS", 700)
    run = pool_run(tmp_path / "run", vectors, shards=7)
    published = indexes.write_metadata

    def stop_at_the_fourth(path, table):
        if path.stem == "3":
            raise KeyboardInterrupt
        published(path, table)

    with monkeypatch.context() as patch:
        patch.setattr(indexes, "write_metadata", stop_at_the_fourth)
        with pytest.raises(KeyboardInterrupt):
            index(run)
    index(run)

    assert [path.name for path in sorted((run.index / "metadata").iterdir())] == [
        f"{i}.arrow" for i in range(6)
    ]
    rows = np.random.default_rng(0).permutation(N)
    taken = IndexFolder.open(run.index).metadata(rows, ["id"]).column("id").to_numpy()
    np.testing.assert_array_equal(taken, rows * 10 + 1)


def test_a_second_start_does_nothing(tmp_path, vectors):
    run = pool_run(tmp_path / "run", vectors)
    index(run)
    written = (run.index / INDEX_FILE).stat().st_mtime_ns

    index(run)

    assert (run.index / INDEX_FILE).stat().st_mtime_ns == written


@pytest.mark.parametrize(
    "stop_before",
    [
        "write_metadata",
        "_copy_vectors",
        "_trained",
        "put_together",
        "set_nprobe",
        "publish_json",
        "publish_text",
    ],
)
def test_stopped_anywhere_and_started_again_it_is_as_if_never_stopped(
    tmp_path, vectors, monkeypatch, stop_before
):
    whole = index(pool_run(tmp_path / "whole", vectors, memory_budget="170kB"))
    run = pool_run(tmp_path / "run", vectors, memory_budget="170kB")

    def stop(*arguments):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(indexes, stop_before, stop)
        with pytest.raises(KeyboardInterrupt):
            index(run)
    assert "not finished" in verify(run.index)[0]

    assert index(run).digest == whole.digest


def test_a_flipped_bit_in_any_published_file_is_named(tmp_path, vectors):
    run = pool_run(tmp_path / "run", vectors, memory_budget="170kB")
    manifest = index(run)
    assert {record.path for record in manifest.files} == {
        "image.index",
        "vectors.npy",
        "metadata/0.arrow",
        "index_report.json",
        "index_report.svg",
    }
    for record in manifest.files:
        path = run.index / record.path
        whole = path.read_bytes()
        for place in (0, len(whole) // 2, len(whole) - 1):
            path.write_bytes(whole[:place] + bytes([whole[place] ^ 4]) + whole[place + 1 :])
            assert verify(run.index) == [f"{path}: content differs from what was published"]
        path.write_bytes(whole)
    assert verify(run.index) == []


def test_pictures_that_are_all_alike_still_make_an_index(tmp_path, vectors):
    run = pool_run(tmp_path / "run", np.tile(vectors[:3], (200, 1)), memory_budget="60kB")

    index(run)

    similarities, rows = IndexFolder.open(run.index).search(vectors[:3], 200)
    np.testing.assert_allclose(similarities, 1, atol=0.02)
    np.testing.assert_array_equal(np.sort(rows, axis=1), np.arange(600).reshape(200, 3).T)


@pytest.mark.parametrize("n", [1, 2, 39])
def test_a_handful_of_pictures_is_enough(tmp_path, vectors, n):
    run = pool_run(tmp_path / "run", vectors[:n], shards=1)

    index(run)

    assert IndexFolder.open(run.index).search(vectors[:1], 1)[1] == [[0]]


@pytest.mark.parametrize("name", ["index", "server"])
def test_with_an_index_or_server_named_there_is_nothing_to_build(tmp_path, vectors, name):
    with pytest.raises(ConfigError, match=rf"\[pool\] {name} = '.*there'.*no index to build"):
        index(pool_run(tmp_path / "run", vectors, **{name: "there"}))


def test_an_empty_or_damaged_pool_is_one_clear_line(tmp_path, vectors):
    with pytest.raises(DataError, match="no picture could be embedded"):
        index(pool_run(tmp_path / "empty", vectors[:0], shards=1))
    run = pool_run(tmp_path / "cut", vectors)
    path = run.pool / "img_emb" / "img_emb_00001.npy"
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(DataError, match="img_emb_00001"):
        index(run)
    with pytest.raises(ConfigError, match="memory_budget"):
        index(pool_run(tmp_path / "small", vectors, memory_budget="10kB"))
    assert not (run.index / INDEX_FILE).exists()


def test_vectors_that_changed_places_are_refused_before_anything_is_built(tmp_path, vectors):
    run = pool_run(tmp_path / "run", vectors, shards=4)
    first, second = (run.pool / "img_emb" / f"img_emb_0000{number}.npy" for number in (1, 3))
    content = first.read_bytes()
    first.write_bytes(second.read_bytes())
    second.write_bytes(content)

    with pytest.raises(DataError, match=r"img_emb_00001\.npy: content differs.*put it back"):
        index(run)

    assert not (run.index / "metadata").exists() and not (run.index / INDEX_FILE).exists()


def test_the_builder_autofaiss_is_a_command_that_has_to_be_there(tmp_path, vectors, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))

    with pytest.raises(ConfigError, match="environment of its own"):
        index(pool_run(tmp_path / "run", vectors, builder="autofaiss"))


def test_the_index_that_an_autofaiss_command_wrote_is_taken_and_a_failure_is_told(
    tmp_path, vectors, queries, monkeypatch
):
    # Stands for the command, which needs packages older than ours: it puts a ready index where it is told to.
    ready = faiss.index_factory(D, "HNSW16", faiss.METRIC_INNER_PRODUCT)
    ready.add(vectors)
    faiss.write_index(ready, str(tmp_path / "ready"))
    command = tmp_path / "bin" / "autofaiss"
    command.parent.mkdir()
    command.write_text(
        "#!/bin/sh\n"
        'for argument; do case "$argument" in --index_path=*) to="${argument#--index_path=}";; esac; done\n'
        'printf "%s\\n" "$@" > ' + str(tmp_path / "arguments") + "\n"
        f'cp "{tmp_path}/ready" "$to" || {{ echo "no memory" >&2; exit 0; }}\n'
    )
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "nothing"))
    command.chmod(command.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{command.parent}{os.pathsep}{os.environ['PATH']}")
    run = pool_run(tmp_path / "run", vectors, builder="autofaiss")

    manifest = index(run)

    assert manifest.facts["kind"] == "IndexHNSWFlat"
    assert recall_at(10, IndexFolder.open(run.index).search(queries, 10)[1], vectors, queries) > 0.9
    arguments = (tmp_path / "arguments").read_text().splitlines()
    assert arguments[0] == "build_index" and "--metric_type=ip" in arguments
    assert verify(run.index) == []

    (tmp_path / "ready").unlink()
    with pytest.raises(DataError, match=r"made no index.*no memory"):
        index(run, force=True)


@pytest.mark.skipif(
    not (environment() / "popfactory.json").exists() and shutil.which("autofaiss") is None,
    reason="no environment with autofaiss: `popfactory autofaiss` makes it",
)
def test_the_real_autofaiss_builds_an_index_that_opens(tmp_path, vectors, queries):
    run = pool_run(tmp_path / "run", vectors, builder="autofaiss")

    index(run)

    assert recall_at(10, IndexFolder.open(run.index).search(queries, 10)[1], vectors, queries) > 0.7
