"""A run's own index, built by its stage, served under the run's name."""

from pathlib import Path

import httpx
import numpy as np
import pyarrow as pa
import pytest

from index_builder.encoding.clip import DEMO_CLIP, ClipEncoder
from index_builder.indexes import index
from index_builder.scoring.heads import DEMO_HEADS, load_head, load_rating_vector
from popfactory.settings_file import server_settings
from retrieval_server.indices import open_index
from retrieval_server.settings import IndexSettings, ServerSettings, settings_for_run
from spine.config import preset, with_demo_models, write_config
from spine.errors import ConfigError
from spine.protocol import RetrievalClient
from spine.run import Run
from spine.settings import ClipConfig, ListsConfig
from spine.shards import write_shard
from spine.stage import Stage
from spine.tables import METADATA
from tests.integration.server_index import running

D, N = 128, 300


@pytest.fixture(scope="module")
def vectors() -> np.ndarray:
    vectors = np.random.default_rng(4).standard_normal((N, D)).astype(np.float16).astype(np.float32)
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float16).astype(np.float32)


@pytest.fixture(scope="module")
def run(vectors: np.ndarray, tmp_path_factory: pytest.TempPathFactory) -> Run:
    run = Run(tmp_path_factory.mktemp("runs") / "pop-1")
    run.folder.mkdir()
    write_config(run.config, with_demo_models(preset("standard")))
    stage = Stage.open("pool", run.pool, {}, {})
    rows = [{"id": 7 * row - 900, "image_path": f"/pictures/{row}.png", "width": 800} for row in range(N)]
    write_shard(run.pool, 0, vectors, pa.Table.from_pylist(rows, schema=METADATA))
    stage.finish({"embedded": N}, {"n": N, "d": D, "model": "demo-clip", "demo_models": True})
    index(run)
    return run


def only_embeddings(settings: ServerSettings) -> ServerSettings:
    [one] = settings.indices
    plain = IndexSettings(name=one.name, folder=one.folder, clip=one.clip)  # heads are another test's
    return ServerSettings(indices=(plain,))


def test_a_runs_index_is_served_with_every_column(run, vectors):
    queries = np.random.default_rng(5).standard_normal((9, D)).astype(np.float32)
    queries /= np.linalg.norm(queries, axis=1, keepdims=True)
    expected = np.argsort(-(queries @ vectors.T), axis=1, kind="stable")[:, :20]
    with running(only_embeddings(settings_for_run(run))) as address, RetrievalClient(address) as client:
        assert client.indices() == ["pop-1"]
        table = client.knn_batch(queries, 20, index="pop-1")
        client._has_batch = False
        single = client.knn_batch(queries, 20, index="pop-1")
    wire = ["hash" if name == "id" else name for name in METADATA.names]
    assert table.column_names[:4] == ["query", "rank", "row", "similarity"]
    assert sorted(table.column_names[4:]) == sorted(wire)
    assert (table["row"].to_numpy().reshape(9, 20) == expected).all()
    assert table["hash"].to_pylist() == [7 * row - 900 for row in expected.ravel()]
    assert table["image_path"].to_pylist() == [f"/pictures/{row}.png" for row in expected.ravel()]
    assert table.drop("similarity").equals(single.drop("similarity"))  # types and nulls too


def test_a_runs_lists_are_those_of_its_settings(run: Run):
    assert server_settings(None, run.folder).lists_from == run.config
    with pytest.raises(ConfigError, match=r"popfactory\.toml, \[lists\]"):
        server_settings(None, run.folder, ListsConfig(takedown=("gone.txt",)))


def test_an_index_of_another_model_is_refused(run: Run):
    other = ClipConfig(model="ViT-L-14", pretrained="openai")
    with pytest.raises(
        ConfigError, match="vectors are from demo-clip, the model set for it is ViT-L-14/openai"
    ):
        open_index(IndexSettings(name="pop-1", folder=Path(run.index), clip=other))


def test_a_demo_run_is_served_with_its_heads(run, vectors):
    if not (DEMO_HEADS.is_dir() and DEMO_CLIP.is_dir()):
        pytest.skip("the demo models are not there")
    body = {"text": "a red star", "num_images": 5, "num_result_ids": 50, "use_safety_model": True}
    body |= {"deduplicate": True, "aesthetic_score": 9, "aesthetic_weight": 0.5, "indice_name": "pop-1"}
    encoder = ClipEncoder.load(ClipConfig(model="demo", pretrained="", device="cpu"))
    query = encoder.encode_texts(["a red star"])[0] + 0.5 * load_rating_vector("demo", 9)
    nearest = np.argsort(-(vectors @ (query / np.linalg.norm(query))), kind="stable")[:50]
    unsafe = load_head("demo", "unsafe").score(vectors[nearest]) > 0.5
    with running(settings_for_run(run)) as address:
        answer = httpx.post(f"{address}/knn-service", json=body, timeout=120)
    assert answer.status_code == 200
    assert "x-popfactory-warning" not in answer.headers
    expected = [int(row) for row, hit in zip(nearest, unsafe, strict=True) if not hit]
    assert [
        result["id"] for result in answer.json()
    ] == expected  # random vectors: none is another's duplicate
