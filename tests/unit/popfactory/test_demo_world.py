from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from popfactory.demo_drawing import draw
from popfactory.demo_world import (
    BACKGROUNDS,
    PLACES,
    SHAPES,
    Attributes,
    Group,
    Kind,
    Scene,
    allowed_colours,
    alt_text,
    attributes,
    caption,
    parse_caption,
    random_scene,
    short_caption,
)


@pytest.fixture
def rng():
    return np.random.default_rng(11)


def plain(**changes):
    scene = Scene(
        groups=(Group(Kind("red", "star", "large"), (0, 4)), Group(Kind("blue", "ring", "small"), (8,))),
        background="cream",
        pattern="plain",
        light="even",
        style="flat",
    )
    return replace(scene, **changes)


def difference(one: Image.Image, other: Image.Image) -> float:
    return float(np.abs(np.asarray(one, dtype=float) - np.asarray(other, dtype=float)).mean())


def seen_by_clip(image: Image.Image) -> Image.Image:
    """The middle square at 72 px, as CLIP's preprocessing makes it."""
    scale = 72 / min(image.size)
    image = image.resize((round(image.width * scale), round(image.height * scale)), Image.Resampling.BICUBIC)
    left, top = (image.width - 72) // 2, (image.height - 72) // 2
    return image.crop((left, top, left + 72, top + 72))


def test_the_caption_says_all_there_is_word_for_word():
    scene = plain(light="left", style="grainy", word="OPEN", band="top")

    assert caption(scene) == (
        "This image showcases two large red stars at the top left and center; "
        "one small blue ring at the bottom right.\n\n"
        "The background is plain cream. Light falls from the left. The word OPEN is written at the top. "
        "The style is grainy."
    )


def test_the_short_caption_is_one_sentence():
    assert short_caption(plain()) == (
        "This image showcases two large red stars and one small blue ring on a plain cream background."
    )


def test_parse_caption_gives_back_what_was_captioned(rng):
    for _ in range(2000):
        scene = random_scene(rng)
        assert parse_caption(caption(scene)) == attributes(scene)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "a red star",
        "This image showcases one large red star.",
        "This image showcases one large red dog at the center.\n\nThe background is plain cream. "
        "The light is even. The style is flat.",
        "This image showcases one large red star at the end.\n\nThe background is plain cream. "
        "The light is even. The style is flat.",
        "This image showcases one large red star at the center.\n\nThe background is plain beige. "
        "The light is even. The style is flat.",
    ],
)
def test_parse_caption_refuses_what_is_not_of_this_world(text):
    assert parse_caption(text) is None


def test_scenes_keep_the_rules_of_the_world(rng):
    for _ in range(2000):
        scene = random_scene(rng)
        cells = [cell for group in scene.groups for cell in group.cells]
        kinds = [group.kind for group in scene.groups]

        assert 1 <= len(scene.groups) <= 3
        assert len(set(kinds)) == len(kinds)
        assert len(set(cells)) == len(cells) <= len(PLACES)
        assert all(kind.colour in allowed_colours(scene.background) for kind in kinds)
        assert (scene.word is None) == (scene.band is None)
        assert 0 <= scene.beauty <= 1


def test_what_is_given_to_random_scene_is_fixed(rng):
    lead = Kind("yellow", "cross", "large")

    for _ in range(200):
        scene = random_scene(rng, lead=lead, background="navy", pattern="dotted", light="top", style="flat")

        assert lead in [group.kind for group in scene.groups]
        assert (scene.background, scene.pattern, scene.light, scene.style) == (
            "navy",
            "dotted",
            "top",
            "flat",
        )


def test_marks_come_as_often_as_asked(rng):
    scenes = [random_scene(rng, p_watermark=0.3, p_unsafe=0.1, beauty=(0.6, 0.9)) for _ in range(4000)]

    assert np.mean([scene.watermark for scene in scenes]) == pytest.approx(0.3, abs=0.03)
    assert np.mean([scene.unsafe for scene in scenes]) == pytest.approx(0.1, abs=0.02)
    assert all(0.6 <= scene.beauty <= 0.9 for scene in scenes)


def test_every_background_leaves_colours_to_draw_with():
    assert all(len(allowed_colours(background)) >= 7 for background in BACKGROUNDS)


def test_alt_texts_are_short_and_vary(rng):
    texts = {alt_text(random_scene(rng), rng) for _ in range(500)}

    assert len(texts) > 200
    assert max(len(text.split()) for text in texts) <= 10


def test_the_same_scene_gives_the_same_pixels(rng):
    for _ in range(10):
        scene = random_scene(rng)
        assert draw(scene, 300, 200).tobytes() == draw(scene, 300, 200).tobytes()


@pytest.mark.parametrize(("width", "height"), [(900, 900), (1400, 900), (700, 1400), (72, 144), (301, 517)])
def test_a_picture_has_the_size_asked_for(width, height):
    image = draw(plain(unsafe=True, watermark=True, style="grainy", light="top"), width, height)

    assert (image.mode, image.size) == ("RGB", (width, height))


@pytest.mark.parametrize(("width", "height"), [(900, 1400), (1400, 900), (400, 400)])
def test_a_scene_looks_the_same_to_clip_in_every_format(rng, width, height):
    # Two scenes that differ are 60 apart; grain, resampled, is what remains here.
    for _ in range(12):
        scene = random_scene(rng, p_watermark=0.3, p_unsafe=0.3)
        assert difference(draw(scene, 72, 72), seen_by_clip(draw(scene, width, height))) < 12


@pytest.mark.parametrize(
    "changes",
    [
        {"watermark": True},
        {"unsafe": True},
        {"beauty": 0.0},
        {"light": "left"},
        {"style": "outlined"},
        {"style": "grainy"},
        {"style": "blurred"},
        {"pattern": "dotted"},
        {"word": "OPEN", "band": "top"},
        *({"groups": (Group(Kind("red", shape, "large"), (0, 4)),)} for shape in SHAPES),
    ],
)
def test_everything_a_scene_says_can_be_seen_at_72_px(changes):
    assert difference(draw(plain(beauty=1.0), 72, 72), draw(plain(**{"beauty": 1.0} | changes), 72, 72)) > 0.4


def test_a_scene_s_attributes_leave_its_marks_out():
    assert type(attributes(plain(watermark=True))) is Attributes
    assert attributes(plain(watermark=True)) == attributes(plain())
