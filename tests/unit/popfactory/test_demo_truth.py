"""What captions of drawn pictures get right, on scenes whose captions are known by hand."""

import json
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest

from popfactory.demo_truth import caption_figures, truth_of
from popfactory.demo_world import Group, Kind, Scene, caption, random_scene
from spine.places import place_of
from spine.publish import publish_table
from spine.run import Run, part_path
from spine.tables import IMAGES

SCENE = Scene(
    groups=(Group(Kind("red", "star", "large"), (0, 4)), Group(Kind("blue", "ring", "small"), (8,))),
    background="cream",
    pattern="plain",
    light="even",
    style="flat",
    word="OPEN",
    band="top",
)


def test_perfect_captions_get_full_marks():
    rng = np.random.default_rng(5)
    scenes = [random_scene(rng) for _ in range(50)]

    figures = caption_figures(scenes, [" " + caption(scene) for scene in scenes])

    assert set(figures.values()) == {1.0}


def test_a_wrong_colour_costs_the_colour_and_the_whole_caption_alone():
    wrong = replace(SCENE, groups=(SCENE.groups[0], Group(Kind("green", "ring", "small"), (8,))))

    figures = caption_figures([SCENE], [caption(wrong)])

    assert figures["colour right at its place"] == pytest.approx(2 / 3)
    assert figures["whole caption exact"] == 0
    assert figures["object found at its place"] == figures["shape right at its place"] == 1


def test_an_invented_and_a_missed_object_are_both_seen():
    wrong = replace(SCENE, groups=(Group(Kind("red", "star", "large"), (0, 5)), SCENE.groups[1]))

    figures = caption_figures([SCENE], [caption(wrong)])

    assert figures["object found at its place"] == pytest.approx(2 / 3)
    assert figures["objects named that are there"] == pytest.approx(2 / 3)


def test_an_unreadable_caption_counts_as_wrong_everywhere():
    figures = caption_figures([SCENE, SCENE], [caption(SCENE), "This image showcases nothing."])

    assert figures["begins with the prefix"] == 1
    assert figures["parsed"] == figures["background"] == figures["object found at its place"] == 0.5


def test_a_demo_runs_captions_are_judged_by_the_picture_they_are_of(tmp_path):
    run, rng = Run(tmp_path), np.random.default_rng(7)
    scenes = {f"pool/{number} ü.jpg": random_scene(rng) for number in range(3)}
    run.drawings.mkdir()
    truth = [{"path": path, "caption": caption(scene)} for path, scene in scenes.items()]
    (run.drawings / "truth.jsonl").write_text("".join(json.dumps(row) + "\n" for row in truth))
    rows = [
        dict.fromkeys(IMAGES.names) | {"id": number, "image_path": place_of(str(run.drawings / path))}
        for number, path in enumerate(scenes)
    ]
    rows.append(dict.fromkeys(IMAGES.names) | {"id": 99, "image_path": "/elsewhere/a.jpg"})
    publish_table(part_path(run.images, 0), pa.Table.from_pylist(rows, IMAGES))
    said = {number: caption(scene) for number, scene in enumerate(scenes.values())}

    judge = truth_of(run)

    assert set(judge(said | {99: "a photograph"}).values()) == {1.0}
    assert judge({0: said[0], 1: said[2]})["whole caption exact"] == 0.5
    assert truth_of(Run(tmp_path / "other")) is None
