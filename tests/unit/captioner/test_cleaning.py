import pytest

from captioner.cleaning import cleaned, sentences
from captioner.quality import measured

LIKE_LAION = (
    "a man wearing a grey jacket, standing in a park. He is smiling and appears to be posing for a picture. The jacket "
    "has two buttons.\n\nThe park creates a pleasant backdrop. Overall, the light comes from the left. The overall "
    "style of the image is a photograph."
)


def test_sentences_end_where_a_reader_would_say_so():
    said = 'A sign says "Open 24 h." Two cats sit.\n\nThe style is flat! (A 3.5 cm star.) is it?  Yes'

    assert sentences(said) == [
        'A sign says "Open 24 h."',
        "Two cats sit.",
        "The style is flat!",
        "(A 3.5 cm star.)",
        "is it?",
        "Yes",
    ]
    assert sentences("one") == ["one"] and sentences(" \n ") == []


def test_only_whole_sentences_go_and_paragraphs_stay_apart():
    assert cleaned(LIKE_LAION) == (
        "a man wearing a grey jacket, standing in a park. The jacket has two buttons.\n\n"
        "The light comes from the left. The style of the image is a photograph."
    )


@pytest.mark.parametrize(
    ("caption", "left"),
    [
        ("two red stars.", "two red stars."),
        ("it seems old. It may be a barn.", ""),
        ("Overall, it evokes calm.", ""),
        ("a sign with overalls on it.", "a sign with overalls on it."),
        ("taken in May.\nA 3.5 cm ring.", "taken in May.\n\nA 3.5 cm ring."),
        ("", ""),
    ],
)
def test_what_is_left_neither_speculates_nor_interprets(caption, left):
    found = cleaned(caption)

    assert found == left
    assert measured(found).speculation == measured(found).interpretation == 0
    assert cleaned(found) == found
