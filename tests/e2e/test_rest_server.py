"""`popfactory serve` as a process of its own, with the demo model, asked by HTTP."""

import base64
import contextlib
import html
import io
import json
import re
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import faiss
import httpx
import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from index_builder.encoding.clip import DEMO_CLIP, ClipEncoder
from index_builder.metadata.metadata_rows import write_metadata
from popfactory.demo_drawing import draw
from popfactory.demo_world import caption, random_scene
from spine.protocol import KnnQuery, RetrievalClient
from spine.settings import ClipConfig
from tests.peer.servers import free_port, serve_command

N = 60


@pytest.fixture(scope="module")
def encoder() -> ClipEncoder:
    if not DEMO_CLIP.is_dir():
        pytest.skip("the demo model is not there")
    return ClipEncoder.load(ClipConfig(model="demo", pretrained="", device="cpu"))


@pytest.fixture(scope="module")
def pictures() -> list[Image.Image]:
    generator = np.random.default_rng(11)
    return [draw(random_scene(generator), 96, 96) for _ in range(N)]


@pytest.fixture(scope="module")
def vectors(encoder: ClipEncoder, pictures: list[Image.Image]) -> np.ndarray:
    return encoder.encode_images(np.stack([encoder.preprocess(picture) for picture in pictures]))


@contextlib.contextmanager
def serving(*arguments: str) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """Start the command; its address and process."""
    command = serve_command(*arguments)
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stderr is not None
            lines = []
            for line in process.stderr:
                lines.append(line)
                if found := re.search(r"serving on (http://\S+)", line):
                    break
            else:
                pytest.fail(f"the server did not start: {''.join(lines)}")
            drain = threading.Thread(target=process.stderr.read, daemon=True)
            drain.start()
            yield found[1], process
        finally:
            if process.poll() is None:
                process.kill()


@pytest.fixture(scope="module")
def indices(vectors: np.ndarray, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("served")
    index = faiss.IndexFlatIP(vectors.shape[1])
    index.add(vectors)
    (folder / "drawn").mkdir()
    faiss.write_index(index, str(folder / "drawn" / "image.index"))
    generator = np.random.default_rng(11)
    captions = [caption(random_scene(generator)) for _ in range(N)]
    table = pa.table({"url": [f"https://h.example/{row}.png" for row in range(N)], "caption": captions})
    write_metadata(folder / "drawn" / "metadata" / "0.arrow", table)
    path = folder / "indices_paths.json"
    entry = {"indice_folder": "drawn", "clip_model": "demo", "columns_to_return": ["url", "caption"]}
    path.write_text(json.dumps({"demo-run": entry}))
    return path


@pytest.fixture(scope="module")
def address(indices: Path) -> Iterator[str]:
    with serving("--indices", str(indices), "--port", str(free_port())) as (address, _):
        yield address


def test_a_text_finds_what_the_model_says_is_near(address, encoder, vectors):
    text = "three small red stars on a navy background"
    expected = np.argsort(-(vectors @ encoder.encode_texts([text])[0]), kind="stable")[:10]
    with RetrievalClient(address) as client:
        results = client.knn(KnnQuery(text=text, num_images=10))
    assert [result["id"] for result in results] == expected.tolist()
    assert [result["url"] for result in results] == [f"https://h.example/{row}.png" for row in expected]


def test_a_picture_finds_itself(address, pictures):
    with RetrievalClient(address) as client:
        for row in (0, 17, 59):
            file = io.BytesIO()
            pictures[row].save(file, "PNG")
            query = KnnQuery(image=base64.b64encode(file.getvalue()).decode(), num_images=1)
            [result] = client.knn(query)
            assert result["id"] == row
            assert result["similarity"] == pytest.approx(1, abs=1e-4)


def test_embedded_texts_are_the_models_own(address, encoder):
    texts = ["a red star", "two blue rings", "ünï"]
    with RetrievalClient(address) as client:
        embedded = client.embed_texts(texts)
    assert embedded == pytest.approx(encoder.encode_texts(texts), abs=1e-5)
    content = httpx.post(f"{address}/embed", json={"texts": texts}, timeout=60).json()
    assert content["model"] == "demo-clip"
    assert np.array(content["embeddings"]) == pytest.approx(embedded, abs=1e-6)


def test_the_curl_of_the_front_page_works(address):
    page = httpx.get(address).text
    command = re.search(r"<pre>(.*?)</pre>", page, re.DOTALL)
    assert command is not None
    answer = subprocess.run(["bash", "-c", html.unescape(command[1])], capture_output=True, check=True)
    assert len(json.loads(answer.stdout)) == 10


def documented_curls(root: Path) -> list[str]:
    text = (root / "docs" / "rest.md").read_text(encoding="utf-8")
    blocks = re.findall(r"(?m)^    curl .*\n(?:    (?!curl).*\n)*", text)
    return [re.sub(r"(?m)^    ", "", block).strip() for block in blocks]


def test_every_curl_of_the_documentation_works(root, address, pictures, vectors, tmp_path):
    curls = documented_curls(root)
    asked = {route for curl in curls for route in re.findall(r"1234(/[a-z.-]*)", curl)}
    paths = set(httpx.get(f"{address}/openapi.json").json()["paths"])
    assert asked == paths | {"/", "/docs", "/openapi.json"}
    pictures[3].save(tmp_path / "picture.jpg")
    np.save(tmp_path / "centroids.npy", vectors[:4])
    for curl in curls:
        command = curl.replace("http://127.0.0.1:1234", address).replace(
            "curl -s", "curl -sS --fail-with-body"
        )
        done = subprocess.run(["bash", "-c", command], cwd=tmp_path, capture_output=True, check=False)
        assert done.returncode == 0, f"{curl}: {done.stdout.decode()} {done.stderr.decode()}"
        if "-o " not in curl:
            assert json.loads(done.stdout), curl
    with pa.ipc.open_stream((tmp_path / "found.arrows").read_bytes()) as reader:
        found = reader.read_all()
    assert found.column_names == ["query", "rank", "id", "similarity", "url"]
    assert [row["id"] for row in found.to_pylist() if row["rank"] == 0] == [0, 1, 2, 3]


@pytest.mark.parametrize("sign", [signal.SIGTERM, signal.SIGINT])
def test_sigterm_and_ctrl_c_end_the_server_well(indices, sign):
    with serving("--indices", str(indices), "--port", str(free_port())) as (address, process):
        assert httpx.get(f"{address}/ready").status_code == 200
        process.send_signal(sign)
        assert process.wait(30) == 0


def test_sigterm_lets_what_is_under_way_end_and_says_so_first(indices):
    body = json.dumps({"ids": [7], "indice_name": "demo-run"}).encode()
    head = b"POST /metadata HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n" % len(body)
    with serving("--indices", str(indices), "--port", str(free_port())) as (address, process):
        port = int(address.rpartition(":")[2])
        with socket.create_connection(("127.0.0.1", port), timeout=30) as under_way:
            under_way.sendall(head + body[:5])
            assert httpx.get(f"{address}/ready").status_code == 200
            process.send_signal(signal.SIGTERM)
            while (status := httpx.get(f"{address}/ready").status_code) == 200:
                pass
            assert status == 503
            assert httpx.get(f"{address}/live").status_code == 200
            with contextlib.suppress(httpx.TransportError):
                while True:  # until it listens no more
                    httpx.get(f"{address}/live")
            under_way.sendall(body[5:])
            assert under_way.recv(10_000).startswith(b"HTTP/1.1 200 ")
        assert process.wait(30) == 0


def refused(*arguments: str) -> str:
    command = serve_command(*arguments)
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1, done.stderr
    assert "Traceback" not in done.stderr
    return done.stderr


@pytest.mark.parametrize(
    ("options", "client"), [((), "127.0.0.1"), (("--trust-proxy", "127.0.0.1"), "192.0.2.7")]
)
def test_who_asks_is_taken_from_a_proxy_only_if_it_is_named(indices, tmp_path, options, client):
    port = free_port()
    command = serve_command("--indices", indices, "--port", port, *options)
    log = tmp_path / "log"
    with log.open("w") as file, subprocess.Popen(command, stderr=file) as process:
        try:
            while f"serving on http://127.0.0.1:{port}" not in log.read_text():
                assert process.poll() is None, log.read_text()
                time.sleep(0.05)
            headers = {"X-Forwarded-For": "192.0.2.7", "X-Forwarded-Proto": "https"}
            page = httpx.get(f"http://127.0.0.1:{port}/", headers=headers).text
        finally:
            process.terminate()
            process.wait(30)
    assert json.loads(log.read_text().splitlines()[-1])["client"] == client
    assert ("https://127.0.0.1" in page) == bool(options)


def test_a_proxy_that_is_no_address_is_refused(indices):
    assert "an IP address or network was needed" in refused("--indices", str(indices), "--trust-proxy", "*")


def test_an_open_address_without_a_token_is_refused(indices):
    assert "set a token" in refused("--indices", str(indices), "--host", "0.0.0.0")


def test_an_index_that_does_not_fit_its_metadata_is_refused(indices, tmp_path):
    (tmp_path / "wrong").mkdir()
    (tmp_path / "wrong" / "image.index").write_bytes((indices.parent / "drawn" / "image.index").read_bytes())
    write_metadata(tmp_path / "wrong" / "metadata" / "0.arrow", pa.table({"url": ["one"]}))
    path = tmp_path / "indices_paths.json"
    path.write_text(json.dumps({"wrong": "wrong"}))
    assert "60 vectors in image.index, 1 rows of metadata" in refused("--indices", str(path))
