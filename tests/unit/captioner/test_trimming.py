import pytest
from hypothesis import given
from hypothesis import strategies as st

from captioner.trimming import trim_prefix
from spine.prompts import CAPTION_PREFIX


@pytest.mark.parametrize(
    ("text", "caption"),
    [
        ("This image showcases a red star.", "a red star."),
        (" This image showcases a red star.", "a red star."),
        ("this  IMAGE\nshowcases: A red star.", "A red star."),
        ("‘This image showcases’: a red star.", "a red star."),
        ("'This image showcases' a red star.", "a red star."),
        ("“This image showcases”, a red star.", "a red star."),
        ('"This image showcases:" a red star.', "a red star."),
        ("“This image showcases a red star.”", "a red star."),
        ('"This image showcases a red star', "a red star"),
        ("This image showcases", ""),
        ("This image showcases:", ""),
        ('This image showcases "STOP" on a sign', '"STOP" on a sign'),
        ("'This image showcases a star's \"glow\"", 'a star\'s "glow"'),
        ('This image showcases a bar. It says "OPEN"', 'a bar. It says "OPEN"'),
        ("This image showcases one.\n\nThe light is even.", "one.\n\nThe light is even."),
    ],
)
def test_the_prefix_goes_with_its_quotes_and_colon_and_nothing_else(text, caption):
    assert trim_prefix(text, CAPTION_PREFIX) == (caption, True)


@pytest.mark.parametrize(
    "text",
    [
        "This image showcasesman at work",
        "This image shows a red star.",
        "Here, This image showcases a star.",
        "Showcases a star",
        "",
        "  A star. This image showcases it.",
    ],
)
def test_what_is_not_the_prefix_stays(text):
    assert trim_prefix(text, CAPTION_PREFIX) == (text.strip(), False)


def test_a_prompt_without_prefix_trims_only_white_space():
    assert trim_prefix(" This image showcases ", "") == ("This image showcases", False)


@given(st.text())
def test_whatever_follows_the_prefix_is_kept_as_it_is(rest):
    text, found = trim_prefix(f"{CAPTION_PREFIX} a{rest}", CAPTION_PREFIX)

    assert (text, found) == (f"a{rest}".strip(), True)


@given(st.text())
def test_a_text_that_does_not_begin_with_the_prefix_loses_white_space_alone(text):
    letters = "".join(sign for sign in text.casefold() if sign.isalnum())
    if not letters.startswith("thisimageshowcases"):
        assert trim_prefix(text, CAPTION_PREFIX) == (text.strip(), False)


@given(st.text(), st.text())
def test_a_caption_is_always_a_part_of_what_the_model_said(text, prefix):
    assert trim_prefix(text, prefix)[0] in text
