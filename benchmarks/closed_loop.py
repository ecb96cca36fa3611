"""Clients that ask a server one question after another, and what that costs the server."""

import os
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np


@dataclass(frozen=True)
class Load:
    """What a closed loop of clients measured."""

    requests: int
    seconds: float
    cpu_s: float
    """Of the server's process, user and system."""
    times_s: list[float]

    @property
    def cpu_ms(self) -> float:
        """A request."""
        return 1000 * self.cpu_s / self.requests

    @property
    def per_second(self) -> float:
        """Requests."""
        return self.requests / self.seconds

    def percentile_ms(self, percent: float) -> float:
        """Of the time to an answer."""
        return float(np.percentile(self.times_s, percent)) * 1000


def load(port: int, pid: int, requests: list[bytes], clients: int, seconds: float) -> Load:
    """Ask in a closed loop, after a short one that warms up.

    Args:
        port: Of the loopback.
        pid: The server's process, or the one that began its processes.
        requests: Whole HTTP requests, asked in turn.
        clients: At the same time, a connection each as long as the server keeps it.
        seconds: How long; each client ends what it has begun.
    """
    _ask(port, requests, clients, min(1.0, seconds / 4))
    before, start = cpu_s(pid), time.perf_counter()
    times = _ask(port, requests, clients, seconds)
    return Load(len(times), time.perf_counter() - start, cpu_s(pid) - before, times)


def cpu_s(pid: int) -> float:
    """User and system seconds that a process and those it began have used."""
    used = 0
    for each in _with_children(pid):
        fields = Path(f"/proc/{each}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
        used += int(fields[11]) + int(fields[12])
    return used / os.sysconf("SC_CLK_TCK")


def resident_bytes(pid: int, *, besides: Path) -> int:
    """Memory of a process and those it began, but for the files below a folder; what they share counts once."""
    size, counts = 0, True
    for each in _with_children(pid):
        for line in Path(f"/proc/{each}/smaps").read_text(encoding="utf-8").splitlines():
            if line.startswith("Pss:"):
                size += counts * int(line.split()[1])
            elif (
                "-" in line.split(maxsplit=1)[0]
            ):  # a mapping begins: from-to, what it allows, where in which file
                counts = f" {besides}/" not in line
    return size * 1024


def _with_children(pid: int) -> list[int]:
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="utf-8")
    return [pid, *map(int, children.split())]


def post(route: str, body: bytes) -> bytes:
    """A whole request."""
    head = f"POST {route} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


def _ask(port: int, requests: list[bytes], clients: int, seconds: float) -> list[float]:
    end = time.perf_counter() + seconds

    def loop(number: int) -> list[float]:
        times: list[float] = []
        at, connection = number * 37, None
        while (begin := time.perf_counter()) < end:
            if connection is None:
                connection = socket.create_connection(("127.0.0.1", port), timeout=120)
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connection.sendall(requests[at % len(requests)])
            if not _answer(connection):
                connection.close()
                connection = None
            times.append(time.perf_counter() - begin)
            at += 1
        if connection is not None:
            connection.close()
        return times

    with ThreadPoolExecutor(clients) as threads:
        return [each for times in threads.map(loop, range(clients)) for each in times]


def _answer(connection: socket.socket) -> bool:
    """Read an answer; whether the connection stays."""
    received = b""
    while b"\r\n\r\n" not in received:
        part = connection.recv(1 << 18)
        if not part:
            raise RuntimeError("no answer")
        received += part
    head, _, body = received.partition(b"\r\n\r\n")
    head = head.lower()
    if not head.startswith(b"http/1.1 200"):
        raise RuntimeError(received[:300].decode("latin-1"))
    missing = int(head.partition(b"content-length: ")[2].partition(b"\r\n")[0]) - len(body)
    while missing > 0:
        missing -= len(connection.recv(1 << 18))
    return b"connection: close" not in head
