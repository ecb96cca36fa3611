"""Curation: fetch from a drawn web on loopback, and the tables of a large run: python -m benchmarks curation.

Half of the drawn web's links are dead; of the others some send on, some are slow, lie about what they are, break off
or are huge. Every picture is fetched by its address, hashed (SHA-256, MD5, PDQ), decoded and measured in worker
processes, stored and written down; robots.txt and tdmrep.json are asked for. The server is a process of its own on
the same cores. Of the same web centroids are filled, fetched deeper where they are short: each ends with its quota, or
with all of its neighbours that give a picture. Select, why and the scan of a resumed fetch run on planted tables
(benchmarks/planted_ledger.py).
"""

import argparse
import asyncio
import contextlib
import io
import multiprocessing
import os
import resource
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
import pyarrow as pa
from PIL import Image

from benchmarks.planted_ledger import LISTED, plant_ledger, plant_lists, plant_scores
from benchmarks.report import report
from curation.fetched_images import fetch
from curation.fetchers import processes_for
from curation.refill import deeper
from curation.selection import select
from curation.story import why
from index_builder.encoding.clip import ClipEncoder
from popfactory.demo_collection import draw_collection
from spine.config import load_config, with_demo_models, write_config
from spine.errors import FactoryError
from spine.ids import laion_id
from spine.images import open_picture
from spine.manifest import MANIFEST
from spine.publish import publish_table
from spine.run import Run, part_path
from spine.settings import TWO_STEP, Config, FetchConfig, FiltersConfig, SelectConfig
from spine.stage import Stage
from spine.table_files import read_parts, read_table
from spine.tables import IMAGES, NEIGHBOURS, SELECTION, Vectors
from spine.web import Web

HOSTS = 64
SIDE_PX = 512
MAX_BYTES = 2_000_000
EXPECTED: dict[str, str | None] = {
    "p": None,
    "moved": None,
    "slow": None,
    "gone": "gone",
    "page": "not_an_image",
    "half": "truncated",
    "huge": "too_many_bytes",
    "down": "http_error",
}
"""What each kind of address comes to."""

_TWENTY = ["p", "gone"] * 8
KINDS = (*[*_TWENTY, "moved", "page", "p", "half"] * 9, *_TWENTY, "slow", "huge", "p", "down")
"""200 addresses: half of them dead."""

DRAWN = 32
"""Pictures that are drawn; each address gives one of them with a number of its own behind it."""


def main() -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--quick", action="store_true")
    quick = parser.parse_args().quick
    with tempfile.TemporaryDirectory() as folder:
        with drawn_web() as (port, web):
            for mode in ("one-step", TWO_STEP):
                measure_fetch(Path(folder) / f"fetch-{mode}", port, web, 8_000 if quick else 20_000, mode)
        with drawn_web() as (port, web):
            measure_fill(Path(folder) / "fill", port, web, 40 if quick else 200)
        measure_tables(Path(folder) / "tables", 1_000_000)
        measure_same_picture(Path(folder) / "drawn", 250)


@contextlib.contextmanager
def drawn_web() -> Iterator[tuple[int, Web]]:
    """The drawn web in a process of its own: its port, and what asks it."""
    context = multiprocessing.get_context("spawn")
    near, far = context.Pipe()
    server = context.Process(target=serve, args=(far,), daemon=True)
    server.start()
    port = near.recv()
    web = Web(
        ports={port}, allow=("127.0.0.0/8",), timeout_s=10, max_bytes=MAX_BYTES, connections=64, per_host=4
    )
    try:
        with web:
            yield port, web
    finally:
        server.terminate()
        server.join()


def measure_fetch(folder: Path, port: int, web: Web, pictures: int, mode: str) -> None:
    """Pictures and addresses a second; in two-step mode a thumbnail of each is made and stored."""
    run = planted(folder, port, [pictures], mode)
    (server,) = multiprocessing.active_children()
    started, used, served_s = time.perf_counter(), _cpu_s(), _cpu_of(server.pid)
    with _memory_watched(server.pid) as peak:
        manifest = fetch(run, depths=[pictures], web=web)
    taken_s, used_s, served_s = time.perf_counter() - started, _cpu_s() - used, _cpu_of(server.pid) - served_s
    check(run, pictures)
    fetched = manifest.counts["fetched"]
    conditions = {
        "addresses": pictures,
        "fetched": fetched,
        "hosts": HOSTS,
        "side_px": SIDE_PX,
        "concurrency": 64,
        "processes": processes_for(
            load_config(run.config), read_parts(run.neighbours, NEIGHBOURS).to_pylist()
        ),
        "cpu_ms_a_picture": round(1e3 * used_s / fetched, 1),
        "server_cpu_ms_a_picture": round(1e3 * served_s / fetched, 1),
        "load": round(os.getloadavg()[0], 1),
        "peak_mb": max(peak),
    }
    figure = "fetch_thumbnails" if mode == TWO_STEP else "fetch_pictures"
    report(figure, manifest.counts["fetched"] / taken_s, "pictures/s", at_least=300, **conditions)
    report(f"{figure}_addresses", pictures / taken_s, "addresses/s", **conditions)


def _cpu_s() -> float:
    """CPU seconds of this process and of those that ended under it."""
    used = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(each.ru_utime + each.ru_stime for each in used)


def _cpu_of(pid: int | None) -> float:
    """CPU seconds of another process."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@contextlib.contextmanager
def _memory_watched(server: int | None) -> Iterator[list[int]]:
    """Megabytes of this process and all under it but the server, looked at every so often.

    What they share counts for each of them.
    """
    seen, ended = [0], threading.Event()

    def look() -> None:
        while not ended.wait(0.3):
            seen.append(sum(_resident_mb(pid) for pid in _tree(os.getpid()) if pid != server))

    watching = threading.Thread(target=look, daemon=True)
    watching.start()
    try:
        yield seen
    finally:
        ended.set()
        watching.join()


def _tree(pid: int) -> list[int]:
    children: list[int] = []
    with contextlib.suppress(OSError):
        for each in Path(f"/proc/{pid}/task").glob("*/children"):
            children += map(int, each.read_text().split())
    return [pid, *(below for child in children for below in _tree(child))]


def _resident_mb(pid: int) -> int:
    with contextlib.suppress(OSError):
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE") // 1_000_000
    return 0


QUOTA, DEEP = 20, 100
"""Of each centroid that is to be filled: its quota, and its neighbours."""


def measure_fill(folder: Path, port: int, web: Web, centroids: int) -> None:
    """Centroids that have what their neighbours can give, of all, after as many rounds as that takes.

    The neighbours are half dead: of every second centroid the first thirty, so that it has to go deeper, and of every
    fifth all but the first 45, so that every tenth can't have its quota.
    """
    run = planted(folder, port, [DEEP] * centroids)
    table = read_parts(run.neighbours, NEIGHBOURS, ["centroid_id", "url"])
    alive = np.array([EXPECTED[url.split("/")[3]] is None for url in table["url"].to_pylist()])
    wanted = np.minimum(np.bincount(table["centroid_id"].to_numpy()[alive], minlength=centroids), QUOTA)
    config, depths, rounds = load_config(run.config), None, 0
    started = time.perf_counter()
    while rounds == 0 or depths is not None:
        reached = fetch(run, depths=depths, web=web).parameters["depths"]
        images = read_parts(run.images, IMAGES, ["id", "status"])
        fetched = images["id"].to_numpy()[images["status"].to_numpy(zero_copy_only=False) == "fetched"]
        plant_scores(run, fetched, np.random.default_rng(0), duplicates=0)
        select(run)
        depths, rounds = deeper(run, config, reached), rounds + 1
    taken_s = time.perf_counter() - started
    selection = read_table(run.selection_table, SELECTION)
    chosen = selection["centroid_id"].to_numpy()[
        selection["rule"].to_numpy(zero_copy_only=False) == "selected"
    ]
    filled = int((np.bincount(chosen, minlength=centroids) == wanted).sum())
    report(
        "centroids_filled",
        filled / centroids,
        "of those that can be",
        at_least=1,
        centroids=centroids,
        quota=QUOTA,
        short_of_neighbours=int((wanted < QUOTA).sum()),
        rounds=rounds,
        fetched=len(fetched),
        asked=images.num_rows,
        seconds=round(taken_s, 1),
        load=round(os.getloadavg()[0], 1),
    )
    if filled < centroids:
        sys.exit(f"{centroids - filled} of {centroids} centroids don't have what their neighbours can give")


def measure_tables(folder: Path, candidates: int) -> None:
    """Seconds of select, of why and of the scan with which a stopped fetch goes on."""
    planted_run = plant_ledger(folder, candidates)
    run, rows = planted_run.run, planted_run.pictures
    conditions = {"candidates": candidates, "pictures": rows, "load": round(os.getloadavg()[0], 1)}
    used = time.process_time()
    started = time.perf_counter()
    select(run)
    taken_s = time.perf_counter() - started
    cpu_s = round(time.process_time() - used, 2)
    report("select", taken_s, "s", at_most=10, cpu_s=cpu_s, **conditions)
    taken = []
    for picture in planted_run.some_ids:
        started = time.perf_counter()
        why(run, picture)
        taken.append((time.perf_counter() - started) * 1e3)
    report("why_median", statistics.median(taken), "ms", at_most=200, **conditions)
    (run.images / MANIFEST).unlink()
    used, started = time.process_time(), time.perf_counter()
    manifest = fetch(run)
    taken_s, cpu_s = time.perf_counter() - started, round(time.process_time() - used, 2)
    if manifest.counts["candidates"] != rows:
        sys.exit(f"{manifest.counts} after the scan, {rows} pictures were planted")
    report("resume_scan", taken_s, "s", at_most=5, cpu_s=cpu_s, rows=rows, **conditions)
    plant_scores(run, planted_run.alive, np.random.default_rng(0))
    plant_lists(run)
    used, started = time.process_time(), time.perf_counter()
    select(run)
    taken_s, cpu_s = time.perf_counter() - started, round(time.process_time() - used, 2)
    report("select_with_lists", taken_s, "s", cpu_s=cpu_s, looks_listed=LISTED, **conditions)


def measure_same_picture(folder: Path, pool: int) -> None:
    """Similarity of drawn pictures to themselves saved anew, and to others: what [select] same_picture lies between."""
    draw_collection(folder, concepts=1, pool=pool)
    pictures = []
    for path in sorted((folder / "pool").rglob("*.*")):
        with contextlib.suppress(FactoryError):
            pictures.append(open_picture(path.read_bytes()).image)
    encoder = ClipEncoder.load(with_demo_models(Config()).clip)

    def embedded(images: list[Image.Image]) -> Vectors:
        crops = [np.asarray(encoder.preprocess(image)) for image in images]
        return np.concatenate(
            [encoder.encode_images(np.stack(crops[at : at + 50])) for at in range(0, len(crops), 50)]
        )

    then = embedded(pictures)
    anew = [
        (then * embedded([_saved_anew(image, quality, shrunk) for image in pictures])).sum(axis=1)
        for quality, shrunk in ((30, 1), (75, 2), (75, 4))
    ]
    others = (then @ then.T)[np.triu_indices(len(then), 1)]
    conditions = {"pictures": len(pictures), "model": "demo"}
    report("same_picture_saved_anew_lowest", float(np.min(anew)), "similarity", **conditions)
    report(
        "same_picture_others_99th_percentile", float(np.quantile(others, 0.99)), "similarity", **conditions
    )


def _saved_anew(image: Image.Image, quality: int, shrunk: int) -> Image.Image:
    kept = io.BytesIO()
    image.reduce(shrunk).save(kept, "JPEG", quality=quality)
    return Image.open(kept).convert("RGB")


def planted(folder: Path, port: int, depths: list[int], mode: str = "one-step") -> Run:
    """A run whose neighbours are addresses of the drawn web: of KINDS one after another.

    Args:
        folder: The run's.
        port: Of the drawn web.
        depths: Neighbours of each centroid.
        mode: As [fetch] mode.
    """
    run = Run(folder)
    folder.mkdir(parents=True)
    config = Config(
        fetch=FetchConfig(mode=mode, timeout_s=10.0),
        filters=FiltersConfig(min_side_px=SIDE_PX, pwatermark_max=None),
        select=SelectConfig(quota_per_centroid=QUOTA),
    )
    write_config(run.config, config)
    rows: list[dict[str, object]] = []
    for centroid, depth in enumerate(depths):
        for rank in range(depth):
            number = len(rows)
            kind = KINDS[number % len(KINDS)]
            if len(depths) > 1 and ((centroid % 2 and rank < 30) or (centroid % 5 == 0 and rank >= 45)):
                kind = "gone"
            url = f"http://{_host(number // 2 % HOSTS)}:{port}/{kind}/{number}"
            found = {"centroid_id": centroid, "rank": rank, "similarity": 0.5, "best_centroid": centroid}
            rows.append(dict.fromkeys(NEIGHBOURS.names) | found | {"id": laion_id(url, ""), "url": url})
    stage = Stage.open("neighbours", run.neighbours, {"rows": len(rows)}, {})
    publish_table(part_path(run.neighbours, 0), pa.Table.from_pylist(rows, NEIGHBOURS))
    stage.finish({"neighbours": len(rows)})
    return run


def check(run: Run, pictures: int) -> None:
    """See that every address has the status it must have: a fast wrong answer is no figure."""
    rows = read_parts(run.images, IMAGES, ["url", "reason"]).to_pylist()
    wrong = [row for row in rows if row["reason"] != EXPECTED[row["url"].split("/")[3]]]
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
                status, body, more = b"404 Not Found", b"", b""
                if kind == b"slow":
                    await asyncio.sleep(1.5)
                if kind in (b"p", b"slow", b"half"):
                    # Bytes behind the end of a JPEG are no part of it: so each address has its own hash.
                    status, body = b"200 OK", drawn[int(number) % DRAWN] + number
                    body = body[: len(body) // 2] if kind == b"half" else body
                elif kind == b"moved":
                    status, more = b"302 Found", b"Location: /p/" + number + b"\r\n"
                elif kind == b"page":
                    status, body = b"200 OK", b"<html>this picture is not here any more</html>"
                elif kind == b"huge":
                    status, body = b"200 OK", b"x" * (2 * MAX_BYTES)
                elif kind == b"down":
                    status = b"500 Internal Server Error"
                elif kind == b"robots.txt":
                    status, body = b"200 OK", b"User-agent: *\nDisallow: /private\n"
                length = str(len(body)).encode()
                head = b"HTTP/1.1 " + status + b"\r\n" + more + b"Content-Length: " + length + b"\r\n\r\n"
                writer.write(head + body)
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
