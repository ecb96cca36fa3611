import click
import pytest

from popfactory.cli import cli
from spine.errors import DataError
from ui.start_form import MEANINGS, OPTIONS, words_of

ELSEWHERE = {
    "retrieve": "all but --force belong to centroids of one's own, outside a run",
    "caption": "--only, --only-from, --preview, --prompt, --model, --dry-run: the Captions page and Estimate",
    "release": "--dry-run, --diff, --check: the Release page",
}


def options_of(name: str) -> dict[str, click.Option]:
    command = cli.commands[name]
    return {each.opts[0]: each for each in command.params if isinstance(each, click.Option)}


@pytest.mark.parametrize("name", MEANINGS)
def test_the_form_has_the_options_of_the_command_in_its_own_words(name):
    real = options_of(name)
    shown = {option.name: option for option in OPTIONS[name]}

    assert {option: each.help for option, each in real.items() if option in shown} == {
        option.name: option.meaning for option in shown.values()
    }
    assert {each.name: each.least is None for each in shown.values()} == {
        option: real[option].is_flag for option in shown
    }
    if name not in ELSEWHERE:
        assert set(real) - set(shown) == {"--quiet", "--json"}


def test_what_a_page_sends_becomes_the_words_of_the_command():
    assert words_of("select") == ("select",)
    assert words_of("caption --failed-only --limit 20") == ("caption", "--failed-only", "--limit", "20")


@pytest.mark.parametrize(
    "typed",
    [
        "caption --limit",
        "caption --limit 0",
        "caption --limit -3",
        "caption --limit 1e3",
        "caption --limit ²",
        "caption --limit 9999999999",
        "caption --limit 20 20",
        "caption --force --force",
        "caption --only 5",
        "fetch --limit 20",
        "fetch /etc",
        "select  --force",
        "embed",
        "",
    ],
)
def test_nothing_else_is_started(typed):
    with pytest.raises(DataError, match="can't be started here"):
        words_of(typed)
