"""The server over real HTTP and real indices, against brute force in NumPy."""

import base64
import io
import json
import math
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from retrieval_server import bodies
from retrieval_server.indices import open_index
from retrieval_server.settings import IndexSettings, ServerSettings
from spine.errors import ModelError, ServiceError
from spine.protocol import ARROW_STREAM, KnnQuery, RetrievalClient
from tests.integration.server_index import D, Pool, draw_pool, running, write_index

POOL = draw_pool()


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("indices")
    indices = (
        IndexSettings(name="flat", folder=write_index(folder / "flat", POOL)),
        IndexSettings(
            name="ivf", folder=write_index(folder / "ivf", POOL, "IVF8,Flat"), columns=("url", "width")
        ),
        IndexSettings(
            name="pq", folder=write_index(folder / "pq", POOL, "IVF4_HNSW8,PQ8x4"), memory_map=False
        ),
    )
    with running(ServerSettings(indices=indices)) as address:
        yield address


@pytest.fixture(scope="module")
def http(address: str) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=address, timeout=60) as client:
        yield client


def some_queries(count: int, seed: int = 1) -> np.ndarray:
    queries = np.random.default_rng(seed).standard_normal((count, D)).astype(np.float32)
    return queries / np.linalg.norm(queries, axis=1, keepdims=True)


def exact(query: np.ndarray, k: int) -> tuple[list[int], np.ndarray]:
    similarities = POOL.vectors @ query
    rows = np.argsort(-similarities, kind="stable")[:k]
    return rows.tolist(), similarities[rows]


def groups_of(vectors: np.ndarray, threshold: float) -> list[set[int]]:
    """Connected components of "similarity above threshold", by merging sets until none changes."""
    groups = [{row} for row in range(len(vectors))]
    for first in range(len(vectors)):
        for second in range(first + 1, len(vectors)):
            if float(vectors[first] @ vectors[second]) > threshold:
                joined = [group for group in groups if first in group or second in group]
                groups = [group for group in groups if group not in joined] + [set().union(*joined)]
    return groups


def test_knn_gives_the_exact_neighbours_in_order(http):
    for query in some_queries(20):
        rows, similarities = exact(query, 40)
        body = {
            "embedding_input": query.tolist(),
            "modality": "image",
            "num_images": 40,
            "indice_name": "flat",
        }
        results = http.post("/knn-service", json=body).json()
        assert [result["id"] for result in results] == rows
        assert [result["similarity"] for result in results] == pytest.approx(similarities, abs=1e-5)


def test_metadata_comes_under_names_that_do_not_hide_the_kNNs_own(http):
    query = some_queries(1)[0]
    results = http.post("/knn-service", json={"embedding_input": query.tolist(), "num_images": 40}).json()
    for result in results:
        row = POOL.metadata[result["id"]]
        assert result["hash"] == row["id"]  # 64 bits, exactly
        assert result["alt_txt_similarity"] == pytest.approx(row["similarity"])
        assert (result["url"], result["caption"], result["width"]) == (
            row["url"],
            row["caption"],
            row["width"],
        )
        assert result["punsafe"] is None if math.isnan(row["punsafe"]) else result["punsafe"] >= 0


@pytest.mark.parametrize(("num_images", "described"), [(3, 3), (0, 0), (-1, 9), (None, 10), (500, 10)])
def test_the_first_num_images_carry_metadata(http, num_images, described):
    body = {"embedding_input": some_queries(1)[0].tolist(), "num_images": num_images, "num_result_ids": 10}
    results = http.post("/knn-service", json=body).json()
    assert len(results) == 10
    assert [len(result) > 2 for result in results] == [True] * described + [False] * (10 - described)


def test_deduplicate_keeps_the_best_of_each_chain(http):
    for row in (0, 22, 123, 300):
        query = POOL.vectors[row]
        rows, _ = exact(query, 100)
        groups = groups_of(POOL.vectors[rows], 0.94)
        expected = [rows[place] for place in sorted(min(group) for group in groups)]
        assert len(expected) < 100
        body = {
            "embedding_input": query.tolist(),
            "num_images": 0,
            "num_result_ids": 100,
            "deduplicate": True,
        }
        assert [result["id"] for result in http.post("/knn-service", json=body).json()] == expected


@pytest.mark.parametrize("name", ["flat", "ivf", "pq"])
def test_filters_work_on_every_kind_of_index(http, name):
    body = {
        "embedding_input": POOL.vectors[0].tolist(),
        "num_images": 5,
        "num_result_ids": 50,
        "indice_name": name,
    }
    plain, single = (
        [result["id"] for result in http.post("/knn-service", json=body | {"deduplicate": flag}).json()]
        for flag in (False, True)
    )
    assert single == [row for row in plain if row in single]
    assert len(single) < len(plain)


def test_k_above_n_gives_every_row_once(http):
    body = {"embedding_input": some_queries(1)[0].tolist(), "num_images": 10_000}
    results = http.post("/knn-service", json=body).json()
    assert sorted(result["id"] for result in results) == list(range(len(POOL.vectors)))


def test_only_the_columns_of_the_settings_are_served(http):
    body = {"embedding_input": some_queries(1)[0].tolist(), "num_images": 1, "indice_name": "ivf"}
    assert set(http.post("/knn-service", json=body).json()[0]) == {"id", "similarity", "url", "width"}


def test_an_embedding_is_not_scaled(http):
    query = some_queries(1)[0]
    plain, larger = (
        http.post("/knn-service", json={"embedding_input": (query * by).tolist(), "num_images": 5}).json()
        for by in (1, 100)
    )
    assert [result["id"] for result in plain] == [result["id"] for result in larger]
    assert [result["similarity"] for result in larger] == pytest.approx(
        [100 * result["similarity"] for result in plain], rel=1e-5
    )


def test_a_filter_without_its_model_is_told_in_a_header(http):
    body = {"embedding_input": some_queries(1)[0].tolist(), "num_images": 1, "use_safety_model": True}
    warned = http.post("/knn-service", json=body | {"use_violence_detector": True})
    assert warned.status_code == 200
    assert "use_safety_model" in warned.headers["x-popfactory-warning"]
    assert "use_violence_detector" in warned.headers["x-popfactory-warning"]


def test_metadata_of_rows_comes_in_the_order_asked(http):
    ids = [5, 0, 599, 5]
    content = http.post("/metadata", json={"ids": ids, "indice_name": "flat"}).json()
    assert [entry["id"] for entry in content] == ids
    assert [entry["metadata"]["hash"] for entry in content] == [POOL.metadata[row]["id"] for row in ids]
    assert http.post("/metadata", json={"ids": [], "indice_name": "flat"}).json() == []


def test_the_indices_are_listed_in_order(http):
    assert http.get("/indices-list").json() == ["flat", "ivf", "pq"]


def test_the_front_page_names_the_indices(http):
    assert http.get("/favicon.ico").status_code == 204
    page = http.get("/")
    assert page.headers["content-type"].startswith("text/html")
    assert all(f"<td>{name}</td>" in page.text for name in ("flat", "ivf", "pq"))
    assert f"{http.base_url}/knn-service".replace("//knn", "/knn") in page.text


def test_metrics_have_clip_retrievals_names(http):
    http.post("/knn-service", json={"embedding_input": some_queries(1)[0].tolist(), "num_images": 1})
    text = http.get("/metrics").text
    for name in ("full_knn_request_time", "knn_index_time", "metadata_get_time", "dedup_time"):
        assert f"{name}_bucket" in text
    assert "full_knn_request_time" in http.get("/metrics-summary").text


def test_the_probes_answer(http):
    assert http.get("/live").json() == {"status": "live"}
    assert http.get("/ready").json() == {"status": "ready", "indices": {"flat": 600, "ivf": 600, "pq": 600}}


@pytest.mark.parametrize("name", ["flat", "ivf"])
@pytest.mark.parametrize("k", [1, 17, 700])
def test_a_batch_gives_the_rows_that_single_queries_give(address, name, k):
    queries = some_queries(12, seed=k)
    with RetrievalClient(address) as client:
        batch = client.knn_batch(queries, k, index=name)
        client._has_batch = False  # as with a server that has no /knn-batch
        single = client.knn_batch(queries, k, index=name)
    assert batch.column_names == single.column_names
    for column in ("query", "rank", "row", *batch.column_names[4:]):
        assert batch[column].to_pylist() == pytest.approx(single[column].to_pylist(), nan_ok=True), column
    assert batch["similarity"].to_numpy() == pytest.approx(single["similarity"].to_numpy(), abs=1e-5)


def test_a_batch_is_exact_and_may_name_its_columns(address):
    queries = some_queries(30)
    with RetrievalClient(address) as client:
        table = client.knn_batch(queries, 10, columns=["caption", "hash", "sha256"], index="flat")
    expected = [row for query in queries for row in exact(query, 10)[0]]
    assert table.column_names == ["query", "rank", "row", "similarity", "caption", "hash", "sha256"]
    assert table["row"].to_pylist() == expected
    assert table["hash"].to_pylist() == [POOL.metadata[row]["id"] for row in expected]
    assert table["sha256"].null_count == table.num_rows
    assert table["sha256"].type == pa.string()


def test_nprobe_travels_with_the_batch(address):
    queries = some_queries(40)
    with RetrievalClient(address) as client:
        all_lists = client.knn_batch(queries, 10, index="ivf", nprobe=8, columns=[])
        one_list = client.knn_batch(queries, 10, index="ivf", nprobe=1, columns=[])
    expected = [row for query in queries for row in exact(query, 10)[0]]
    assert all_lists["row"].to_pylist() == expected
    assert one_list["row"].to_pylist() != expected


@pytest.mark.parametrize("name", ["flat", "ivf"])
@pytest.mark.parametrize("unknown", ["keep", "drop"])
def test_a_batch_finds_k_rows_that_meet_its_filters(http, name, unknown):
    queries = some_queries(8, seed=9)
    parameters = {"k": 20, "indice_name": name, "nprobe": 8, "punsafe_max": 0.1, "unknown": unknown}
    answer = http.post("/knn-batch", params=parameters, content=npy(queries))
    assert answer.status_code == 200, answer.text
    punsafe = np.array([row["punsafe"] for row in POOL.metadata])
    meets = (punsafe <= 0.1) | (np.isnan(punsafe) if unknown == "keep" else False)
    similarities = np.where(meets, queries @ POOL.vectors.T, -2)
    expected = np.argsort(-similarities, axis=1, kind="stable")[:, :20].ravel().tolist()
    with pa.ipc.open_stream(answer.content) as reader:
        assert reader.read_all()["id"].to_pylist() == expected
    assert 50 < meets.sum() < 300


def test_a_filter_on_what_the_index_does_not_know_is_refused(http):
    body = npy(some_queries(2))
    for filters in ({"min_side_px": 700}, {"pwatermark_max": 0.5}):  # there is a width and no height
        refused = http.post("/knn-batch", params={"k": 5, "indice_name": "flat"} | filters, content=body)
        assert (refused.status_code, refused.json()["code"]) == (400, "unknown_column")
        kept = {"k": 5, "indice_name": "flat", "unknown": "keep"} | filters
        assert http.post("/knn-batch", params=kept, content=body).status_code == 200
    for filters in (
        {"punsafe_max": "nan"},
        {"aesthetic_score": 10},
        {"unknown": "maybe"},
        {"min_side_px": -1},
    ):
        answer = http.post("/knn-batch", params={"k": 5} | filters, content=body)
        assert (answer.status_code, answer.json()["code"]) == (400, "bad_request")
    ignored = http.post("/knn-batch", params={"k": 5, "aesthetic_score": 9}, content=body)
    assert "aesthetic_score" in ignored.headers["x-popfactory-warning"]


def test_many_clients_at_once_get_their_own_answers(address):
    queries = some_queries(64, seed=3)
    expected = [exact(query, 20)[0] for query in queries]

    def ask(number: int) -> list[int]:
        query = KnnQuery(embedding_input=queries[number].tolist(), num_images=20, indice_name="flat")
        return [row["id"] for row in client.knn(query)]

    with RetrievalClient(address) as client, ThreadPoolExecutor(16) as threads:
        assert list(threads.map(ask, range(64))) == expected


VECTOR = some_queries(1)[0].tolist()
GOOD = {
    "embedding_input": VECTOR,
    "modality": "image",
    "num_images": 2,
    "num_result_ids": 2,
    "indice_name": "flat",
}
PNG = io.BytesIO()
Image.new("RGB", (8, 8)).save(PNG, "PNG")


@pytest.mark.parametrize("name", ["flat", "ivf", "pq"])
@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        (b"{", 400, "no JSON"),
        (b"", 400, "no JSON"),
        (b"\xff\xfe", 400, "no JSON"),
        (b'{"text": "\xed\xa0\x80"}', 400, "no JSON"),
        (b"[" * 100_000, 400, "no JSON"),
        (b"[1]", 400, "no JSON object"),
        (b"null", 400, "no JSON object"),
        ({"embedding_input": None}, 400, "no query"),
        ({"embedding_input": None, "text": ""}, 400, "no query"),
        ({"text": ""}, 200, ""),
        ({"modality": "text"}, 400, "no text.index"),
        ({"modality": "nonsense"}, 400, "modality"),
        ({"indice_name": "unknown"}, 404, "no such index"),
        ({"embedding_input": VECTOR[:-1]}, 400, "31 numbers"),
        ({"embedding_input": []}, 400, "list of numbers"),
        ({"embedding_input": [VECTOR, VECTOR]}, 400, "/knn-batch"),
        ({"embedding_input": ["word"] * D}, 400, "no number"),
        ({"embedding_input": [str(value) for value in VECTOR]}, 200, ""),
        ({"embedding_input": [None, *VECTOR[1:]]}, 400, "finite"),
        ({"embedding_input": [1e39, *VECTOR[1:]]}, 400, "finite"),
        ({"embedding_input": [0.0] * D}, 200, ""),
        ({"num_images": "5"}, 400, "num_images"),
        ({"num_images": 5.0}, 400, "num_images"),
        ({"num_result_ids": 0}, 400, "1 to 10,000"),
        ({"num_result_ids": -1}, 400, "1 to 10,000"),
        ({"num_result_ids": 10**9}, 400, "1 to 10,000"),
        ({"num_result_ids": 10_001}, 400, "1 to 10,000"),
        ({"deduplicate": "false"}, 200, ""),
        ({"use_mclip": True}, 200, ""),
        ({"aesthetic_score": None}, 200, ""),
        ({"aesthetic_score": 42, "aesthetic_weight": 0.5}, 400, "aesthetic_score"),
        ({"aesthetic_score": 9}, 400, "aesthetic_weight"),
        ({"text": "a fox"}, 400, "no CLIP model"),
        ({"image": base64.b64encode(PNG.getvalue()).decode()}, 400, "no CLIP model"),
        ({"image": "not base64!"}, 400, "base64"),
        ({"image_url": "http://127.0.0.1:1/"}, 403, "switched off"),
        ({"image_url": "file:///etc/passwd"}, 403, "switched off"),
    ],
)
def test_each_odd_request_has_its_answer(http, name, body, status, words):
    if isinstance(body, dict):
        body = json.dumps(GOOD | {"indice_name": name} | body).encode()
    answer = http.post("/knn-service", content=body)
    assert (answer.status_code, words in answer.text) == (status, True), answer.text
    if status != 200:
        assert set(answer.json()) == {"message", "code"}
        assert "/tmp" not in answer.text and "Traceback" not in answer.text


@pytest.mark.parametrize("value", ["NaN", "Infinity", "-Infinity", "1e999"])
def test_no_number_that_is_none_reaches_faiss(http, value):
    body = json.dumps(GOOD | {"indice_name": "pq"}).replace(json.dumps(VECTOR[0]), value, 1)
    assert http.post("/knn-service", content=body.encode()).status_code == 400
    assert http.get("/live").status_code == 200


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"ids": [600]}, 400),
        ({"ids": [-1]}, 400),
        ({"ids": ["1"]}, 400),
        ({"ids": [1.0]}, 400),
        ({"ids": [True]}, 400),
        ({"ids": [10**30]}, 400),
        ({"ids": "1"}, 400),
        ({"ids": [1] * 10_001}, 400),
        ({}, 400),
        ([], 400),
        ({"ids": [1], "indice_name": "unknown"}, 404),
        ({"ids": [1], "indice_name": 5}, 404),
    ],
)
def test_odd_requests_for_metadata_are_refused(http, body, status):
    answer = http.post("/metadata", json=body)
    assert answer.status_code == status
    assert set(answer.json()) == {"message", "code"}


def npy(array: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, array, allow_pickle=True)
    return file.getvalue()


HUGE = (
    npy(np.zeros((1, D), np.float32)).replace(b"(1, 32)", b"(9999999999, 32)").replace(b"         ", b"", 1)
)


@pytest.mark.parametrize(
    ("body", "parameters", "status"),
    [
        (npy(some_queries(3)), {"k": 5}, 200),
        (npy(some_queries(3).astype(np.float16)), {"k": 5}, 200),
        (npy(some_queries(3).astype(np.float64)), {"k": 5}, 200),
        (npy(np.empty((0, D), np.float32)), {"k": 5}, 200),
        (npy(some_queries(3)), {}, 400),
        (npy(some_queries(3)), {"k": "many"}, 400),
        (npy(some_queries(3)), {"k": 0}, 400),
        (npy(some_queries(3)), {"k": 10_001}, 400),
        (npy(some_queries(200)), {"k": 10_000}, 413),
        (npy(some_queries(3)), {"k": 5, "nprobe": -1}, 400),
        (npy(some_queries(3)), {"k": 5, "nprobe": 10**12}, 400),
        (npy(some_queries(3)), {"k": 5, "indice_name": "unknown"}, 404),
        (npy(some_queries(3)[:, :-1]), {"k": 5}, 400),
        (npy(some_queries(3)[0]), {"k": 5}, 400),
        (npy(np.full((1, D), np.nan, np.float32)), {"k": 5}, 400),
        (npy(np.full((1, D), 1e300)), {"k": 5}, 400),
        (npy(np.array([[{}] * D], dtype=object)), {"k": 5}, 400),
        (npy(np.ones((1, D), np.int64)), {"k": 5}, 400),
        (npy(some_queries(3))[:-1], {"k": 5}, 400),
        (HUGE, {"k": 5}, 400),
        (b"", {"k": 5}, 400),
        (b"\x93NUMPY\x01\x00\xff\xff", {"k": 5}, 400),
        (json.dumps([VECTOR]).encode(), {"k": 5}, 400),
    ],
)
def test_each_odd_batch_has_its_answer(http, body, parameters, status):
    answer = http.post("/knn-batch", params=parameters, content=body)
    assert answer.status_code == status, answer.text
    if status == 200:
        assert answer.headers["content-type"] == ARROW_STREAM
    else:
        assert set(answer.json()) == {"message", "code"}


@pytest.mark.parametrize(
    "body", [{}, [], {"texts": []}, {"texts": "a"}, {"texts": [5]}, {"texts": ["a"], "images": ["b"]}]
)
def test_odd_requests_to_embed_are_refused(http, body):
    assert http.post("/embed", json=body).status_code == 400


def test_a_body_over_32_mb_is_refused_before_it_is_parsed(http):
    def drip() -> Iterator[bytes]:
        for _ in range(40):
            yield b" " * 1_000_000

    said = http.post("/knn-service", content=b" " * 33_000_000)
    dripped = http.post("/knn-service", content=drip())
    assert (said.status_code, dripped.status_code) == (413, 413)


def test_a_body_that_drips_is_cut_off(http, monkeypatch):
    monkeypatch.setattr(bodies, "BODY_TIMEOUT_S", 0.3)
    answer = b""
    with socket.create_connection((http.base_url.host, http.base_url.port), timeout=30) as connection:
        connection.sendall(b"POST /knn-service HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\n{")
        while received := connection.recv(4096):  # until the server hangs up
            answer += received
    assert answer.startswith(b"HTTP/1.1 408")
    assert b"body_too_slow" in answer


scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
)
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner)
)
odd_fields = st.dictionaries(
    st.sampled_from([*KnnQuery(text="", num_images=1).to_json(), "ids", "texts"]), values
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.sampled_from(["/knn-service", "/metadata", "/embed"]), odd_fields, st.booleans())
def test_no_json_makes_the_server_fail(http, route, fields, on_a_good_query):
    body = as_json(GOOD | fields if on_a_good_query else fields)
    assert http.post(route, content=body).status_code < 500


def as_json(value: object) -> bytes:
    return json.dumps(value).encode("utf-8", "surrogatepass")


def test_routes_that_are_not_there_and_wrong_methods_are_4xx(http):
    assert http.get("/nothing").status_code == 404
    assert http.get("/knn-service").status_code == 405
    assert http.put("/knn-service").status_code == 405


def test_a_foreign_host_name_is_refused(http):
    assert http.get("/indices-list", headers={"Host": "evil.example"}).status_code == 403
    assert http.get("/indices-list", headers={"Host": "localhost:9999"}).status_code == 200


def test_no_foreign_origin_is_let_in(http):
    answer = http.get("/indices-list", headers={"Origin": "https://evil.example"})
    assert "access-control-allow-origin" not in answer.headers


def test_a_token_is_needed_where_one_is_set(tmp_path: Path):
    pool = Pool(POOL.vectors[:50], POOL.metadata[:50])
    settings = ServerSettings(
        indices=(IndexSettings(name="small", folder=write_index(tmp_path / "i", pool)),),
        origins=("https://mine.example",),
    )
    with running(settings, token="geheim") as address:
        with RetrievalClient(address) as client, pytest.raises(ServiceError, match="401"):
            client.indices()
        with RetrievalClient(address, token="geheim") as client:
            assert client.indices() == ["small"]
        assert httpx.get(f"{address}/live").status_code == 200
        preflight = {"Origin": "https://mine.example", "Access-Control-Request-Method": "POST"}
        allowed = httpx.options(f"{address}/knn-service", headers=preflight)
        assert allowed.headers["access-control-allow-origin"] == "https://mine.example"


def test_violence_and_aesthetic_vectors_do_what_clip_retrieval_does(tmp_path: Path):
    generator = np.random.default_rng(5)
    ratings = generator.standard_normal((10, D)).astype(np.float32)
    ratings /= np.linalg.norm(ratings, axis=1, keepdims=True)
    for rating in range(10):
        np.save(tmp_path / f"rating{rating}.npy", ratings[rating])
    prompts = generator.standard_normal((2, D)).astype(np.float32)
    np.save(tmp_path / "violence.npy", prompts)
    index = IndexSettings(
        name="pool",
        folder=write_index(tmp_path / "i", POOL),
        violence_vectors=str(tmp_path / "violence.npy"),
        aesthetic_vectors=str(tmp_path),
    )
    query = some_queries(1)[0]
    moved = query + ratings[7] * 0.5
    moved /= np.linalg.norm(moved)
    rows, similarities = exact(moved, 60)
    violent = (POOL.vectors[rows] @ prompts.T).argmax(axis=1) == 1
    assert 0 < violent.sum() < 60
    with running(ServerSettings(indices=(index,))) as address, RetrievalClient(address) as client:
        query = KnnQuery(
            embedding_input=query.tolist(), num_images=60, aesthetic_score=7, aesthetic_weight=0.5
        )
        pulled = client.knn(query)
        assert [result["id"] for result in pulled] == rows
        assert [result["similarity"] for result in pulled] == pytest.approx(similarities, abs=1e-5)
        pull = {"k": 60, "aesthetic_score": 7, "aesthetic_weight": 0.5}
        batch = httpx.post(f"{address}/knn-batch", params=pull, content=npy(some_queries(1)))
        assert pa.ipc.open_stream(batch.content).read_all()["id"].to_pylist() == rows
        body = query.to_json() | {"use_violence_detector": True}
        harmless = httpx.post(f"{address}/knn-service", json=body).json()
    assert [result["id"] for result in harmless] == [
        row for row, hit in zip(rows, violent, strict=True) if not hit
    ]


def test_violence_vectors_that_do_not_fit_are_one_line(tmp_path: Path):
    prompts = np.random.default_rng(5).standard_normal((3, D)).astype(np.float32)
    folder = write_index(tmp_path / "i", POOL)
    for name, vectors, words in (
        ("three", prompts, r"three\.npy: not two violence prompts"),
        ("narrow", prompts[:2, :-1], f"narrow\\.npy: .* d = {D - 1}, .* d = {D}"),
    ):
        np.save(tmp_path / f"{name}.npy", vectors)
        with pytest.raises(ModelError, match=words):
            open_index(
                IndexSettings(name="pool", folder=folder, violence_vectors=str(tmp_path / f"{name}.npy"))
            )


def test_a_full_server_says_when_to_come_back(tmp_path: Path):
    index = IndexSettings(name="pool", folder=write_index(tmp_path / "i", POOL))
    with running(ServerSettings(indices=(index,), waiting=0)) as address:
        answer = httpx.post(f"{address}/knn-service", json=GOOD | {"indice_name": None})
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
        assert httpx.get(f"{address}/live").status_code == 200


def test_strict_safety_refuses_what_it_can_not_filter(tmp_path: Path):
    index = IndexSettings(name="pool", folder=write_index(tmp_path / "i", POOL))
    with running(ServerSettings(indices=(index,), strict_safety=True)) as address:
        body = GOOD | {"indice_name": None}
        refused = httpx.post(f"{address}/knn-service", json=body | {"use_safety_model": True})
        assert (refused.status_code, refused.json()["code"]) == (400, "no_safety_model")
        assert httpx.post(f"{address}/knn-service", json=body).status_code == 200


def test_image_url_reaches_no_address_of_this_machine_when_switched_on(tmp_path: Path):
    index = IndexSettings(name="pool", folder=write_index(tmp_path / "i", POOL))
    with running(ServerSettings(indices=(index,), image_url=True)) as address:
        for url in (f"{address}/indices-list", "http://127.0.0.1:80/", "http://[::1]/", "file:///etc/passwd"):
            body = GOOD | {"indice_name": None, "image_url": url}
            answer = httpx.post(f"{address}/knn-service", json=body, timeout=60)
            assert (answer.status_code, answer.json()["code"]) == (400, "bad_image_url")


def test_the_safety_model_drops_what_it_calls_unsafe(tmp_path: Path):
    weight = np.random.default_rng(6).standard_normal(D).astype(np.float32)
    np.savez(tmp_path / "unsafe.npz", weight=weight, bias=np.zeros(1, np.float32))
    index = IndexSettings(
        name="pool", folder=write_index(tmp_path / "i", POOL), safety_head=str(tmp_path / "unsafe.npz")
    )
    rows, _ = exact(np.array(VECTOR, np.float32), 60)
    unsafe = POOL.vectors[rows] @ weight > 0.5
    assert 0 < unsafe.sum() < 60
    with running(ServerSettings(indices=(index,), strict_safety=True)) as address:
        body = {"embedding_input": VECTOR, "num_images": 60, "use_safety_model": True}
        answer = httpx.post(f"{address}/knn-service", json=body)
    assert "x-popfactory-warning" not in answer.headers
    kept = [row for row, hit in zip(rows, unsafe, strict=True) if not hit]
    assert [result["id"] for result in answer.json()] == kept
