"""Pictures fetched a second from a drawn web on loopback, half of whose links are dead: python -m benchmarks fetch.

Every picture is fetched by its address, hashed (SHA-256, MD5, PDQ), decoded and measured in worker processes,
stored and written down; robots.txt is asked for and the hosts reserve a few. The server is a process of its own
on the same cores.
"""

import argparse
import asyncio
import io
import multiprocessing
import resource
import sys
import tempfile
import time
from dataclasses import replace
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
import pyarrow as pa
from PIL import Image

from benchmarks.report import report
from curation.fetched_images import fetch
from spine.config import write_config
from spine.ids import laion_id
from spine.publish import publish_table
from spine.run import Run, part_path
from spine.settings import Config
from spine.stage import Stage
from spine.tables import IMAGES, NEIGHBOURS, read_parts
from spine.web import Web

HOSTS = 64
SIDE_PX = 512
DRAWN = 32
"""Pictures that are drawn; each address gives one of them with a number of its own behind it."""


def main() -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--quick", action="store_true")
    pictures = 2_000 if parser.parse_args().quick else 20_000
    context = multiprocessing.get_context("spawn")
    near, far = context.Pipe()
    server = context.Process(target=serve, args=(far,), daemon=True)
    server.start()
    port = near.recv()
    try:
        with tempfile.TemporaryDirectory() as folder:
            run = planted(Path(folder) / "run", port, pictures)
            web = Web(ports={port}, allow=("127.0.0.0/8",), timeout_s=10, connections=64, per_host=4)
            started = time.perf_counter()
            with web:
                manifest = fetch(run, depths=[pictures], web=web)
            taken_s = time.perf_counter() - started
            check(run, pictures)
    finally:
        server.terminate()
        server.join()
    own_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
    worker_mb = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1e3
    conditions = {
        "addresses": pictures,
        "fetched": manifest.counts["fetched"],
        "hosts": HOSTS,
        "side_px": SIDE_PX,
        "concurrency": 64,
        "peak_mb": round(own_mb),
        "peak_mb_of_the_largest_child": round(worker_mb),
    }
    report("fetch_pictures", manifest.counts["fetched"] / taken_s, "pictures/s", at_least=300, **conditions)
    report("fetch_addresses", pictures / taken_s, "addresses/s", **conditions)


def planted(folder: Path, port: int, pictures: int) -> Run:
    """A run whose neighbours are addresses of the drawn web: the even ones alive, the odd ones dead."""
    run = Run(folder)
    folder.mkdir(parents=True)
    config = Config()
    write_config(run.config, replace(config, fetch=replace(config.fetch, timeout_s=10.0)))
    rows = []
    for number in range(pictures):
        kind = "p" if number % 2 == 0 else "gone"
        url = f"http://{_host(number // 2 % HOSTS)}:{port}/{kind}/{number}"
        rows.append(
            dict.fromkeys(NEIGHBOURS.names)
            | {"centroid_id": 0, "rank": number, "id": laion_id(url, ""), "similarity": 0.5, "url": url}
        )
    stage = Stage.open("neighbours", run.neighbours, {"rows": pictures}, {})
    publish_table(part_path(run.neighbours, 0), pa.Table.from_pylist(rows, NEIGHBOURS))
    stage.finish({"neighbours": pictures})
    return run


def check(run: Run, pictures: int) -> None:
    """See that every address has the status it must have: a fast wrong answer is no figure."""
    rows = read_parts(run.images, IMAGES, ["url", "reason"]).to_pylist()
    wrong = [row for row in rows if (row["reason"] is None) != ("/p/" in row["url"])]
    if len(rows) != pictures or wrong:
        sys.exit(f"{len(rows)} of {pictures} rows, {len(wrong)} with a wrong status: {wrong[:3]}")


def serve(pipe: Connection) -> None:
    """The drawn web: a listener for each host, in a process of its own."""
    asyncio.run(_serve(pipe))


async def _serve(pipe: Connection) -> None:
    drawn = [_drawn(number) for number in range(DRAWN)]

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                request = await reader.readuntil(b"\r\n\r\n")
                kind, _, number = request.split(b" ", 2)[1].strip(b"/").partition(b"/")
                status, body = b"404 Not Found", b""
                if kind == b"p":
                    # Bytes behind the end of a JPEG are no part of it: so each address has its own hash.
                    status, body = b"200 OK", drawn[int(number) % DRAWN] + number
                elif kind == b"robots.txt":
                    status, body = b"200 OK", b"User-agent: *\nDisallow: /private\n"
                length = str(len(body)).encode()
                writer.write(b"HTTP/1.1 " + status + b"\r\nContent-Length: " + length + b"\r\n\r\n" + body)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    first = await asyncio.start_server(answer, _host(0), 0, backlog=1024)
    port = first.sockets[0].getsockname()[1]
    others = [_host(number) for number in range(1, HOSTS)]
    second = await asyncio.start_server(answer, others, port, backlog=1024)
    pipe.send(port)
    await asyncio.gather(first.serve_forever(), second.serve_forever())


def _host(number: int) -> str:
    return f"127.0.0.{2 + number}"


def _drawn(number: int) -> bytes:
    """A picture of soft colours: as large as a photograph, and seldom flat."""
    rng = np.random.default_rng(number)
    small = rng.integers(0, 256, size=(24, 24, 3), dtype=np.uint8)
    picture = Image.fromarray(small).resize((SIDE_PX, SIDE_PX), Image.Resampling.BICUBIC)
    kept = io.BytesIO()
    picture.save(kept, "JPEG", quality=88)
    return kept.getvalue()


if __name__ == "__main__":
    main()
