"""The client against small real HTTP servers: one with clip-retrieval's routes alone, one that is busy at first."""

import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest

from spine.errors import ServiceError
from spine.protocol import KnnQuery, RetrievalClient

Answer = Callable[[str, str, bytes], tuple[int, bytes]]


@pytest.fixture
def serve() -> Iterator[Callable[[Answer], str]]:
    """Start a server that answers by a function of method, path and body; its address."""
    servers = []

    def start(answer: Answer) -> str:
        class Handler(BaseHTTPRequestHandler):
            def handle_any(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                status, content = answer(self.command, self.path, body)
                self.send_response(status)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            do_GET = do_POST = handle_any

            def log_message(self, *_: object) -> None:
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        servers.append(server)
        return f"http://127.0.0.1:{server.server_port}"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def clip_retrieval(pool: np.ndarray) -> Answer:
    """The kNN route of clip-retrieval, in NumPy: 405 for a POST it doesn't know, a bare NaN for a null."""

    def answer(method: str, path: str, body: bytes) -> tuple[int, bytes]:
        if path == "/indices-list":
            return 200, b'["a pool"]'
        if path != "/knn-service":
            return 405, b'{"message": "The method is not allowed for the requested URL."}'
        query = json.loads(body)
        similarities = pool @ np.array(query["embedding_input"], dtype=np.float32)
        order = np.argsort(-similarities)[: query["num_result_ids"]]
        rows = [
            {
                "url": f"http://h/{row}.jpg",
                "punsafe": float("nan") if row % 2 else 0.25,
                "id": int(row),
                "similarity": float(similarities[row]),
            }
            for row in order
        ]
        return 200, json.dumps(rows).encode()

    return answer


def test_knn_batch_asks_one_by_one_where_there_is_no_batch_route(serve):
    generator = np.random.default_rng(1)
    pool, queries = (generator.standard_normal((n, 8), dtype=np.float32) for n in (50, 7))
    expected = np.argsort(-(queries @ pool.T), axis=1)[:, :5]

    with RetrievalClient(serve(clip_retrieval(pool))) as client:
        table = client.knn_batch(queries, 5, columns=["url", "punsafe", "hash"])

    assert table.column_names == ["query", "rank", "row", "similarity", "url", "punsafe", "hash"]
    assert table["query"].to_pylist() == [query for query in range(7) for _ in range(5)]
    assert table["rank"].to_pylist() == list(range(5)) * 7
    assert (table["row"].to_numpy().reshape(7, 5) == expected).all()
    assert table["url"].to_pylist() == [f"http://h/{row}.jpg" for row in expected.ravel()]
    assert table["punsafe"].to_pylist() == [None if row % 2 else 0.25 for row in expected.ravel()]
    assert table["hash"].null_count == 35
    assert str(table.schema.field("hash").type) == "int64"


def test_knn_batch_refuses_nprobe_and_conditions_where_they_would_be_dropped(serve):
    pool = np.eye(4, dtype=np.float32)
    with RetrievalClient(serve(clip_retrieval(pool))) as client:
        with pytest.raises(ServiceError, match="can't carry nprobe = 3"):
            client.knn_batch(pool, 1, nprobe=3)
        with pytest.raises(ServiceError, match="can't carry min_side_px = 768; leave it out"):
            client.knn_batch(pool, 1, conditions={"min_side_px": 768})


def test_knn_batch_of_no_queries_is_an_empty_table(serve):
    with RetrievalClient(serve(clip_retrieval(np.eye(4, dtype=np.float32)))) as client:
        table = client.knn_batch(np.empty((0, 4), np.float32), 5, columns=["url"])
    assert table.num_rows == 0
    assert table.column_names == ["query", "rank", "row", "similarity", "url"]


def test_the_client_tries_a_busy_server_again(serve):
    busy = iter([503, 429])

    def answer(method: str, path: str, body: bytes) -> tuple[int, bytes]:
        return next(busy, 200), b'["pool"]'

    with RetrievalClient(serve(answer), retries=2) as client:
        assert client.indices() == ["pool"]
    assert next(busy, None) is None


def test_the_client_gives_up_after_its_retries_and_says_what_the_server_said(serve):
    asked = []

    def answer(method: str, path: str, body: bytes) -> tuple[int, bytes]:
        asked.append(path)
        return 503, b'{"message": "the index is loading"}'

    with (
        RetrievalClient(serve(answer), retries=1) as client,
        pytest.raises(ServiceError, match="503: the index is loading") as caught,
    ):
        client.indices()
    assert caught.value.status == 503
    assert len(asked) == 2


def test_the_client_does_not_ask_again_what_was_refused(serve):
    asked = []

    def answer(method: str, path: str, body: bytes) -> tuple[int, bytes]:
        asked.append(path)
        return 400, b'{"message": "num_images is 0"}'

    with RetrievalClient(serve(answer)) as client, pytest.raises(ServiceError, match="400: num_images is 0"):
        client.knn(KnnQuery(text="a fox", num_images=0))
    assert asked == ["/knn-service"]


def test_a_server_that_is_not_there_is_one_line():
    with (
        RetrievalClient("http://127.0.0.1:9", retries=0) as client,
        pytest.raises(ServiceError, match=r"http://127\.0\.0\.1:9: can't be reached"),
    ):
        client.indices()


@pytest.mark.parametrize("ending", ["", "/", "/knn-service", "/knn-service/"])
def test_the_client_takes_the_address_as_clip_retrieval_users_write_it(serve, ending):
    with RetrievalClient(serve(clip_retrieval(np.eye(2, dtype=np.float32))) + ending) as client:
        assert client.indices() == ["a pool"]


@pytest.mark.parametrize("url", ["", "localhost:1234", "ftp://h", "file:///etc/passwd"])
def test_the_client_refuses_what_is_no_address(url):
    with pytest.raises(ServiceError, match="no address of a server"):
        RetrievalClient(url)


def test_a_page_of_html_is_no_answer(serve):
    with (
        RetrievalClient(serve(lambda *_: (200, b"<html>"))) as client,
        pytest.raises(ServiceError, match="is it a clip-retrieval server"),
    ):
        client.indices()


def test_embed_texts_says_when_the_server_has_no_such_route(serve):
    with (
        RetrievalClient(serve(clip_retrieval(np.eye(2, dtype=np.float32)))) as client,
        pytest.raises(ServiceError, match="can't embed texts"),
    ):
        client.embed_texts(["a fox"])
