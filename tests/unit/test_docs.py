"""What the documents promise exists, and what exists is in the documents."""

import re
from dataclasses import fields
from pathlib import Path

import click
import pytest

from popfactory.cli import _SECTIONS, cli
from spine.filters import RULES
from spine.settings import Config
from spine.tables import CAPTIONS, IMAGES, NEIGHBOURS, SELECTION

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = {
    path.relative_to(ROOT).as_posix(): path.read_text()
    for path in [ROOT / "README.md", *ROOT.glob("docs/*.md")]
}
ALL = "\n".join(DOCUMENTS.values())


@pytest.mark.parametrize("name", sorted(cli.commands))
def test_every_command_is_in_the_docs_and_explains_itself(name):
    assert f"`popfactory {name}" in DOCUMENTS["docs/commands.md"]
    command = cli.commands[name]
    assert command.help and "Example:" in command.help


def test_the_help_lists_every_command_once_on_a_line_of_its_own():
    listed = [name for names in _SECTIONS.values() for name in names]
    assert sorted(listed) == sorted(cli.commands)
    for name in listed:
        told = cli.commands[name].get_short_help_str(80)
        assert len(told) <= 80 - 2 - max(map(len, listed)) - 2 and not told.endswith("..."), (name, told)


def test_every_option_says_what_it_is_for():
    for name, command in cli.commands.items():
        assert [
            each.name for each in command.params if isinstance(each, click.Option) and not each.help
        ] == [], name


def test_every_command_in_the_docs_exists_with_its_options():
    for line in re.findall(r"popfactory ([a-z]+[^\n`|]*)", ALL):
        words = line.split()
        if words[0] not in cli.commands:
            assert words[0] in {"is", "and", "reads", "sets", "says", "resolves", "over", "itself"}, line
            continue
        known = {
            flag
            for option in cli.commands[words[0]].params
            if isinstance(option, click.Option)
            for flag in option.opts
        }
        for word in words[1:]:
            if word.startswith("--") and len(word) > 2:
                assert word.rstrip(".,;)") in known | {"--help"}, line


def test_settings_named_in_the_docs_exist():
    known = {(table.name, item.name) for table in fields(Config) for item in fields(table.default_factory)}
    for table, key in re.findall(r"`\[(\w+)\] (\w+)", ALL):
        assert (table, key) in known, f"[{table}] {key}"


def test_every_rule_of_select_is_explained():
    table = DOCUMENTS["docs/curation.md"].partition("## Select")[2]
    assert [rule for rule in RULES if f"`{rule}`" not in table] == []


def test_links_between_documents_lead_somewhere():
    for name, text in DOCUMENTS.items():
        for target in re.findall(r"\]\((?!https?:|#)([^)#]+)", text):
            assert ((ROOT / name).parent / target).exists(), f"{name}: {target}"


def test_tables_keep_the_words_of_the_field():
    assert NEIGHBOURS.names[:4] == ["centroid_id", "rank", "id", "similarity"]
    for schema in (NEIGHBOURS, IMAGES, SELECTION, CAPTIONS):
        assert not {"distance", "score", "feature"} & set(schema.names)
