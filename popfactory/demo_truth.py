"""What captions of drawn pictures get right: the pictures' scenes are known, and captions can be read back."""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from popfactory.demo_world import Attributes, Kind, caption, parse_caption
from spine.places import split_place
from spine.prompts import CAPTION_PREFIX
from spine.run import Run
from spine.table_files import read_parts
from spine.tables import IMAGES


def truth_of(run: Run) -> Callable[[Mapping[int, str]], dict[str, float]] | None:
    """Judges captions of a demo run's pictures, given by picture id; None for a run that drew none."""
    path = run.drawings / "truth.jsonl"
    if not path.is_file():
        return None

    def judge(captions: Mapping[int, str]) -> dict[str, float]:
        scenes = _scenes(run, path)
        known = [number for number in sorted(captions) if number in scenes]
        replies = [captions[number] for number in known]
        figures = caption_figures([scenes[number] for number in known], replies)
        return {name: round(share, 4) for name, share in figures.items()}

    return judge


def _scenes(run: Run, path: Path) -> dict[int, Attributes]:
    """What each fetched picture that was drawn shows, by its id."""
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    said = {str((run.drawings / row["path"]).resolve()): row["caption"] for row in rows}
    images = read_parts(run.images, IMAGES, ["id", "image_path"]).to_pylist()
    found = {}
    for image in images:
        file = str(Path(split_place(image["image_path"])[0]).resolve()) if image["image_path"] else ""
        scene = parse_caption(said[file]) if file in said else None
        if scene is not None:
            found[image["id"]] = scene
    return found


def caption_figures(scenes: Sequence[Attributes], replies: Sequence[str]) -> dict[str, float]:
    """Exact shares over raw captions; object shares are over all objects there are.

    Args:
        scenes: What was drawn, one or more.
        replies: What was said of each.
    """
    read = [parse_caption(reply) for reply in replies]
    pairs = [(t, r) for t, r in zip(scenes, read, strict=True) if r is not None]
    n = max(len(scenes), 1)
    figures = {
        "begins with the prefix": sum(r.strip().startswith(CAPTION_PREFIX) for r in replies) / n,
        "parsed": len(pairs) / n,
    }
    for name in ("background", "pattern", "light", "style"):
        figures[name] = sum(getattr(t, name) == getattr(r, name) for t, r in pairs) / n
    worded = [(t, r) for t, r in pairs if t.word]
    figures["word and its place"] = sum((t.word, t.band) == (r.word, r.band) for t, r in worded) / max(
        len(worded), 1
    )
    figures["number of objects"] = sum(len(_by_cell(t)) == len(_by_cell(r)) for t, r in pairs) / n
    objects = [(kind, _by_cell(r).get(cell)) for t, r in pairs for cell, kind in _by_cell(t).items()]
    drawn = max(sum(len(_by_cell(t)) for t in scenes), 1)
    figures["object found at its place"] = sum(other is not None for _, other in objects) / drawn
    for name in ("colour", "shape", "size"):
        right = [other is not None and getattr(kind, name) == getattr(other, name) for kind, other in objects]
        figures[f"{name} right at its place"] = sum(right) / drawn
    named = sum(len(_by_cell(r)) for _, r in pairs)
    there = sum(cell in _by_cell(t) for t, r in pairs for cell in _by_cell(r))
    figures["objects named that are there"] = there / max(1, named)
    exact = [caption(t) == reply.strip() for t, reply in zip(scenes, replies, strict=True)]
    return figures | {"whole caption exact": sum(exact) / n}


def _by_cell(scene: Attributes) -> dict[int, Kind]:
    """What stands where."""
    return {cell: group.kind for group in scene.groups for cell in group.cells}
