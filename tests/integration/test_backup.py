"""Backups of a run that is being worked on; sixteen curators at once."""

import multiprocessing
import time
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner

from curation.backup import backup
from curation.decisions import Decisions
from curation.events import Event
from curation.fetched_images import fetch
from popfactory.cli import cli
from spine.added_centroids import added_centroids
from spine.config import load_config
from spine.errors import DataError
from spine.manifest import verify
from spine.run import Run
from spine.settings import CaptionConfig
from tests.integration.curation_runs import CONFIG, Planted, local, plant, with_lists
from tests.unit.spine.test_added_centroids import add

CURATORS, EACH = 16, 12


def work(path: Path, curator: int, started) -> None:
    """One curator's deeds, one batch after another; what was acknowledged is written down."""
    started.wait()
    decisions = Decisions.open(path)
    acknowledged = path.with_name(f"acknowledged-{curator}")
    with acknowledged.open("a") as file:
        for seq in range(1, EACH + 1):
            event = Event(
                client=f"tab-{curator}",
                seq=seq,
                curator=f"curator-{curator}",
                action="keep" if seq % 2 else "reject",
                target="image",
                ids=(1000 * curator + seq, 999_999),  # and one that all of them decide on
                last_seen=decisions.last_event(),
            )
            outcome = decisions.record([event])
            file.write(f"{outcome.recorded.get(seq, 0)} {1000 * curator + seq}\n")
            file.flush()


@pytest.fixture
def run(tmp_path: Path) -> Run:
    run = plant(tmp_path / "run", [Planted(0, rank, local(tmp_path / "pool", rank)) for rank in range(4)])
    fetch(run)
    return run


def test_sixteen_curators_at_once_lose_nothing_and_a_backup_meanwhile_is_whole(run, tmp_path):
    context = multiprocessing.get_context("spawn")
    started = context.Event()
    curators = [
        context.Process(target=work, args=(run.decisions, number, started)) for number in range(CURATORS)
    ]
    for curator in curators:
        curator.start()
    started.set()
    while not Decisions.open(run.decisions).last_event():
        time.sleep(0.01)
    copies = []
    while any(curator.is_alive() for curator in curators) and len(copies) < 20:
        known = Decisions.open(run.decisions).last_event()
        made = backup(run, tmp_path / f"copy-{len(copies)}")
        copies.append((known, made))
    for curator in curators:
        curator.join()

    assert [curator.exitcode for curator in curators] == [0] * CURATORS
    events = Decisions.open(run.decisions).history()
    assert [event.event for event in events] == list(range(1, len(events) + 1))
    own = {(event.curator, each) for event in events for each in event.ids if each != 999_999}
    assert own == {(f"curator-{c}", 1000 * c + seq) for c in range(CURATORS) for seq in range(1, EACH + 1)}
    images = Decisions.open(run.decisions).fold().images
    assert len(images) == CURATORS * EACH + 1
    for number in range(CURATORS):
        for line in (run.folder / f"acknowledged-{number}").read_text().splitlines():
            event, picture = map(int, line.split())
            assert picture in events[event - 1].ids
    assert copies[0][0] < len(events), "the first copy was made while they wrote"
    for known, made in copies:
        kept = Decisions.open(made.folder / "decisions.sqlite").history()
        assert made.events == len(kept) >= known
        assert kept == events[: len(kept)]


def test_a_backup_holds_what_people_made_and_with_everything_the_finished_stages(run, tmp_path):
    run.prompts.write_text('[terse]\ntext = "What is it?"\n')
    with_lists(run, replace(CONFIG, caption=CaptionConfig(prompt="terse")), takedown="12345")
    add(run)
    decisions = Decisions.open(run.decisions)
    decisions.record([Event(client="a", seq=1, curator="ada", action="keep", target="image", ids=(1,))])

    told = CliRunner().invoke(
        cli, ["backup", str(run.folder), str(tmp_path / "copy")], catch_exceptions=False
    )
    whole = backup(run, tmp_path / "whole", everything=True)

    copy = Run(tmp_path / "copy")
    assert "decisions up to event 1, 1 added concepts" in told.output
    assert copy.config.read_bytes() == run.config.read_bytes()
    assert load_config(copy.config).caption.prompt == "terse", "a prompt of the run's own is there too"
    assert Decisions.open(copy.decisions).history() == decisions.history()
    assert added_centroids(copy) == added_centroids(run)
    assert (copy.folder / "takedown.txt").read_text() == "12345"
    assert not copy.images.exists()
    assert whole.stages == ("centroids", "neighbours", "images")
    assert verify(Run(whole.folder).images) == []
    assert fetch(Run(whole.folder)).counts["fetched"] == 4


def test_a_backup_appears_whole_or_not_at_all(run, tmp_path):
    (tmp_path / "there").mkdir()
    with pytest.raises(DataError, match="there already"):
        backup(run, tmp_path / "there")
    run.decisions.write_bytes(b"no database" * 1000)
    with pytest.raises(DataError, match="restore an earlier backup"):
        backup(run, tmp_path / "copy")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["pool", "run", "there"]
