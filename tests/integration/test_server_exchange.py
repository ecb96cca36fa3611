"""An index exchanged under a running server: no error, no answer of two indices, and no bad index served."""

import logging
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import pyarrow as pa
import pytest

from index_builder.metadata.metadata_rows import write_metadata
from retrieval_server import served_indices
from retrieval_server.settings import IndexSettings, ServerSettings
from tests.integration.server_index import Pool, draw_pool, running, write_index

POOLS = {"old": draw_pool(200, seed=1), "new": draw_pool(300, seed=2)}
QUERY = draw_pool(1, seed=3).vectors[0]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A link to the old index; the new one lies beside it."""
    for name, pool in POOLS.items():
        write_marked(tmp_path / name, name, pool)
    (tmp_path / "served").symlink_to("old")
    return tmp_path / "served"


@pytest.fixture
def address(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setattr(served_indices, "LOOK_S", 0.05)
    with running(ServerSettings(indices=(IndexSettings(name="pool", folder=folder),))) as address:
        yield address


def write_marked(folder: Path, name: str, pool: Pool) -> None:
    write_index(folder, pool)
    captions = [f"{name} {row}" for row in range(len(pool.vectors))]
    write_metadata(folder / "metadata" / "0.arrow", pa.table({"caption": captions}))


def switch(link: Path, target: str) -> None:
    """As `ln -sfn` does, at once."""
    (link.parent / "next").symlink_to(target)
    (link.parent / "next").rename(link)


def captions(client: httpx.Client) -> list[str]:
    body = {"embedding_input": QUERY.tolist(), "num_images": 40, "deduplicate": True}
    answer = client.post("/knn-service", json=body)
    assert answer.status_code == 200, answer.text
    return [result["caption"] for result in answer.json()]


def wait_for(name: str, client: httpx.Client) -> None:
    deadline = time.monotonic() + 60
    while not captions(client)[0].startswith(f"{name} "):
        assert time.monotonic() < deadline, f"{name} is never served"


def test_each_answer_is_of_one_index_while_it_is_exchanged(folder, address):
    nearest = {name: f"{name} {int(np.argmax(pool.vectors @ QUERY))}" for name, pool in POOLS.items()}
    answers: list[list[str]] = []
    end = threading.Event()

    def ask() -> None:
        with httpx.Client(base_url=address, timeout=60) as client:
            while not end.is_set():
                answers.append(captions(client))

    askers = [threading.Thread(target=ask) for _ in range(4)]
    for asker in askers:
        asker.start()
    with httpx.Client(base_url=address, timeout=60) as client:
        for target in ("new", "old", "new"):
            switch(folder, target)
            wait_for(target, client)
        assert client.get("/ready").json()["indices"] == {"pool": 300}
    end.set()
    for asker in askers:
        asker.join()
    for answer in answers:
        name = answer[0].split()[0]
        assert answer[0] == nearest[name]
        assert {caption.split()[0] for caption in answer} == {name}
    assert {answer[0].split()[0] for answer in answers} == {"old", "new"}


@pytest.mark.parametrize("damage", ["rows", "dimension", "no index"])
def test_an_index_that_does_not_fit_is_told_of_once_and_the_old_one_stays(folder, address, caplog, damage):
    bad = folder.parent / "bad"
    write_marked(bad, "bad", POOLS["new"])
    if damage == "rows":
        write_metadata(bad / "metadata" / "0.arrow", pa.table({"caption": ["one"]}))
    elif damage == "dimension":
        import faiss

        index = faiss.IndexFlatIP(8)
        index.add(np.eye(8, dtype=np.float32))
        faiss.write_index(index, str(bad / "image.index"))
        write_metadata(bad / "metadata" / "0.arrow", pa.table({"caption": ["eight"] * 8}))
    else:
        (bad / "image.index").write_bytes(b"no index")
    with caplog.at_level(logging.INFO, "popfactory.server"), httpx.Client(base_url=address) as client:
        switch(folder, "bad")
        deadline = time.monotonic() + 60
        while not (told := [r.message for r in caplog.records if "the old one stays" in r.message]):
            assert time.monotonic() < deadline, "nobody is told"
            time.sleep(0.02)
        time.sleep(0.3)
        assert captions(client)[0].startswith("old ")
        assert len([r for r in caplog.records if "the old one stays" in r.message]) == len(told) == 1
        assert "\n" not in told[0]
        switch(folder, "new")
        wait_for("new", client)


def test_the_start_says_what_each_index_is(folder, caplog):
    with caplog.at_level(logging.INFO, "popfactory.server"):
        with running(ServerSettings(indices=(IndexSettings(name="pool", folder=folder),))):
            pass
    [line] = [record.message for record in caplog.records if record.message.startswith("pool: ")]
    for words in ("200 vectors of d = 32", "IndexFlatIP", "200 rows of metadata", "model none", "caption"):
        assert words in line
