"""What captioning adds to the model, and what the http client adds to a server that answers after a fixed time.

The model is demo-llava on drawn scenes, so the attribute figures are exact: what a caption says of a scene is parsed
and held against the scene. The stage and the model alone take turns over the same batches in one process.
"""

import argparse
import asyncio
import hashlib
import json
import multiprocessing
import statistics
import subprocess
import sys
import tempfile
import time
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
import pyarrow as pa
from PIL import Image

from benchmarks.report import report
from captioner.captions import caption
from captioner.embedded import EmbeddedEngine
from captioner.http import HttpEngine, HttpSetup
from captioner.pictures import load_picture
from captioner.worklist import read_done, read_units
from popfactory.demo_drawing import draw
from popfactory.demo_world import Scene, parse_caption, random_scene
from spine.config import write_config
from spine.ids import content_id
from spine.prompts import PROMPTS
from spine.publish import publish_table
from spine.run import Run, part_path
from spine.settings import CaptionConfig, Config
from spine.stage import Stage
from spine.tables import CAPTIONS, IMAGES, SELECTION, read_parts

BATCH = 32
LATENCY_S = 1.0
IN_FLIGHT = 512
SETTINGS = CaptionConfig(model="demo", max_new_tokens=160, batch_size=BATCH, device="cpu")


def main() -> None:
    """Measure the embedded stage, its first caption, the http client, and the scan of what is there."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--quick", action="store_true")
    quick = parser.parse_args().quick
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        scenes = drawn(folder / "scenes", 256 if quick else 1024)
        run = make_run(folder / "run", list(scenes))
        embedded(run, rounds=2 if quick else 5)
        attributes(run, scenes)
        first_caption(make_run(folder / "first", list(scenes)[:1]))
        http(2048 if quick else 8192)
        resume(folder / "large", 100_000 if quick else 600_000)


class Clock:
    """Notes when each batch was done."""

    def __init__(self) -> None:
        self.times: list[float] = []

    def begin(self, stage: str, total: int | None, unit: str, done: int = 0) -> None:
        """Nothing to note."""

    def advance(self, units: int, failures: dict[str, int] | None = None) -> None:
        """A batch is done."""
        self.times.append(time.perf_counter())

    def say(self, line: str) -> None:
        """Nothing to note."""

    def end(self) -> None:
        """All parts are published: the last batch is as far as a reader can see it."""
        self.times[-1] = time.perf_counter()


def embedded(run: Run, rounds: int) -> None:
    """The stage's captions a second beside the model's alone, from the end of the first batch on."""
    engine, prompt = EmbeddedEngine.load(SETTINGS), PROMPTS[SETTINGS.prompt]
    units = read_units(run, "0" * 16)
    pictures = [load_picture(unit.wanted) for unit in units]
    images = [picture for picture in pictures if isinstance(picture, Image.Image)]
    alone, staged = [], []
    for _ in range(rounds):
        clock = Clock()
        caption(run, force=True, progress=clock)
        staged.append((len(images) - BATCH) / (clock.times[-1] - clock.times[0]))
        engine.describe(images[:BATCH], prompt, SETTINGS.max_new_tokens)
        started = time.perf_counter()
        for start in range(BATCH, len(images), BATCH):
            engine.describe(images[start : start + BATCH], prompt, SETTINGS.max_new_tokens)
        alone.append((len(images) - BATCH) / (time.perf_counter() - started))
    engine.close()
    share = statistics.median(ours / model for ours, model in zip(staged, alone, strict=True))
    conditions = {"n": len(images), "batch_size": BATCH, "rounds": rounds, "model": "demo-llava"}
    report("captioner_embedded_share", share, "x the model alone, median", at_least=0.95, **conditions)
    report("captioner_embedded_rate", statistics.median(staged), "captions/s", **conditions)


def attributes(run: Run, scenes: dict[Path, Scene]) -> None:
    """How often captions say what was drawn."""
    said = {
        row["id"]: parse_caption(row["raw_caption"]) for row in read_parts(run.captions, CAPTIONS).to_pylist()
    }
    pairs = [(said[picture_id(file)], scene) for file, scene in scenes.items()]
    parsed = [(text, scene) for text, scene in pairs if text is not None]
    n = len(pairs)
    report("captioner_parsed", len(parsed) / n, "share of captions", n=n, model="demo-llava")
    for name in ("background", "pattern", "light", "style", "band", "word"):
        right = sum(getattr(text, name) == getattr(scene, name) for text, scene in parsed)
        report(f"captioner_right_{name}", right / n, "share of scenes", n=n, model="demo-llava")
    found = right = drawn_objects = 0
    for text, scene in pairs:
        named = {cell: group.kind for group in text.groups for cell in group.cells} if text else {}
        for group in scene.groups:
            drawn_objects += len(group.cells)
            found += sum(cell in named for cell in group.cells)
            right += sum(named.get(cell) == group.kind for cell in group.cells)
    conditions = {"n": drawn_objects, "model": "demo-llava"}
    report("captioner_objects_found", found / drawn_objects, "share of objects, at their place", **conditions)
    report(
        "captioner_objects_right", right / drawn_objects, "share: colour, shape and size too", **conditions
    )


def first_caption(run: Run) -> None:
    """From the start of the command to the caption on disk."""
    started = time.perf_counter()
    subprocess.run([sys.executable, "-m", "popfactory", "caption", str(run.folder), "--quiet"], check=True)
    report("captioner_first_caption", time.perf_counter() - started, "s", at_most=10, model="demo-llava")


def http(n: int) -> None:
    """Requests a second of one client process, pictures encoded, against a server that answers after LATENCY_S."""
    ours, theirs = multiprocessing.get_context("spawn").Pipe()
    server = multiprocessing.get_context("spawn").Process(
        target=fixed_latency_server, args=(theirs,), daemon=True
    )
    server.start()
    config = CaptionConfig(
        engine="http", model="fixed", endpoints=(f"http://127.0.0.1:{ours.recv()}/v1",), in_flight=IN_FLIGHT
    )
    rng = np.random.default_rng(0)
    images = [draw(random_scene(rng), 768, 768) for _ in range(64)]
    engine = HttpEngine(HttpSetup.of(config))
    try:
        engine.describe(
            [images[place % 64] for place in range(IN_FLIGHT)], PROMPTS["laion-pop"], 128
        )  # widens
        started, cpu = time.perf_counter(), time.process_time()
        replies = engine.describe([images[place % 64] for place in range(n)], PROMPTS["laion-pop"], 128)
        wall, cpu = time.perf_counter() - started, time.process_time() - cpu
    finally:
        engine.close()
        server.terminate()
        server.join(10)
    assert all(getattr(reply, "text", None) == "a star" for reply in replies)
    conditions = {
        "n": n,
        "in_flight": IN_FLIGHT,
        "latency_s": LATENCY_S,
        "sent": "768 x 768 as JPEG 95",
    }
    report("captioner_http_rate", n / wall, "requests/s", at_least=250, **conditions)
    report("captioner_http_share", n / wall / (IN_FLIGHT / LATENCY_S), "x in_flight / latency", **conditions)
    report("captioner_http_cpu", 1000 * cpu / n, "CPU-s per 1,000 pictures", **conditions)


def fixed_latency_server(pipe: Connection) -> None:
    """An OpenAI-compatible server that says the same after LATENCY_S; tells its port over the pipe."""
    choice = {"message": {"content": "a star"}, "finish_reason": "stop"}
    completion = json.dumps({"choices": [choice], "usage": {"completion_tokens": 2}}).encode()
    listing = json.dumps({"data": [{"id": "fixed"}]}).encode()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).lower()
                content = listing
                if head.startswith(b"post"):
                    length = int(head.split(b"content-length:")[1].split(b"\r\n")[0])
                    await reader.readexactly(length)
                    await asyncio.sleep(LATENCY_S)
                    content = completion
                writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%s" % (len(content), content))
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    async def serve() -> None:
        server = await asyncio.start_server(answer, "127.0.0.1", 0, backlog=1024, limit=1 << 20)
        pipe.send(server.sockets[0].getsockname()[1])
        await server.serve_forever()

    asyncio.run(serve())


def resume(folder: Path, n: int) -> None:
    """How long a start takes to know what is there: the selection, the pictures, and the captions of all of them."""
    run = Run(folder)
    hashes = [hashlib.sha256(str(number).encode()).hexdigest() for number in range(n)]
    ids = list(range(n))
    publish(run, ids, hashes, [f"/pictures/{number}.jpg" for number in ids])
    units = read_units(run, "0" * 16)
    rows = {"caption_id": [unit.caption_id for unit in units], "id": [unit.ids[0] for unit in units]}
    constant = {"status": "captioned", "caption": "a red star " * 30, "raw_caption": "This image " * 40}
    captions = filled(CAPTIONS, rows | {name: [value] * n for name, value in constant.items()}, n)
    for part, start in enumerate(range(0, n, 4096)):
        publish_table(part_path(run.captions, part), captions.slice(start, 4096))
    started = time.perf_counter()
    known = read_done(run, read_units(run, "0" * 16)).num_rows
    wall = time.perf_counter() - started
    assert known == n
    report("captioner_resume_scan", wall, "s", at_most=5, n=n)


def drawn(folder: Path, n: int) -> dict[Path, Scene]:
    """Drawn scenes by the file they are saved in."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(20_231_117)
    scenes = {folder / f"{number:05d}.jpg": random_scene(rng) for number in range(n)}
    for file, scene in scenes.items():
        draw(scene, 768, 768).save(file, quality=92)
    return scenes


def make_run(folder: Path, files: list[Path]) -> Run:
    """A run whose pictures are these files, all selected."""
    run = Run(folder)
    folder.mkdir(parents=True)
    write_config(run.config, Config(caption=SETTINGS))
    hashes = [hashlib.sha256(file.read_bytes()).hexdigest() for file in files]
    publish(run, [picture_id(file) for file in files], hashes, [str(file) for file in files])
    return run


def publish(run: Run, ids: list[int], hashes: list[str], places: list[str]) -> None:
    """Write images/ and selection/ as their stages do."""
    n = len(ids)
    stage = Stage.open("images", run.images, {}, {})
    columns = {"id": ids, "status": ["fetched"] * n, "image_path": places, "sha256": hashes}
    publish_table(part_path(run.images, 0), filled(IMAGES, columns, n))
    stage.finish({"fetched": n})
    stage = Stage.open("selection", run.selection, {}, {})
    chosen = {"id": ids, "verdict": ["selected"] * n, "centroid_id": [0] * n, "rank": list(range(n))}
    publish_table(run.selection_table, filled(SELECTION, chosen, n))
    stage.finish({"selected": n})


def filled(schema: pa.Schema, columns: dict[str, list[object]], n: int) -> pa.Table:
    """A table with these columns, the others null."""
    return pa.table({name: columns.get(name, pa.nulls(n)) for name in schema.names}).cast(schema)


def picture_id(file: Path) -> int:
    """The id of a drawn scene's file."""
    return content_id(file.name.encode())


if __name__ == "__main__":
    main()
