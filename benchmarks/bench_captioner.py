"""What captioning adds to the model, and what the http client adds to a server that answers after a fixed time.

The model is demo-llava on drawn scenes, so the attribute figures are exact: what a caption says of a scene is parsed
and held against the scene. The stage and the model alone take turns over the same batches in one process. Where there
is a CUDA device, it is timed with LLaVA-1.5-7B's size (`benchmarks.captions_on_gpu`).
"""

import argparse
import hashlib
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

from PIL import Image

from benchmarks.caption_runs import copies, drawn, filled, make_run, picture_id, publish
from benchmarks.captions_on_gpu import captions_on_gpu
from benchmarks.fixed_latency import fixed_latency_server, kept_busy
from benchmarks.report import report
from captioner.captions import caption
from captioner.embedded import EmbeddedEngine
from captioner.pictures import load_picture
from captioner.worklist import read_done, read_units
from popfactory.demo_truth import caption_figures
from popfactory.demo_world import Scene
from spine.jobs import Journal, read_job
from spine.prompts import PROMPTS
from spine.publish import publish_table
from spine.run import Run, part_path
from spine.settings import CaptionConfig
from spine.table_files import read_parts
from spine.tables import CAPTIONS

BATCH = 32
SETTINGS = CaptionConfig(model="demo", max_new_tokens=160, batch_size=BATCH, device="cpu")


def main() -> None:
    """Measure the embedded stage, its first caption, the http client, the time left, and the scan of what is there."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--quick", action="store_true")
    quick = parser.parse_args().quick
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        scenes = drawn(folder / "scenes", 384 if quick else 1280)
        run = make_run(folder / "run", list(scenes), SETTINGS)
        embedded(run, rounds=2 if quick else 5)
        attributes(run, scenes)
        first_caption(make_run(folder / "first", list(scenes)[:1], SETTINGS))
        pictures = copies(folder / "pictures", list(scenes), 4096 if quick else 12_288)
        http(folder / "http-1", pictures, 512, latency_s=1.0)
        if not quick:
            http(folder / "http-2", pictures, 512, latency_s=2.0)
        http(
            folder / "http-3",
            pictures[: len(pictures) // (4 if quick else 2)],
            128,
            latency_s=2.0,
            spread=0.5,
        )
        time_left_embedded(folder / "left", pictures[: 960 if quick else 1280], rounds=2 if quick else 5)
        time_left_http(folder / "left-http", pictures[:1280], rounds=3 if quick else 5)
        resume(folder / "large", 100_000 if quick else 600_000)
        on_gpu([Image.open(path) for path in list(scenes)[:64]])


class Clock:
    """Notes when progress was told, and what the run's journal foretold when 5 % were done."""

    def __init__(self, run: Run) -> None:
        self.times: list[float] = []
        self.foretold: tuple[float, float] | None = None
        """When, and how many seconds were left by the journal."""
        self._journal, self._run = Journal(run, ["caption", str(run.folder)]), run

    def begin(self, stage: str, total: int | None, unit: str, done: int = 0) -> None:
        """The stage begins, or its model is loaded."""
        self._journal.begin(stage, total, unit, done)

    def advance(self, units: int, failures: dict[str, int] | None = None) -> None:
        """A batch is done, or a part of it."""
        self.times.append(time.perf_counter())
        self._journal.advance(units, failures)
        if self.foretold is None:
            job = read_job(self._run, self._journal.job_id)
            if job.eta_s is not None and job.done >= 0.05 * (job.total or 0):
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
    alone, staged = [], []
    for _ in range(rounds):
        clock = Clock(run)
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
    said = {row["id"]: row["raw_caption"] for row in read_parts(run.captions, CAPTIONS).to_pylist()}
    figures = caption_figures(list(scenes.values()), [said[picture_id(file)] for file in scenes])
    for name, share in figures.items():
        report(f"captioner {name}", share, "share", n=len(scenes), model="demo-llava")


def first_caption(run: Run) -> None:
    """From the start of the command to the caption on disk."""
    started = time.perf_counter()
    subprocess.run([sys.executable, "-m", "popfactory", "caption", str(run.folder), "--quiet"], check=True)
    report("captioner_first_caption", time.perf_counter() - started, "s", at_most=10, model="demo-llava")


def http(folder: Path, pictures: list[Path], in_flight: int, latency_s: float, spread: float = 0.0) -> None:
    """The whole stage in one process and its workers, on a server that answers after `latency_s`.

    Reading, decoding, encoding and publishing are in it; so is not the time until the requests in flight have grown.
    What a place at the server stands empty then, the client has lost. 512 requests of a second ask for twice the goal's
    rate, and of two seconds for just that; answers that all take the very same time come in bursts, which no engine's
    do. 128 of one to three seconds ask for 64 captions a second, twice what is computed for LLaVA-1.5-7B on a large
    GPU.
    """
    with fixed_latency_server(latency_s, spread) as server:
        run = make_run(folder, pictures, http_settings(server.address, in_flight))
        cpu = time.process_time()
        manifest = caption(run)
        cpu = time.process_time() - cpu
        kept = kept_busy(server.served(), in_flight)
    n = len(pictures)
    assert manifest.counts["captioned"] == n
    conditions = {
        "n": n,
        "in_flight": in_flight,
        "latency_s": latency_s,
        "spread": spread,
        "sent": "768 x 768 as JPEG 95",
        "counted": "from half of the requests on until the last came in",
        "cpu_s_of_the_asking_process_per_1000": round(1000 * cpu / n, 2),
    }
    report(
        "captioner_http_rate",
        kept.rate,
        "captions/s",
        at_least=250 if in_flight == 512 else None,
        **conditions,
    )
    report(
        "captioner_http_share", kept.places_used, "of the server's places in use", at_least=0.98, **conditions
    )


def http_settings(address: str, in_flight: int) -> CaptionConfig:
    """Settings that ask the server of a fixed latency."""
    return CaptionConfig(engine="http", model="fixed", endpoints=(address,), in_flight=in_flight)


def time_left_embedded(folder: Path, files: list[Path], rounds: int) -> None:
    """How far the time left is off after 5 % of a run: 12 or 16 batches of 4, of short captions of 13 to 23 tokens."""
    batch, prompt = 4, "short"
    run = make_run(folder, files, replace(SETTINGS, batch_size=batch, prompt=prompt))
    time_left(run, rounds, n=len(files), batch_size=batch, prompt=prompt, engine="embedded")


def time_left_http(folder: Path, pictures: list[Path], rounds: int) -> None:
    """The same over http, on a server whose answers take 0.15 to 0.45 s: after four answers of each of its places.

    By chance alone the time left is then off by 4.5 % (standard deviation), counted with places that never wait.
    """
    in_flight, latency_s, spread = 16, 0.3, 0.5
    with fixed_latency_server(latency_s, spread) as server:
        run = make_run(folder, pictures, http_settings(server.address, in_flight))
        conditions = {"in_flight": in_flight, "latency_s": latency_s, "spread": spread}
        time_left(run, rounds, n=len(pictures), **conditions, engine="http")


def time_left(run: Run, rounds: int, **conditions: object) -> None:
    """Report the median over whole runs, with each of them: a machine that changes its pace foretells nothing."""
    errors = []
    for _ in range(rounds):
        clock = Clock(run)
        caption(run, force=True, progress=clock)
        errors.append(clock.eta_error)
    conditions |= {"rounds": rounds, "each": [round(error, 3) for error in errors]}
    report(
        "captioner_eta_error",
        statistics.median(errors),
        "of the time left, median of the rounds",
        at_most=0.1,
        **conditions,
    )


def on_gpu(images: list[Image.Image]) -> None:
    """LLaVA-1.5-7B's size on the CUDA device, if there is one."""
    import torch

    if torch.cuda.is_available():
        captions_on_gpu(images, (16, 32, 64))
    else:
        print("no CUDA device: how fast LLaVA-1.5-7B captions is not measured", file=sys.stderr)


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


if __name__ == "__main__":
    main()
