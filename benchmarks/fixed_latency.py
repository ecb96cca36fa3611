"""An OpenAI-compatible server that says the same of every picture after a fixed time, and how busy it was kept."""

import asyncio
import contextlib
import json
import multiprocessing
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection

import numpy as np
import uvloop

Served = Sequence[tuple[float, float]]
"""When each request had come in whole, and when its answer was sent; seconds."""


class FixedLatencyServer:
    """The server, in a process of its own."""

    def __init__(self, pipe: Connection) -> None:
        self._pipe = pipe
        self.address = f"http://127.0.0.1:{pipe.recv()}/v1"

    def served(self) -> Served:
        """What it has answered so far."""
        self._pipe.send("served")
        found: Served = self._pipe.recv()
        return found


@contextlib.contextmanager
def fixed_latency_server(latency_s: float, spread: float = 0.0) -> Iterator[FixedLatencyServer]:
    """Run it; it has the model "fixed".

    Args:
        latency_s: Seconds from the last byte of a request to its answer.
        spread: So much shorter and longer, as a share, each answer may take, as if drawn at random.
    """
    spawn = multiprocessing.get_context("spawn")
    ours, theirs = spawn.Pipe()
    process = spawn.Process(target=_serve, args=(theirs, latency_s, spread), daemon=True)
    process.start()
    try:
        yield FixedLatencyServer(ours)
    finally:
        process.terminate()
        process.join(10)


@dataclass(frozen=True, slots=True)
class Kept:
    """How busy a server was kept, from half of the requests on until the last came in.

    In the first half a client finds out how much the server can do, and after the last there is nothing to send.
    """

    rate: float
    """Requests a second."""

    places_used: float
    """Share of its places that had a request in: what is missing to 1, it waited for its client."""


def kept_busy(served: Served, places: int) -> Kept:
    """How busy a server was kept.

    Args:
        served: As FixedLatencyServer tells it.
        places: Requests that may be there at the same time.
    """
    arrived, answered = np.array(sorted(served)).T
    half = len(arrived) // 2
    begin, end = arrived[half], arrived[-1]
    within = np.clip(answered, begin, end) - np.clip(arrived, begin, end)
    rate = (len(arrived) - half - 1) / (end - begin)
    return Kept(float(rate), float(within.sum() / (places * (end - begin))))


def _serve(pipe: Connection, latency_s: float, spread: float) -> None:
    choice = {"message": {"content": "a star"}, "finish_reason": "stop"}
    usage = {"prompt_tokens": 800, "completion_tokens": 2}
    completion = json.dumps({"choices": [choice], "usage": usage}).encode()
    listing = json.dumps({"data": [{"id": "fixed"}]}).encode()
    served: list[tuple[float, float]] = []
    draws = np.random.default_rng(20_231_117)

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).lower()
                content, arrived = listing, 0.0
                if head.startswith(b"post"):
                    await reader.readexactly(int(head.split(b"content-length:")[1].split(b"\r\n")[0]))
                    content, arrived = completion, time.perf_counter()
                    await asyncio.sleep(latency_s * (1 + spread * draws.uniform(-1, 1)))
                writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%s" % (len(content), content))
                await writer.drain()
                if arrived:
                    served.append((arrived, time.perf_counter()))
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    async def serve() -> None:
        server = await asyncio.start_server(answer, "127.0.0.1", 0, backlog=1024, limit=1 << 20)
        pipe.send(server.sockets[0].getsockname()[1])
        asyncio.get_running_loop().add_reader(pipe.fileno(), lambda: (pipe.recv(), pipe.send(served)))
        await server.serve_forever()

    uvloop.run(serve())
