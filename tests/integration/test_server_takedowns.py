"""Takedown and hash lists over real HTTP: what they name is in no answer, from the moment they name it."""

import base64
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import httpx
import numpy as np
import pyarrow as pa
import pytest

from index_builder.metadata.metadata_rows import write_metadata
from retrieval_server import takedowns
from retrieval_server.settings import IndexSettings, ServerSettings
from spine.config import preset, write_config
from spine.errors import ConfigError
from spine.protocol import RetrievalClient
from spine.run import Run
from spine.settings import ListsConfig
from tests.integration.server_index import draw_pool, running, write_index

POOL = draw_pool(200)
K = 60


def digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


ROWS = [
    {
        "hash": 10_000 + row,
        "url": f"https://{'bad.example' if row % 10 == 3 else 'h.example'}/{row}.jpg" if row % 7 else None,
        "caption": f"picture {row}",
        "sha256": digest(f"bytes of {row}").upper() if row % 2 else None,
    }
    for row in range(200)
]


@dataclass(frozen=True)
class Server:
    """A server with two lists, empty at first, that a test fills."""

    address: str
    takedown: Path
    hashes: Path


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setattr(takedowns, "LOOK_S", 0)
    folder = write_index(tmp_path / "i", POOL)
    write_metadata(folder / "metadata" / "0.arrow", pa.Table.from_pylist(ROWS))
    takedown, hashes = tmp_path / "takedown.txt", tmp_path / "hashes.txt"
    takedown.write_text("")
    hashes.write_text("")
    settings = ServerSettings(
        # Lists count for columns too that are not served.
        indices=(IndexSettings(name="pool", folder=folder, columns=("caption",)),),
        lists=ListsConfig(takedown=("takedown.txt",), hash_block=(str(hashes),)),
        lists_folder=tmp_path,
    )
    with running(settings) as address:
        yield Server(address, takedown, hashes)


def found(server: Server, k: int = K) -> list[int]:
    body = {"embedding_input": POOL.vectors[50].tolist(), "num_images": 5, "num_result_ids": k}
    return [result["id"] for result in httpx.post(f"{server.address}/knn-service", json=body).json()]


def nearest(blocked: set[int]) -> list[int]:
    rows = np.argsort(-(POOL.vectors @ POOL.vectors[50]), kind="stable")[:K].tolist()
    return [row for row in rows if row not in blocked]


def test_what_a_list_names_is_gone_with_the_next_answer_and_back_when_it_is_taken_off(server):
    assert found(server) == nearest(set())
    of_domain = {row for row in range(200) if row % 10 == 3 and row % 7}
    url_of_52 = hashlib.md5(ROWS[52]["url"].encode()).hexdigest()
    for entries, hashes, blocked in (
        ("10050\n", "", {50}),
        ("https://h.example/51.jpg\n", "", {51}),
        ("bad.example\n", "", of_domain),
        ("", digest("bytes of 55"), {55}),
        ("", f"url:{url_of_52}", {52}),
        ("10050\n10050\nbad.example\n", digest("bytes of 55"), {50, 55} | of_domain),
        ("", "", set()),
    ):
        server.takedown.write_text(entries)
        server.hashes.write_text(hashes)
        assert found(server) == nearest(blocked), (entries, hashes)
    assert len(nearest(of_domain)) < K


def test_batches_and_metadata_leave_out_what_is_listed(server):
    server.takedown.write_text("10050\n10007\n")
    body = {"ids": [7, 50, 8], "indice_name": "pool"}
    rows = httpx.post(f"{server.address}/metadata", json=body).json()
    assert rows == [
        {"id": 7, "metadata": {}},
        {"id": 50, "metadata": {}},
        {"id": 8, "metadata": {"caption": "picture 8"}},
    ]
    with RetrievalClient(server.address) as client:
        batch = client.knn_batch(POOL.vectors[48:52], K)
        client._has_batch = False
        single = client.knn_batch(POOL.vectors[48:52], K)
    assert 50 not in batch["row"].to_pylist()
    assert batch["rank"].to_pylist() == single["rank"].to_pylist()
    assert batch["row"].to_pylist() == single["row"].to_pylist()


@pytest.mark.parametrize("damage", ["missing", "no entry", "no text"])
def test_an_unreadable_list_stops_the_answers_until_it_is_put_right(server, damage):
    if damage == "missing":
        server.takedown.unlink()
    else:
        server.takedown.write_bytes(b"what is this?\n" if damage == "no entry" else b"\xff\xfe")
    body = {"embedding_input": POOL.vectors[0].tolist(), "num_images": 5}
    for route, content in (("/knn-service", body), ("/metadata", {"ids": [1], "indice_name": "pool"})):
        answer = httpx.post(f"{server.address}{route}", json=content)
        assert (answer.status_code, answer.json()["code"]) == (503, "lists_unreadable")
        assert str(server.takedown) not in answer.text
    assert httpx.get(f"{server.address}/ready").status_code == 503
    assert httpx.get(f"{server.address}/live").status_code == 200
    server.takedown.write_text("10050\n")
    assert found(server) == nearest({50})
    assert httpx.get(f"{server.address}/ready").status_code == 200


def test_a_picture_on_a_hash_list_is_not_searched_with(server):
    content = b"not even a picture"
    server.hashes.write_text(hashlib.sha256(content).hexdigest())
    encoded = base64.b64encode(content).decode()
    for route, body in (
        ("/knn-service", {"image": encoded, "num_images": 5}),
        ("/embed", {"images": [encoded]}),
    ):
        answer = httpx.post(f"{server.address}{route}", json=body)
        assert (answer.status_code, answer.json()["code"]) == (403, "blocked_picture")


def test_a_server_does_not_start_with_an_unreadable_list(tmp_path: Path):
    index = IndexSettings(name="pool", folder=write_index(tmp_path / "i", POOL))
    lists = ListsConfig(takedown=("missing.txt",))
    with pytest.raises(ConfigError, match=r"missing\.txt: can't be read"):
        with running(ServerSettings(indices=(index,), lists=lists, lists_folder=tmp_path)):
            pass


def test_a_list_that_a_runs_settings_come_to_name_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(takedowns, "LOOK_S", 0)
    run = Run(tmp_path / "run")
    run.folder.mkdir()
    write_config(run.config, preset("standard"))
    lists = takedowns.Takedowns(ListsConfig(), run.folder, run.config)
    assert lists.current().empty
    (run.folder / "gone.txt").write_text("-5\n")
    write_config(run.config, replace(preset("standard"), lists=ListsConfig(takedown=("gone.txt",))))
    assert lists.current().ids == {-5}
