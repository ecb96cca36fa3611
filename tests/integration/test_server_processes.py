"""A server of several processes: one port, one count of requests, and no process left behind."""

import json
import os
import re
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from fastapi import FastAPI

from retrieval_server.serving import serve
from retrieval_server.settings import ServerSettings
from spine.errors import ConfigError
from tests.integration.server_index import draw_pool, write_index
from tests.peer.servers import ROOT, free_port, serve_command

POOL = draw_pool(300)


@pytest.fixture(scope="module")
def indices(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = write_index(tmp_path_factory.mktemp("processes") / "i", POOL, "IVF4,Flat")
    path = folder.parent / "indices_paths.json"
    path.write_text(json.dumps({"pool": {"indice_folder": str(folder), "clip_model": ""}}))
    return path


@contextmanager
def serving(indices: Path, log: Path) -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    """Two processes, and their address."""
    command = serve_command("--indices", indices, "--port", free_port(), "--processes", 2)
    with log.open("wb") as file:
        server = subprocess.Popen(command, stderr=file, cwd=ROOT)
    try:
        until(lambda: "serving on" in log.read_text() or server.poll() is not None)
        address = re.search(r"serving on (http://\S+) in 2 processes", log.read_text())
        assert address, log.read_text()
        yield server, address[1]
    finally:
        server.terminate()
        server.wait(30)


def until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def answering(server: subprocess.Popen[bytes]) -> set[int]:
    """Its processes that serve; multiprocessing has one of its own besides."""
    children = Path(f"/proc/{server.pid}/task/{server.pid}/children").read_text().split()
    return {int(pid) for pid in children if b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes()}


def listening(address: str) -> int:
    """How many sockets listen on its port."""
    lines = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    port = f"{int(address.rpartition(':')[2]):04X}"
    return sum(line[1].endswith(f":{port}") and line[3] == "0A" for line in lines)


def counted(address: str) -> set[float]:
    """What the processes say they have counted; each question on a connection of its own."""
    texts = [httpx.get(f"{address}/metrics").text for _ in range(12)]
    return {float(re.findall(r"^full_knn_request_time_count (\S+)", text, re.M)[0]) for text in texts}


def ask(address: str, number: int) -> list[int]:
    body = {"embedding_input": POOL.vectors[number].tolist(), "num_images": 5}
    answer = httpx.post(f"{address}/knn-service", json=body)
    assert answer.status_code == 200, answer.text
    return [result["id"] for result in answer.json()]


def test_processes_share_port_and_metrics_and_one_that_dies_is_replaced(indices, tmp_path):
    with serving(indices, tmp_path / "log") as (server, address):
        assert [ask(address, number)[0] for number in range(30)] == list(range(30))
        assert counted(address) == {30}
        assert "total of 30 calls" in httpx.get(f"{address}/metrics-summary").text

        again = subprocess.run(
            serve_command("--indices", indices, "--port", address.rpartition(":")[2], "--processes", 2),
            check=False,
            capture_output=True,
            text=True,
            cwd=ROOT,
        )
        assert again.returncode == 1 and "can't listen there" in again.stderr

        before = answering(server)
        assert len(before) == 2
        os.kill(min(before), signal.SIGKILL)
        until(lambda: len(answering(server) - before) == 1)
        log = tmp_path / "log"
        until(lambda: "another takes its place" in log.read_text() and listening(address) == 2)
        assert [ask(address, number)[0] for number in range(5)] == list(range(5))
        assert counted(address) == {35}

        # What can't be served any more keeps a new process from it, and the other one answers.
        before = answering(server)
        folder = Path(json.loads(indices.read_text())["pool"]["indice_folder"])
        hidden = (folder / "image.index").rename(folder / "image.index.hidden")
        os.kill(min(before), signal.SIGKILL)
        until(lambda: "image.index: missing" in log.read_text())
        assert ask(address, 7)[0] == 7
        hidden.rename(folder / "image.index")
        until(lambda: listening(address) == 2)
        assert log.read_text().count("another takes its place") == 3

        server.send_signal(signal.SIGTERM)
        assert server.wait(30) == 0
        with pytest.raises(httpx.ConnectError):
            httpx.get(f"{address}/ready")


def test_processes_end_when_the_one_that_began_them_is_killed(indices, tmp_path):
    with serving(indices, tmp_path / "log") as (server, address):
        processes = answering(server)
        assert len(processes) == 2
        server.kill()
        server.wait(30)
        until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in processes))
        with pytest.raises(httpx.ConnectError):
            httpx.get(f"{address}/ready")


def test_an_index_that_cannot_be_served_ends_all_of_them_with_one_line(tmp_path):
    paths = tmp_path / "indices_paths.json"
    paths.write_text(json.dumps({"pool": str(tmp_path / "nowhere")}))
    command = serve_command("--indices", paths, "--port", free_port(), "--processes", 2)
    ended = subprocess.run(command, check=False, capture_output=True, text=True, cwd=ROOT, timeout=60)
    assert ended.returncode == 1
    assert "nowhere" in ended.stderr and "Traceback" not in ended.stderr
    assert len(ended.stderr.strip().splitlines()) == 1


def test_the_board_is_not_served_by_several_processes():
    with pytest.raises(ConfigError, match="start the board by itself"):
        serve(ServerSettings(indices=()), mounted={"/ui": FastAPI()}, processes=2)
