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
from captioner.http import HttpSetup
from captioner.pictures import load_picture
from captioner.worklist import read_done, read_units
from popfactory.demo_drawing import draw
from popfactory.demo_truth import caption_figures
from popfactory.demo_world import Scene, random_scene
from spine.config import write_config
from spine.ids import content_id
from spine.jobs import Journal, read_job
from spine.prompts import PROMPTS
from spine.publish import publish_table
from spine.run import Run, part_path
from spine.settings import CaptionConfig, Config
from spine.stage import Stage
from spine.table_files import read_parts
from spine.tables import CAPTIONS, IMAGES, SELECTION

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
        scenes = drawn(folder / "scenes", 640 if quick else 1280)
        run = make_run(folder / "run", list(scenes))
        embedded(run, rounds=2 if quick else 5)
        attributes(run, scenes)
        first_caption(make_run(folder / "first", list(scenes)[:1]))
        http(folder / "http", list(scenes), 4096 if quick else 12_288)
        resume(folder / "large", 100_000 if quick else 600_000)


class Clock:
    """Notes when each batch was done, and what the run's journal foretold when 5 % were."""

    def __init__(self, run: Run) -> None:
        self.times: list[float] = []
        self.foretold: tuple[float, float] | None = None
        """When, and how many seconds were left by the journal."""
        self._journal, self._run = Journal(run, ["caption", str(run.folder)]), run

    def begin(self, stage: str, total: int | None, unit: str, done: int = 0) -> None:
        """The stage begins, or its model is loaded."""
        self._journal.begin(stage, total, unit, done)

    def advance(self, units: int, failures: dict[str, int] | None = None) -> None:
        """A batch is done."""
        self.times.append(time.perf_counter())
        self._journal.advance(units, failures)
        job = read_job(self._run, self._journal.job_id)
        if self.foretold is None and job.eta_s is not None and job.done >= 0.05 * (job.total or 0):
            self.foretold = job.updated - time.time() + time.perf_counter(), job.eta_s

    def say(self, line: str) -> None:
        """Written down."""
        self._journal.say(line)

    def end(self) -> None:
        """All parts are published: the last batch is as far as a reader can see it."""
        self.times[-1] = time.perf_counter()
        self._journal.close("done")

    @property
    def eta_error(self) -> float:
        """How far the journal was off, as a share of the time that was left."""
        assert self.foretold is not None
        at, left = self.foretold
        return abs(left / (self.times[-1] - at) - 1)


def embedded(run: Run, rounds: int) -> None:
    """The stage's captions a second beside the model's alone, from the end of the first batch on."""
    engine, prompt = EmbeddedEngine.load(SETTINGS), PROMPTS[SETTINGS.prompt]
    units = read_units(run, "0" * 16)
    pictures = [load_picture(unit.wanted) for unit in units]
    images = [picture for picture in pictures if isinstance(picture, Image.Image)]
    alone, staged, eta = [], [], []
    for _ in range(rounds):
        clock = Clock(run)
        caption(run, force=True, progress=clock)
        eta.append(clock.eta_error)
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
    report("captioner_eta_error", statistics.median(eta), "share of the time left", at_most=0.1, **conditions)
    report("captioner_embedded_rate", statistics.median(staged), "captions/s", **conditions)


def attributes(run: Run, scenes: dict[Path, Scene]) -> None:
    """How often captions say what was drawn."""
    said = {row["id"]: row["raw_caption"] for row in read_parts(run.captions, CAPTIONS).to_pylist()}
    figures = caption_figures(list(scenes.values()), [said[picture_id(file)] for file in scenes])
    for name, share in figures.items():
        report(f"captioner {name}", share, "share", n=len(scenes), model="demo-llava")


def first_caption(run: Run) -> None:
    """From the start of the command to the caption on disk."""
    started = time.perf_counter()
    subprocess.run([sys.executable, "-m", "popfactory", "caption", str(run.folder), "--quiet"], check=True)
    report("captioner_first_caption", time.perf_counter() - started, "s", at_most=10, model="demo-llava")


def http(folder: Path, scenes: list[Path], n: int) -> None:
    """Captions a second of the whole stage in one process and its workers, of a server that answers after LATENCY_S.

    Reading, decoding, encoding and publishing are in it; so is not the time until the requests in flight have grown.
    """
    ours, theirs = multiprocessing.get_context("spawn").Pipe()
    server = multiprocessing.get_context("spawn").Process(
        target=fixed_latency_server, args=(theirs,), daemon=True
    )
    server.start()
    files = copies(folder / "pictures", scenes, n)
    run = make_run(folder / "run", files)
    config = CaptionConfig(
        engine="http", model="fixed", endpoints=(f"http://127.0.0.1:{ours.recv()}/v1",), in_flight=IN_FLIGHT
    )
    write_config(run.config, Config(caption=config))
    clock, cpu = Clock(run), time.process_time()
    try:
        manifest = caption(run, progress=clock)
    finally:
        server.terminate()
        server.join(10)
    cpu = time.process_time() - cpu
    assert manifest.counts["captioned"] == n
    batch = HttpSetup.of(config).batch_size
    rate = (n - batch) / (clock.times[-1] - clock.times[0])
    conditions = {"n": n, "in_flight": IN_FLIGHT, "latency_s": LATENCY_S, "sent": "768 x 768 as JPEG 95"}
    report("captioner_http_rate", rate, "captions/s", at_least=250, **conditions)
    report("captioner_http_share", rate / (IN_FLIGHT / LATENCY_S), "x in_flight / latency", **conditions)
    report(
        "captioner_http_cpu",
        1000 * cpu / n,
        "CPU-s of the asking process per 1,000 pictures",
        **conditions,
    )


def copies(folder: Path, scenes: list[Path], n: int) -> list[Path]:
    """n pictures of different bytes: drawn scenes with their number behind the last marker of the JPEG."""
    folder.mkdir(parents=True)
    files = [folder / f"{number:05d}.jpg" for number in range(n)]
    for number, file in enumerate(files):
        file.write_bytes(scenes[number % len(scenes)].read_bytes() + number.to_bytes(4, "big"))
    return files


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
