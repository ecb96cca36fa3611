"""Curation's stages, and a picture's story."""

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from popfactory.commands.frame import RUN, report, result_options, stage_command, working

if TYPE_CHECKING:
    from spine.manifest import Manifest
    from spine.run import Run


def _select(run: "Run", **options: Any) -> "Manifest":
    from curation.selection import require_selected, select

    manifest = select(run, **options)
    require_selected(run)
    return manifest


@click.command()
@RUN
@click.option("--retry-failed", is_flag=True, help="Ask again what gave nothing but may another time.")
@click.option("--full-size", is_flag=True, help="With two-step fetch: the full size of what is selected.")
@click.option("--force", is_flag=True, help="Start over.")
@result_options
def fetch(run: Path, retry_failed: bool, full_size: bool, force: bool, quiet: bool, as_json: bool) -> None:
    """Bring in the neighbours' pictures.

    Reads RUN/neighbours, writes RUN/images. --retry-failed asks addresses again that timed out, were busy or
    could not be reached; a picture that is gone is not asked for twice. With [fetch] mode "two-step" small
    copies are kept, and --full-size brings in what RUN/selection took; score and select again after it.

    \b
    Example:
        popfactory fetch runs/pop-1 --retry-failed
    """
    from curation.fetch_plan import selected_ids
    from curation.fetched_images import fetch as fetch_stage

    with working(run, ["fetch", str(run)], quiet) as (opened, progress):
        wanted = selected_ids(opened).tolist() if full_size else None
        manifest = fetch_stage(
            opened, full_size=wanted, force=force, retry_failed=retry_failed, progress=progress
        )
    report(manifest, quiet, as_json)


@click.command()
@RUN
@result_options
def links(run: Path, quiet: bool, as_json: bool) -> None:
    """Ask the addresses of downloads again: alive, changed or gone.

    Reads RUN/images, writes RUN/links, and leaves the pictures as they are. Stopped, it goes on; done, it begins
    anew.

    \b
    Example:
        popfactory links runs/pop-1
    """
    from curation.links import check_links

    with working(run, ["links", str(run)], quiet) as (opened, progress):
        manifest = check_links(opened, progress=progress)
    report(manifest, quiet, as_json)


select = stage_command(
    "select",
    _select,
    "RUN/neighbours, images, scores and the curators' decisions",
    "RUN/selection",
    "Decide on every candidate: filters, people, quota.",
)


@click.command()
@RUN
@click.argument("new", required=False, metavar="[NEW]")
@click.option(
    "--dry-run", is_flag=True, help="Say what would be published, and how it differs; write nothing."
)
@click.option("--diff", metavar="OLD", help="Tell what differs between OLD and NEW, or the newest, and why.")
@click.option("--check", is_flag=True, help="Name rows of all releases that a list blocks by now.")
@click.option("--force", is_flag=True, help="Make the newest revision anew, in its place.")
@result_options
def release(
    run: Path,
    new: str | None,
    dry_run: bool,
    diff: str | None,
    check: bool,
    force: bool,
    quiet: bool,
    as_json: bool,
) -> None:
    """Publish the dataset with its card.

    Reads all of RUN, writes RUN/release/NAME-VERSION. What is published stays: rows that differ make the
    version's next revision, NAME-VERSION+1. --dry-run, --diff and --check only read.

    \b
    Example:
        popfactory release runs/pop-1
        popfactory release runs/pop-1 --diff pop-1.0
        popfactory release runs/pop-1 --diff pop-1.0 pop-1.0+1
    """
    from popfactory.report import tell_difference, tell_draft
    from spine.run import Run

    if new is not None and diff is None:
        raise click.UsageError(f"{new}: a second release is named only with --diff")
    if check:
        _check_lists(Run(run).require(), as_json)
        return
    if dry_run or diff is not None:
        opened = Run(run).require()
        if diff is not None:
            click.echo(tell_difference(opened, diff, new, as_json=as_json))
        else:
            click.echo(tell_draft(opened, as_json=as_json))
        return
    from curation.release import release as release_stage

    with working(run, ["release", str(run)], quiet) as (opened, progress):
        manifest = release_stage(opened, force=force, progress=progress)
    report(manifest, quiet, as_json)


def _check_lists(run: "Run", as_json: bool) -> None:
    from popfactory.report import blocked_json, listed_rows, tell_blocked

    found = listed_rows(run)
    click.echo(json.dumps(blocked_json(run, found)) if as_json else tell_blocked(run, found))
    if found:
        sys.exit(1)


@click.command()
@RUN
@click.option("--text", default="", help="What it should look like, in words.")
@click.option("--example", default="", metavar="ID|FILE", help="A picture of this run, or a file.")
@click.option("--label", default="", help="What to call it.")
@click.option("--curator", required=True, metavar="NAME", help="Who adds it.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def concept(run: Path, text: str, example: str, label: str, curator: str, as_json: bool) -> None:
    """Add a centroid of your own, by a text or an example.

    Reads RUN/centroids and the model of [clip], writes a file in RUN/added. The next `popfactory run RUN`
    finds its neighbours and fills it like any other; who wants it no more leaves it out on the board.

    \b
    Example:
        popfactory concept runs/pop-1 --text "a lighthouse in fog" --curator ada
    """
    from index_builder.concepts import add_concept
    from spine.run import Run

    number = add_concept(Run(run).require(), curator=curator, text=text, example=example, label=label)
    told = f"centroid {number} added; `popfactory run {run}` fills it"
    click.echo(json.dumps({"centroid_id": number}) if as_json else told)


@click.command(context_settings={"ignore_unknown_options": True})  # an id may begin with a minus sign
@RUN
@click.argument("picture_id", metavar="ID", type=int)
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def why(run: Path, picture_id: int, as_json: bool) -> None:
    """Tell one picture's whole story, and why it is in or out.

    \b
    Example:
        popfactory why runs/pop-1 -1234567890123456789
    """
    from curation.story import why as story
    from spine.run import Run

    lines = story(Run(run).require(), picture_id)
    told = json.dumps({"id": picture_id, "story": lines}, ensure_ascii=False)
    click.echo(told if as_json else "\n".join(lines))


COMMANDS = (concept, fetch, links, select, release, why)
