"""Index folders of every layout that clip-retrieval serves, over real HTTP."""

import base64
import io
import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import faiss
import httpx
import numpy as np
import pyarrow as pa
import pytest
from faiss.contrib.ondisk import merge_ondisk
from PIL import Image

from index_builder.metadata.metadata_rows import write_metadata
from retrieval_server.indices import open_index
from retrieval_server.settings import IndexSettings, ServerSettings, load_indices_paths
from spine.errors import DataError
from spine.protocol import ARROW_STREAM
from tests.integration.server_index import LAION5B_ENTRY, SCHEMA, D, Pool, draw_pool, running, write_index

POOL = draw_pool(300)
TEXTS = draw_pool(300, seed=8).vectors  # of the same rows, other vectors


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    """`both` has pictures and texts, `texts` has text.index alone."""
    root = tmp_path_factory.mktemp("text")
    folder = write_index(root / "both", POOL)
    add_text_index(root, folder)
    shutil.copytree(folder, root / "texts")
    (root / "texts" / "image.index").unlink()
    indices = tuple(IndexSettings(name=name, folder=root / name) for name in ("both", "texts"))
    with running(ServerSettings(indices=indices)) as address, httpx.Client(base_url=address) as client:
        yield client


def add_text_index(root: Path, folder: Path) -> None:
    other = write_index(root / "of-texts", Pool(TEXTS, POOL.metadata))
    shutil.move(other / "image.index", folder / "text.index")


def asked(client: httpx.Client, vector: np.ndarray, **fields: object) -> httpx.Response:
    body = {"embedding_input": vector.tolist(), "num_images": 12, "indice_name": "both"} | fields
    return client.post("/knn-service", json=body)


def nearest(vectors: np.ndarray, query: np.ndarray, k: int) -> list[int]:
    return np.argsort(-(vectors @ query), kind="stable")[:k].tolist()


def test_each_modality_searches_its_own_index(both):
    query = draw_pool(1, seed=3).vectors[0]
    for modality, vectors in (("image", POOL.vectors), ("text", TEXTS)):
        results = asked(both, query, modality=modality).json()
        assert [result["id"] for result in results] == nearest(vectors, query, 12)
        assert [result["width"] for result in results] == [
            POOL.metadata[result["id"]]["width"] for result in results
        ]
    assert nearest(POOL.vectors, query, 12) != nearest(TEXTS, query, 12)


def test_filters_of_a_text_query_look_at_the_texts_vectors(both):
    query = TEXTS[0]  # the head of a chain of near-duplicate texts
    plain, single = (
        [r["id"] for r in asked(both, query, modality="text", num_images=20, deduplicate=flag).json()]
        for flag in (False, True)
    )
    assert {0, 1} <= set(plain) and 0 in single and 1 not in single


def test_a_folder_may_have_a_text_index_alone(both):
    query = TEXTS[7]
    answer = asked(both, query, indice_name="texts", modality="text")
    assert [result["id"] for result in answer.json()] == nearest(TEXTS, query, 12)
    refused = asked(both, query, indice_name="texts")
    assert (refused.status_code, refused.json()["code"]) == (400, "no_modality")
    assert "'text'" in refused.json()["message"]


def test_a_batch_names_its_modality(both):
    body = io.BytesIO()
    np.save(body, TEXTS[:3])
    answer = both.post("/knn-batch?k=5&modality=text&indice_name=both", content=body.getvalue())
    assert answer.headers["content-type"] == ARROW_STREAM
    rows = pa.ipc.open_stream(answer.content).read_all()["id"].to_pylist()
    assert rows == [row for query in TEXTS[:3] for row in nearest(TEXTS, query, 5)]
    refused = both.post("/knn-batch?k=5&modality=sound&indice_name=both", content=body.getvalue())
    assert (refused.status_code, refused.json()["code"]) == (400, "no_modality")


def test_a_text_index_of_other_rows_is_refused_at_the_start(tmp_path: Path):
    folder = write_index(tmp_path / "pool", POOL)
    short = write_index(tmp_path / "short", draw_pool(200))
    shutil.move(short / "image.index", folder / "text.index")
    with pytest.raises(DataError, match=r"200 vectors in text\.index, 300 rows of metadata"):
        open_index(IndexSettings(name="pool", folder=folder))


def test_pictures_come_with_an_answer_only_where_their_folder_is_set(tmp_path: Path):
    folder = write_index(tmp_path / "pool", POOL)
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    Image.new("RGB", (16, 9), (10, 200, 10)).save(pictures / "5.png")
    Image.new("RGB", (16, 9)).save(tmp_path / "6.png")
    paths = [str((tmp_path if row == 6 else pictures) / f"{row}.png") for row in range(300)]
    write_metadata(folder / "metadata" / "0.arrow", pa.table({"image_path": paths}))
    entries = {
        "off": {"indice_folder": str(folder), "clip_model": ""},
        "on": {"indice_folder": str(folder), "clip_model": "", "picture_folder": str(pictures)},
    }
    (tmp_path / "indices_paths.json").write_text(json.dumps(entries))
    with running(load_indices_paths(tmp_path / "indices_paths.json")) as address:
        with httpx.Client(base_url=address) as client:
            result = asked(client, POOL.vectors[5], indice_name="on").json()[0]
            body = {"ids": [5, 6, 7], "indice_name": "on"}
            rows = [each["metadata"] for each in client.post("/metadata", json=body).json()]
            off = asked(client, POOL.vectors[5], indice_name="off").json()[0]
    assert (result["id"], result["image_path"]) == (5, paths[5])
    assert Image.open(io.BytesIO(base64.b64decode(result["image"]))).size == (16, 9)
    assert ["image" in row for row in rows] == [True, False, False]  # 6 lies elsewhere, 7 is missing
    assert "image" not in off and off["image_path"] == paths[5]


def write_laion5b(folder: Path, pool: Pool) -> faiss.Index:
    """LAION-5B's layout, small: lists on disk merged from two parts, three Arrow files of many batches.

    Returns:
        The same index in memory.
    """
    lists = folder / "image.index"
    lists.mkdir(parents=True)
    faiss.omp_set_num_threads(1)
    trained = faiss.index_factory(D, "OPQ8_16,IVF16_HNSW8,PQ8x8", faiss.METRIC_INNER_PRODUCT)
    faiss.downcast_index(trained.index).do_polysemous_training = False  # slow, and of no use here
    rotation = faiss.downcast_VectorTransform(trained.chain.at(0))
    rotation.niter = rotation.niter_pq = rotation.niter_pq_0 = 4
    trained.train(pool.vectors)
    faiss.extract_index_ivf(trained).nprobe = 4
    rows, files = np.arange(len(pool.vectors)), []
    for part in np.array_split(rows, 2):
        shard = faiss.clone_index(trained)
        shard.add_with_ids(pool.vectors[part], part)
        files.append(str(folder / f"part{part[0]}.index"))
        faiss.write_index(shard, files[-1])
    full = faiss.clone_index(trained)
    full.add_with_ids(pool.vectors, rows)
    merge_ondisk(trained, files, str(lists / "merged_index.ivfdata"))
    faiss.write_index(trained, str(lists / "populated.index"))
    (folder / "metadata").mkdir()
    table = pa.Table.from_pylist(pool.metadata, schema=SCHEMA)
    for name, start, end in (("0_en", 0, 250), ("1_multi", 250, 450), ("2_nolang", 450, 600)):
        with pa.ipc.new_file(str(folder / "metadata" / f"{name}.arrow"), table.schema) as writer:
            writer.write_table(table.slice(start, end - start), max_chunksize=3)
    return full


def test_laion5bs_layout_is_served_by_its_documented_entry(tmp_path: Path):
    pool = draw_pool(600)
    full = write_laion5b(tmp_path / "laion5B-index", pool)
    # The folder may move, or be a mount that can't be written.
    shutil.move(tmp_path / "laion5B-index", tmp_path / "moved")
    entry = LAION5B_ENTRY | {"indice_folder": str(tmp_path / "moved")}
    path = tmp_path / "indices_paths.json"
    path.write_text(json.dumps({"laion5B": entry}))
    queries = draw_pool(10, seed=4).vectors
    with running(load_indices_paths(path)) as address, httpx.Client(base_url=address) as client:
        for query in (*queries, *pool.vectors[:10]):
            body = {"indice_name": "laion5B", "num_images": 40}
            plain = asked(client, query, **body).json()
            single = asked(client, query, **body, deduplicate=True).json()
            similarities, rows, vectors = full.search_and_reconstruct(query[None], 40)
            assert [result["similarity"] for result in plain] == pytest.approx(similarities[0], abs=1e-5)
            assert {result["id"] for result in plain} == set(rows[0].tolist())
            for result in plain:
                known = pool.metadata[result["id"]]
                assert (result["url"], result["caption"]) == (known["url"], known["caption"])
            unit = vectors[0] / np.linalg.norm(vectors[0], axis=1, keepdims=True)
            alike = unit @ unit.T > 0.94
            groups = {
                frozenset(np.flatnonzero(np.linalg.matrix_power(alike.astype(int) > 0, 40)[i]))
                for i in range(40)
            }
            assert len(single) == len(groups) <= len(plain)
