"""A whole run: start it, bring it up to date, look at it."""

import json
import sys
from dataclasses import asdict
from pathlib import Path

import click

from popfactory.commands.frame import RUN, result_options, working


@click.command()
@RUN
@click.option("--preset", default="standard", show_default=True, help="standard or laion-pop-2023.")
@click.option("--concepts", default="", help="Pictures that set the taste: folder, tars or Parquet.")
@click.option("--pool", default="", help="Pictures to search: folder, tars or Parquet.")
@click.option("--demo-models", is_flag=True, help="Use the small models that come with popfactory.")
@click.option("--force", is_flag=True, help="Write over the settings that are there.")
def init(run: Path, preset: str, concepts: str, pool: str, demo_models: bool, force: bool) -> None:
    """Write RUN/popfactory.toml: every setting with its meaning.

    The settings name the real models (ViT-L-14 of openai, LLaVA-1.5). --demo-models names the small ones that
    come with popfactory instead: they know only drawn scenes, and every card and page of such a run says so.

    \b
    Example:
        popfactory init runs/pop-1 --preset laion-pop-2023 --concepts midjourney/ --pool photos/
    """
    from popfactory.settings_file import start_run

    written = start_run(run, preset, concepts=concepts, pool=pool, demo_models=demo_models, force=force)
    click.echo(f"{written}: written; look it over, then `popfactory run {run}`")


@click.command()
@RUN
@result_options
def run(run: Path, quiet: bool, as_json: bool) -> None:
    """Bring every stage of RUN up to date, in order, and release.

    Does only what isn't done: stopped at any moment and started again, it goes on from there.

    \b
    Example:
        popfactory run runs/pop-1
    """
    from popfactory.pipeline import run_pipeline
    from popfactory.report import funnel_lines, outcome_json

    with working(run, ["run", str(run)], quiet) as (opened, progress):
        outcomes = run_pipeline(opened, progress=progress)
    if as_json:
        click.echo(json.dumps(outcome_json(opened, outcomes), ensure_ascii=False))
    elif not quiet:
        if not any(outcome.worked for outcome in outcomes):
            click.echo(f"{run}: every stage is up to date; nothing to do")
        click.echo("\n".join(funnel_lines(opened)))
        click.echo(f"release: {run / outcomes[-1].manifest.facts['folder']}")


@click.command()
@click.argument("run", type=click.Path(path_type=Path, file_okay=False), default=Path("demo-run"))
@click.option("--concepts", default=1500, show_default=True, help="Pictures of taste to draw.")
@click.option("--pool", default=6000, show_default=True, help="Pictures to search to draw.")
@click.option("--seed", default=0, show_default=True, help="Same seed, same pictures.")
@click.option("--ui", is_flag=True, help="Open the board on the run afterwards.")
@result_options
def demo(run: Path, concepts: int, pool: int, seed: int, ui: bool, quiet: bool, as_json: bool) -> None:
    """Run the whole factory on pictures it draws itself.

    Without data, network or GPU: draws a collection of taste and a larger pool, runs every stage on the small models
    that come with popfactory, prints the funnel and three captions, and leaves a release in RUN (demo-run by default).

    \b
    Example:
        popfactory demo --ui
    """
    from popfactory.demo import demo_lines, prepare
    from popfactory.pipeline import run_pipeline
    from popfactory.report import outcome_json

    prepare(run, concepts=concepts, pool=pool, seed=seed, say=None if quiet or as_json else click.echo)
    with working(run, ["demo", str(run)], quiet) as (opened, progress):
        outcomes = run_pipeline(opened, progress=progress)
    if as_json:
        click.echo(json.dumps(outcome_json(opened, outcomes), ensure_ascii=False))
    elif not quiet:
        click.echo("\n".join(demo_lines(opened)))
    if ui:
        from ui.serving import serve as serve_board

        serve_board(opened)


@click.command()
@RUN
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def status(run: Path, as_json: bool) -> None:
    """Show what is finished in RUN, its funnel and its jobs.

    \b
    Example:
        popfactory status runs/pop-1
    """
    from popfactory.report import status_json, status_lines
    from spine.run import Run

    opened = Run(run).require()
    click.echo(
        json.dumps(status_json(opened), ensure_ascii=False) if as_json else "\n".join(status_lines(opened))
    )


@click.command()
@RUN
@click.option(
    "--remove-damaged", is_flag=True, help="Take damaged files away, so that stages make them anew."
)
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def verify(run: Path, remove_damaged: bool, as_json: bool) -> None:
    """Compare every published file of RUN with its digest.

    RUN may be the folder of one release as well, wherever it lies. Exits 1 where a file differs or is missing.
    --remove-damaged takes what differs away, and with it the stage's manifest: run again, the stage makes anew
    what is missing and keeps the rest. Releases are left alone: they are made anew with `release --force`.

    \b
    Example:
        popfactory verify runs/pop-1 --remove-damaged
        popfactory verify downloads/pop-1.0
    """
    from popfactory.report import verified

    found = verified(run, remove_damaged=remove_damaged)
    click.echo(json.dumps(asdict(found), ensure_ascii=False) if as_json else found.told())
    if found.damaged:
        sys.exit(1)


@click.command()
@RUN
@click.argument("target", type=click.Path(path_type=Path))
@click.option("--everything", is_flag=True, help="Copy the finished stages and releases too.")
@click.option("--quiet", is_flag=True, help="Print nothing but errors.")
def backup(run: Path, target: Path, everything: bool, quiet: bool) -> None:
    """Copy what people made of RUN, while they go on working.

    TARGET is a new folder. Settings, decisions, added concepts and lists: what no stage can make again. To restore,
    copy the files back into the run's folder while nothing works on it.

    \b
    Example:
        popfactory backup runs/pop-1 backups/pop-1-monday
    """
    from curation.backup import backup as copy
    from popfactory.terminal import TerminalProgress
    from spine.run import Run

    terminal = TerminalProgress(quiet=quiet)
    try:
        made = copy(Run(run), target, everything=everything, progress=terminal)
    finally:
        terminal.close()
    if not quiet:
        stages = f", {', '.join(made.stages)}" if made.stages else ""
        click.echo(
            f"{target}: decisions up to event {made.events:,}, {made.concepts:,} added concepts{stages}"
        )


COMMANDS = (init, run, demo, status, verify, backup)
