"""Draws the demo's two collections: the pictures somebody likes, and a pool as the web has it.

The concepts have a taste: a few dozen themes, beautiful; most pictures of a few themes carry a
watermark or are unsafe, so that their neighbours give the filters work. The pool holds pictures of
those themes and others, of all sizes and qualities, near-duplicates, byte copies and dead files, in
the proportions that crawls report.
"""

import functools
import io
import json
import multiprocessing
import os
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageEnhance

from popfactory.demo_drawing import draw
from popfactory.demo_world import (
    BACKGROUNDS,
    PATTERNS,
    SHAPES,
    SIZES,
    STYLES,
    Kind,
    Scene,
    allowed_colours,
    alt_text,
    caption,
    random_scene,
)
from spine.errors import DataError
from spine.workers import interrupts_held

THEMES = 40
"""Kinds of picture the concepts consist of."""

_WATERMARKED_THEMES = (3, 13, 23)
_UNSAFE_THEMES = (7, 27)
_FORMAT = 2  # raise it when the same arguments no longer draw the same files
_MANIFEST = "collection.json"
_JPEG_QUALITY = 88
_BATCH = 50
_ODD_NAMES = (
    "two words",
    "50% off",
    "number#1",
    "été à la mer",
    "写真",
    "it's 'quoted'",
    "a+b=c&d",
    "trailing.dot.",
)
_DEAD = ("empty", "truncated", "text")


@dataclass(frozen=True, kw_only=True, slots=True)
class DrawnCollection:
    """What `draw_collection` drew. All but `concepts` count files of the pool."""

    concepts: int
    pool: int
    themed: int
    """Pictures of the concepts' themes, repeats included."""

    watermarked: int
    unsafe: int
    below_768: int
    """Of a shorter side below 768 px."""

    near_duplicates: int
    copies: int
    """Byte for byte the same as another file."""

    dead: int
    """Files that no decoder opens: empty, cut off, or not a picture."""


@dataclass(frozen=True, slots=True)
class _Item:
    """One file to draw. A worker needs nothing else, so the order of work changes nothing."""

    path: str
    seed: tuple[int, ...]
    theme: int | None
    concept: bool = False
    repeat: str = ""
    """"near" or "copy" of the file that `seed` and `theme` also belong to; else empty."""

    repeat_of: str = ""
    dead: str = ""
    """One of _DEAD, or empty."""


@dataclass(frozen=True, slots=True)
class _Drawn:
    """What came of an item: a row of truth.jsonl."""

    path: str
    theme: int | None
    beauty: float
    watermark: bool
    unsafe: bool
    width: int
    height: int
    repeat: str
    repeat_of: str
    dead: str
    caption: str
    """What a perfect captioner says of it."""


def draw_collection(
    folder: Path, *, concepts: int = 1500, pool: int = 6000, seed: int = 0, workers: int | None = None
) -> DrawnCollection:
    """Draw the demo's concepts and pool.

    Writes `folder/concepts/*.jpg` and `folder/pool/NN/*` with a .txt sidecar beside each, then
    `folder/truth.jsonl`: for each file its theme, marks, size, what it shows and what it repeats. Each file is
    written under a temporary name and renamed, `folder/collection.json` comes last. Called again
    on a finished folder it returns at once; on an unfinished one it starts over.

    Args:
        folder: Made if missing.
        concepts: Pictures to like, full captions beside them.
        pool: Files of the pool, web-like texts beside them.
        seed: Same seed and counts, same bytes, whatever the workers.
        workers: Processes; None for one a core, 1 for none but this.

    Returns:
        What was drawn. About 15 CPU ms a file.

    Raises:
        DataError: The folder holds a collection drawn with other arguments.
    """
    arguments = {"format": _FORMAT, "concepts": concepts, "pool": pool, "seed": seed}
    finished = _read_manifest(folder, arguments)
    if finished is not None:
        return finished
    folder.mkdir(parents=True, exist_ok=True)
    _write(folder / _MANIFEST, json.dumps({"arguments": arguments}).encode())
    items = _plan(concepts, pool, seed)
    for place in sorted({Path(item.path).parent for item in items}):
        (folder / place).mkdir(parents=True, exist_ok=True)
    batches = [items[start : start + _BATCH] for start in range(0, len(items), _BATCH)]
    work = functools.partial(_draw_batch, folder, seed)
    workers = workers or os.cpu_count() or 1
    if workers == 1:
        drawn = [row for batch in batches for row in work(batch)]
    else:
        with ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn")) as processes:
            with interrupts_held():
                ordered = processes.map(work, batches)
            drawn = [row for rows in ordered for row in rows]
    _write(folder / "truth.jsonl", "".join(json.dumps(asdict(row)) + "\n" for row in drawn).encode())
    counts = _count(drawn)
    _write(
        folder / _MANIFEST, json.dumps({"arguments": arguments, "drawn": asdict(counts)}, indent=1).encode()
    )
    return counts


def _read_manifest(folder: Path, arguments: dict[str, int]) -> DrawnCollection | None:
    path = folder / _MANIFEST
    if not path.exists():
        return None
    manifest = json.loads(path.read_text())
    if manifest["arguments"] != arguments:
        raise DataError(
            f"{folder}: holds a collection drawn with {manifest['arguments']}, {arguments} were asked for; "
            "give another folder or delete this one"
        )
    return DrawnCollection(**manifest["drawn"]) if "drawn" in manifest else None


def _plan(concepts: int, pool: int, seed: int) -> list[_Item]:
    rng = np.random.default_rng((seed, 0))
    items = [
        _Item(f"concepts/concept-{k:05d}.jpg", (seed, 1, k), int(rng.integers(THEMES)), concept=True)
        for k in range(concepts)
    ]
    originals: list[_Item] = []
    for k in range(pool):
        place = f"pool/{k * 10 // pool:02d}"
        path = f"{place}/{k:06d}{rng.choice(('.jpg', '.png', '.webp'), p=(0.95, 0.03, 0.02))}"
        fate = rng.random()
        if fate < 0.06 and originals:
            first = originals[int(rng.integers(len(originals)))]
            path = path[: path.rindex(".")] + ".jpg"
            items.append(_Item(path, first.seed, first.theme, repeat="near", repeat_of=first.path))
        elif fate < 0.075 and originals:
            first = originals[int(rng.integers(len(originals)))]
            path = path[: path.rindex(".")] + Path(first.path).suffix
            items.append(_Item(path, first.seed, first.theme, repeat="copy", repeat_of=first.path))
        elif fate < 0.09:
            path = path[: path.rindex(".")] + ".jpg"
            items.append(_Item(path, (seed, 2, k), None, dead=_DEAD[int(rng.integers(len(_DEAD)))]))
        else:
            if fate > 0.995:
                path = f"{place}/{_ODD_NAMES[int(rng.integers(len(_ODD_NAMES)))]} {k}.jpg"
            item = _Item(path, (seed, 2, k), int(rng.integers(THEMES)) if rng.random() < 0.45 else None)
            items.append(item)
            originals.append(item)
    return items


@functools.lru_cache(maxsize=4)
def _themes(seed: int) -> tuple[tuple[Kind, str, str, str], ...]:
    """Leading kind, background, pattern and style of each theme."""
    rng = np.random.default_rng((seed, 3))
    themes = []
    for _ in range(THEMES):
        background = str(rng.choice(list(BACKGROUNDS)))
        kind = Kind(
            str(rng.choice(allowed_colours(background))), str(rng.choice(SHAPES)), str(rng.choice(SIZES))
        )
        themes.append((kind, background, str(rng.choice(PATTERNS)), str(rng.choice(STYLES))))
    return tuple(themes)


def _draw_batch(folder: Path, seed: int, items: list[_Item]) -> list[_Drawn]:
    return [_draw_item(folder, seed, item) for item in items]


def _draw_item(folder: Path, seed: int, item: _Item) -> _Drawn:
    rng = np.random.default_rng(item.seed)
    scene = _scene(rng, seed, item)
    width, height = _size(rng, item.concept)
    image = draw(scene, width, height)
    # A repeat's own chances come from its own name: the rest is its original's.
    own = np.random.default_rng((*item.seed, *item.path.encode()))
    if item.repeat == "near":
        image = _altered(image, own)
    suffix = Path(item.path).suffix if item.repeat != "near" else ".jpg"
    content = _encoded(
        image, suffix, quality=int(own.integers(70, 96)) if item.repeat == "near" else _JPEG_QUALITY
    )
    if item.dead:
        cut = content[: len(content) // 3] if item.dead == "truncated" else b"<html>404 Not Found</html>"
        content = b"" if item.dead == "empty" else cut
    text = caption(scene) if item.concept else alt_text(scene, own)
    _write(folder / item.path, content)
    _write(folder / f"{item.path[: item.path.rindex('.')]}.txt", text.encode())
    return _Drawn(
        path=item.path,
        theme=item.theme,
        beauty=scene.beauty,
        watermark=scene.watermark,
        unsafe=scene.unsafe,
        width=image.width,
        height=image.height,
        repeat=item.repeat,
        repeat_of=item.repeat_of,
        dead=item.dead,
        caption=caption(scene),
    )


def _scene(rng: np.random.Generator, seed: int, item: _Item) -> Scene:
    beauty, p_watermark, p_unsafe = (0.0, 1.0), 0.08, 0.04
    if item.concept:
        beauty = (0.6, 1.0)
        p_watermark = 0.8 if item.theme in _WATERMARKED_THEMES else 0.0
        p_unsafe = 0.8 if item.theme in _UNSAFE_THEMES else 0.0
    if item.theme is None:
        return random_scene(rng, p_watermark=p_watermark, p_unsafe=p_unsafe, beauty=beauty)
    lead, background, pattern, style = _themes(seed)[item.theme]
    return random_scene(
        rng,
        lead=lead,
        background=background,
        pattern=pattern,
        style=style,
        p_watermark=p_watermark,
        p_unsafe=p_unsafe,
        beauty=beauty,
    )


def _size(rng: np.random.Generator, concept: bool) -> tuple[int, int]:
    """Width and height in pixels: of pool pictures a third is under 768 px, the rule LAION-POP had."""
    if concept:
        side, aspect = int(rng.integers(400, 641)), rng.uniform(1.0, 1.34)
    elif rng.random() < 0.33:
        side, aspect = int(rng.integers(256, 768)), rng.uniform(1.0, 2.0)
    else:
        # Mostly just above the rule, seldom up to 1,200 px.
        side, aspect = int(768 + 432 * rng.random() ** 5), 1.0 + rng.random() ** 3
    longer = int(side * aspect)
    return (longer, side) if rng.random() < 0.6 else (side, longer)


def _altered(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Somebody else's upload of the same picture: scaled, a little cropped, a little brighter or darker."""
    scale = float(rng.choice((0.6, 0.8, 1.0, 1.15)))
    left, top, right, bottom = rng.uniform(0, 0.02, 4) * min(image.size)
    image = image.crop((int(left), int(top), image.width - int(right), image.height - int(bottom)))
    if scale != 1.0:
        size = (round(image.width * scale), round(image.height * scale))
        image = image.resize(size, Image.Resampling.BILINEAR)
    return ImageEnhance.Brightness(image).enhance(float(rng.uniform(0.93, 1.07)))


def _encoded(image: Image.Image, suffix: str, quality: int) -> bytes:
    file = io.BytesIO()
    if suffix == ".png":
        image.save(file, "PNG", compress_level=1)
    elif suffix == ".webp":
        image.save(file, "WEBP", quality=80, method=0)
    else:
        image.save(file, "JPEG", quality=quality)
    return file.getvalue()


def _write(path: Path, content: bytes) -> None:
    draft = path.with_name(path.name + ".part")
    draft.write_bytes(content)
    draft.replace(path)


def _count(drawn: list[_Drawn]) -> DrawnCollection:
    pool = [row for row in drawn if not row.path.startswith("concepts/")]
    alive = [row for row in pool if not row.dead]
    return DrawnCollection(
        concepts=len(drawn) - len(pool),
        pool=len(pool),
        themed=sum(row.theme is not None for row in alive),
        watermarked=sum(row.watermark for row in alive),
        unsafe=sum(row.unsafe for row in alive),
        below_768=sum(min(row.width, row.height) < 768 for row in alive),
        near_duplicates=sum(row.repeat == "near" for row in alive),
        copies=sum(row.repeat == "copy" for row in alive),
        dead=sum(bool(row.dead) for row in pool),
    )
