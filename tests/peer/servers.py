"""clip-retrieval's back end and ours, each a process of its own over the same indices."""

import contextlib
import os
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Server:
    """A running server."""

    http: httpx.Client
    pid: int


@contextlib.contextmanager
def running_peer(peer: str, indices: Path, *, threads: int = 2) -> Iterator[Server]:
    """clip-retrieval's back end over these indices.

    Args:
        peer: Its interpreter.
        indices: indices_paths.json.
        threads: OMP_NUM_THREADS; 0 for its own choice.
    """
    port = free_port()
    command = [peer, str(ROOT / "tests/peer/peer_server.py"), str(indices), str(port)]
    environment = {
        name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "OMP_NUM_THREADS")
    }
    if threads:
        environment["OMP_NUM_THREADS"] = str(threads)
    log = indices.parent / "peer.log"
    with log.open("w") as file:
        process = subprocess.Popen(command, stdout=file, stderr=file, env=environment)
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=120, trust_env=False) as http:
            deadline = time.monotonic() + 180
            while True:
                try:
                    http.get("/indices-list")
                    break
                except httpx.ConnectError:
                    if process.poll() is not None or time.monotonic() > deadline:
                        raise SystemExit(
                            f"clip-retrieval did not start:\n{log.read_text()[-3000:]}"
                        ) from None
                    time.sleep(0.2)
            yield Server(http, process.pid)
    finally:
        process.kill()
        process.wait(30)


@contextlib.contextmanager
def running_ours(indices: Path, *options: str) -> Iterator[Server]:
    """Our server over these indices, by the command."""
    port = free_port()
    command = serve_command("--indices", indices, "--port", port, *options)
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, cwd=ROOT)
    assert process.stderr is not None
    try:
        for line in process.stderr:
            if found := re.search(r"serving on (http://\S+)", line):
                break
            print(line, end="", file=sys.stderr)
        else:
            raise SystemExit("our server did not start")
        threading.Thread(target=process.stderr.read, daemon=True).start()  # it would wait for a full pipe
        with httpx.Client(base_url=found[1], timeout=120, trust_env=False) as http:
            yield Server(http, process.pid)
    finally:
        process.terminate()
        process.wait(30)


def serve_command(*arguments: object) -> list[str]:
    """`popfactory serve ARGUMENTS`, by this interpreter."""
    return [sys.executable, "-m", "popfactory", "serve", *map(str, arguments)]


def free_port() -> int:
    """A port of the loopback that nobody listens on."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port
