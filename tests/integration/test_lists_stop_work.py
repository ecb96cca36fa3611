"""A list that can't be read stops every command that could keep, show or publish what it names, before any work."""

from pathlib import Path

import pytest
from click.testing import CliRunner

from curation.fetched_images import fetch
from curation.release import release
from curation.selection import select
from popfactory.cli import cli
from spine.errors import ConfigError
from spine.publish import sha256_of
from spine.run import Run
from spine.table_files import read_parts
from spine.tables import IMAGES
from tests.integration.curation_runs import CONFIG, Planted, caption_all, local, plant, score_all, with_lists


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("lists")
    made = plant(folder / "run", [Planted(0, rank, local(folder / "pool", rank)) for rank in range(3)])
    fetch(made)
    score_all(made)
    select(made)
    caption_all(made)
    release(made)
    with_lists(made, CONFIG)
    return made


def published(run: Run) -> dict[Path, str]:
    folders = (run.images, run.selection, run.releases)
    return {path: sha256_of(path) for each in folders for path in each.rglob("*") if path.is_file()}


@pytest.mark.parametrize("damage", ["missing", "no entry", "no text"])
@pytest.mark.parametrize(
    "command",
    [
        ["fetch", "RUN"],
        ["select", "RUN"],
        ["release", "RUN"],
        ["release", "RUN", "--check"],
        ["release", "RUN", "--diff", "pop-1.0"],
        ["why", "RUN", "ID"],
    ],
    ids=" ".join,
)
def test_an_unreadable_list_stops(run, command, damage):
    path = run.folder / "takedown.txt"
    if damage == "missing":
        path.unlink(missing_ok=True)
    else:
        path.write_bytes(b"what is this?\n" if damage == "no entry" else b"\xff\xfe")
    picture = read_parts(run.images, IMAGES, ["id"])["id"][0].as_py()
    before = published(run)

    meant = {"RUN": str(run.folder), "ID": str(picture)}
    done = CliRunner().invoke(cli, [meant.get(each, each) for each in command])

    assert isinstance(done.exception, ConfigError), done.output
    assert str(path) in str(done.exception) and "\n" not in str(done.exception)
    assert published(run) == before
