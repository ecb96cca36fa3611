from dataclasses import replace

import numpy as np
import pytest

from popfactory.demo_world import Group, Kind, Scene, caption
from training.evaluate import area_under_curve, caption_figures, held_out

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
    scenes = held_out(0, 50)

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


def test_area_under_curve_counts_the_pairs_in_order():
    rng = np.random.default_rng(0)
    scores, truth = rng.random(200), rng.random(200) < 0.3

    wanted = (scores[truth][:, None] > scores[~truth][None]).mean()

    assert area_under_curve(scores, truth) == pytest.approx(wanted)
