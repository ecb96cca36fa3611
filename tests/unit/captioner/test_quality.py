import pytest

from captioner.quality import measured, repetition, word_count
from spine.caption_flags import LOOP_REPETITION

# Three that LLaVA-1.5-13b and CogVLM wrote for LAION-POP, from its published sample page.
POSING = (
    "a man wearing a blue shirt and standing with his arms crossed in front of a white wall. He is "
    "smiling and appears to be posing for a picture. The man is the only person visible in the image, and "
    "there are no other objects or characters present. The style of the image is a photograph, and there "
    "is no indication of any additional lighting or text within the frame. The man's pose and smile "
    "suggest that he is in a relaxed and positive mood."
)
BOX = (
    "a small red square box sitting on a wooden surface. The box is made of ceramic and has a smooth, "
    "glossy finish. The wooden surface beneath the box is light brown and provides a natural contrast to "
    "the vibrant red color of the box. The overall style of the image is minimalist, with a focus on the "
    "simple shapes and colors of the objects. The box and the wooden surface are the only objects in the "
    "image, creating a clean and uncluttered composition."
)
CONTAINER = (
    "a bright orange, glossy ceramic container placed against a neutral gray background. The container "
    "has a square shape with slightly rounded corners. The surface of the container reflects light, "
    "giving it a shiny appearance. The background is plain and unobtrusive, allowing the container to be "
    "the primary focus of the image."
)


def test_words_are_what_stands_between_white_space():
    assert word_count("one large red ring.\n\nThe light is even.") == 8
    assert word_count("") == 0


@pytest.mark.parametrize(
    ("caption", "speculation", "interpretation"),
    [
        (POSING, 2, 1),  # appears to, suggest; mood
        (BOX, 0, 2),  # overall, creating a
        (CONTAINER, 0, 0),
        ("a red ring. Taken in May, it shows two mayflies.", 0, 0),
        (
            '"the image is inspiring to viewers", and seeing this makes you feel joy',
            0,
            2,
        ),  # the prompt forbids
        ("This creates a unique and entertaining visual.", 0, 1),  # these three
        ("It may rain; possibly, or likely, it seems.", 4, 0),
        ("", 0, 0),
    ],
)
def test_speculation_and_interpretation_are_counted_in_captions_as_they_were_published(
    caption, speculation, interpretation
):
    quality = measured(caption)

    assert (quality.speculation, quality.interpretation) == (speculation, interpretation)
    assert not quality.refusal


def test_repetition_is_the_share_of_four_grams_that_stood_before():
    assert repetition("one two three four five six") == 0
    assert repetition("a b c d a b c d") == pytest.approx(1 / 5)  # abcd bcda cdab dabc abcd
    assert repetition("A red star. " * 20) > 0.9
    assert repetition("a b c") == repetition("") == 0
    assert max(map(repetition, (POSING, BOX, CONTAINER))) < LOOP_REPETITION


@pytest.mark.parametrize(
    "caption",
    [
        "I'm sorry, but I can't help with that.",
        "I am unable to view the image.",
        "As an AI language model I describe nothing.",
        "  “I’m sorry — no image was given.",
    ],
)
def test_refusals_are_known(caption):
    assert measured(caption).refusal


def test_a_sign_that_is_quoted_is_no_refusal():
    assert not measured("a sign that reads 'I'm sorry, we are closed' on a door.").refusal
