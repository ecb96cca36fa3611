"""Pictures embedded a second, against the model alone and against decoding alone: python -m benchmarks embed.

Two models over the same drawn photographs: one as heavy as CLIP ViT-B/16's picture tower, with random weights,
which decoding can keep up with; and the demo model, so light that decoding bounds it. The stage is the real
one, from files to published shards. The model alone is measured before and after it, on crops that lie ready and
in the same steps; decoding alone as the stage does it, with nobody else on the cores. How long the model worked
is taken in the same run as well: what others do on the machine changes both sides of that share. CPU seconds are
those of all threads and processes.
"""

import argparse
import json
import os
import resource
import tempfile
import time
from dataclasses import replace
from pathlib import Path

# As the command does, before torch is loaded: threads that spin take from the decoding processes what they then wait
# for, five CPU milliseconds a picture of the light model's.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import numpy as np
from PIL import Image

from benchmarks.report import report
from index_builder import embeddings
from index_builder.embeddings import embed
from index_builder.encoding.clip import ClipEncoder
from index_builder.encoding.decoding import available_cores, decode
from index_builder.encoding.preprocessing import Pixels, Preprocessing
from spine.config import write_config
from spine.run import Run
from spine.settings import ClipConfig, Config
from spine.shards import read_shards
from spine.tables import METADATA, Vectors
from spine.torchvision_ops import declare_missing_operators

SIDE_PX = 512
DRAWN = 64
"""Different pictures; each file has a number of its own behind it."""
BATCH = 16
STEPS = 16
"""Of the model alone."""


def main() -> None:
    """Measure and report."""
    embeddings.ClipEncoder = TimedEncoder  # type: ignore[misc]
    parser = argparse.ArgumentParser()
    parser.add_argument("--quick", action="store_true")
    quick = parser.parse_args().quick
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        heavy = ClipConfig(
            model=f"local-dir:{heavy_model(folder / 'heavy')}", pretrained="", batch_size=BATCH
        )
        light = ClipConfig(model="demo", pretrained="", batch_size=64)
        measure(folder / "heavy-run", "embed_heavy", heavy, 384 if quick else 768)
        measure(folder / "light-run", "embed_light", light, 2_000 if quick else 12_000)


class TimedEncoder(ClipEncoder):
    """The model, with the seconds it worked, and the moment and CPU seconds at which it was ready."""

    worked_s = 0.0
    ready = 0.0
    ready_cpu_s = 0.0

    @classmethod
    def load(cls, config: ClipConfig, device: str | None = None) -> "TimedEncoder":
        """As ClipEncoder."""
        encoder = super().load(config, device)
        assert isinstance(encoder, TimedEncoder)
        TimedEncoder.worked_s, TimedEncoder.ready, TimedEncoder.ready_cpu_s = (
            0.0,
            time.perf_counter(),
            cpu_s(),
        )
        return encoder

    def encode_images(self, pixels: Pixels, *, steady: bool = False) -> Vectors:
        """As ClipEncoder."""
        started = time.perf_counter()
        found = super().encode_images(pixels, steady=steady)
        TimedEncoder.worked_s += time.perf_counter() - started
        return found


def measure(folder: Path, name: str, clip: ClipConfig, n: int) -> None:
    """Embed n pictures, and report the rates."""
    pictures = photographs(folder / "pictures", n)
    clip = replace(clip, device="cpu", precision="fp32")
    encoder = ClipEncoder.load(clip)
    crops = np.stack([encoder.preprocess.crop(Image.open(path)) for path in pictures[:DRAWN]])
    before, cpu_before = model_alone(encoder, crops, clip.batch_size)
    run = Run(folder / "run")
    run.folder.mkdir()
    write_config(run.config, Config(clip=clip))
    embed(run, "pool", str(folder / "pictures"))
    taken_s, worked_s = time.perf_counter() - TimedEncoder.ready, TimedEncoder.worked_s
    cpu_together = (cpu_s() - TimedEncoder.ready_cpu_s) / n
    after, cpu_after = model_alone(encoder, crops, clip.batch_size)
    decoding, cpu_decoding = decoding_alone(pictures, encoder.preprocess)
    check(run, encoder, pictures)
    alone, together = 2 / (1 / before + 1 / after), n / taken_s
    conditions = {
        "pictures": n,
        "side_px": SIDE_PX,
        "batch_size": clip.batch_size,
        "model_alone_per_s": [round(before, 2), round(after, 2)],
        "decoding_alone_per_s": round(decoding, 1),
        "cpu_ms_a_picture": round(1e3 * cpu_together, 2),
        "model_alone_cpu_ms": [round(1e3 * cpu_before, 2), round(1e3 * cpu_after, 2)],
        "decoding_alone_cpu_ms": round(1e3 * cpu_decoding, 2),
        "workers": available_cores(),
        "peak_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3),
        "load_average": round(os.getloadavg()[0], 1),
    }
    keeps_up = 0.95 if decoding > 20 * alone else None
    report(f"{name}_rate", together, "pictures/s", **conditions)
    report(f"{name}_of_model_alone", together / alone, "x the model alone", at_least=keeps_up, **conditions)
    report(f"{name}_model_busy", worked_s / taken_s, "of the time", at_least=keeps_up, **conditions)
    # On CPUs the two take turns on the same cores: this is what both at their best would leave.
    shared = 1 / (1 / alone + 1 / decoding)
    report(f"{name}_of_cores_shared", together / shared, "x model and decoding in turn", **conditions)
    apart = (cpu_before + cpu_after) / 2 + cpu_decoding
    report(f"{name}_cpu", cpu_together / apart, "x CPU seconds of model and decoding apart", **conditions)


def model_alone(encoder: ClipEncoder, crops: np.ndarray, batch: int) -> tuple[float, float]:
    """Pictures a second and CPU seconds a picture of the model on crops that lie ready: normalised, as in the stage."""
    some = np.resize(crops, (batch, *crops.shape[1:]))
    encoder.encode_images(encoder.preprocess.normalise(some), steady=True)
    started, started_cpu_s = time.perf_counter(), cpu_s()
    for _ in range(STEPS):
        encoder.encode_images(encoder.preprocess.normalise(some), steady=True)
    n = STEPS * batch
    return n / (time.perf_counter() - started), (cpu_s() - started_cpu_s) / n


def decoding_alone(pictures: list[Path], preprocess: Preprocessing) -> tuple[float, float]:
    """Pictures a second by all cores, from the first that is out on: starting processes is no decoding.

    And CPU seconds a picture, with the start of the processes as the stage has it.
    """
    started_cpu_s, some = cpu_s(), (pictures * 6)[:2_000]
    found = decode(((path, str(path)) for path in some), preprocess)
    for _ in range(100):
        next(found)
    started = time.perf_counter()
    left = sum(1 for _ in found)
    return left / (time.perf_counter() - started), (cpu_s() - started_cpu_s) / len(some)


def cpu_s() -> float:
    """CPU seconds of this process, and of those it started that have ended."""
    usages = [resource.getrusage(whose) for whose in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def check(run: Run, encoder: ClipEncoder, pictures: list[Path]) -> None:
    """See that rows belong to their pictures: a fast wrong answer is no figure."""
    pairs = list(read_shards(run.pool, METADATA))
    rows = [row for _, table in pairs for row in table.to_pylist()]
    vectors = np.concatenate([vectors for vectors, _ in pairs])
    if [row["image_path"] for row in rows] != [str(path) for path in pictures]:
        raise SystemExit("not every picture was embedded, in its order")
    some = np.linspace(0, len(rows) - 1, 8).astype(int)
    crops = np.stack([encoder.preprocess.crop(Image.open(pictures[row])) for row in some])
    alone = encoder.encode_images(encoder.preprocess.normalise(crops))
    if np.abs(vectors[some] - alone).max() > 2e-3:
        raise SystemExit("a picture's embedding is not its own")


def photographs(folder: Path, n: int) -> list[Path]:
    """n JPEGs of soft colours, as large as photographs, in the order of their names."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    drawn = []
    for _ in range(min(n, DRAWN)):
        small = rng.integers(0, 256, size=(24, 24, 3), dtype=np.uint8)
        picture = Image.fromarray(small).resize((SIDE_PX, SIDE_PX), Image.Resampling.BICUBIC)
        picture.save(folder / "drawn.jpg", quality=88)
        drawn.append((folder / "drawn.jpg").read_bytes())
    (folder / "drawn.jpg").unlink()
    paths = [folder / f"{number:06d}.jpg" for number in range(n)]
    for number, path in enumerate(paths):
        path.write_bytes(drawn[number % len(drawn)] + str(number).encode())
    return paths


def heavy_model(folder: Path) -> Path:
    """A folder of open_clip's with ViT-B/16's picture tower, a small text tower, and random weights."""
    declare_missing_operators()
    import open_clip
    import torch
    from safetensors.torch import save_file

    torch.manual_seed(0)
    config = {
        "embed_dim": 512,
        "vision_cfg": {"image_size": 224, "layers": 12, "width": 768, "patch_size": 16},
        "text_cfg": {"context_length": 16, "vocab_size": 49408, "width": 64, "heads": 1, "layers": 1},
    }
    model = open_clip.CLIP(**config)
    folder.mkdir()
    save_file(
        {key: value.contiguous() for key, value in model.state_dict().items()},
        folder / "open_clip_model.safetensors",
    )
    about = {"model_cfg": config, "preprocess_cfg": {}}
    (folder / "open_clip_config.json").write_text(json.dumps(about))
    return folder


if __name__ == "__main__":
    main()
