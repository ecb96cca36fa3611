"""The `popfactory` command: wiring only.

Each verb imports what it needs when it is called, so that --help is instant.
"""

import contextlib
import dataclasses
import errno
import json
import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from fastapi import FastAPI

    from spine.progress import Progress
    from spine.run import Run
    from spine.stage import Manifest

RUN = click.argument("run", type=click.Path(path_type=Path, file_okay=False))
_DISK_ADVICE = {
    errno.ENOSPC: "make room and run it again",
    errno.EDQUOT: "make room and run it again",
    errno.EROFS: "the file system is mounted read-only, and a run needs one that can be written to",
    errno.EACCES: "get the right to read and write there and run it again",
}


def main() -> None:
    """Run the command; say what a user can put right in one line.

    Exit codes: 0 done, 1 what a user can put right, 2 wrong usage, 130 interrupted (resumable).
    """
    from popfactory.interruption import heed_interrupts
    from spine.errors import FactoryError

    heed_interrupts()
    # Read when torch and FAISS start their threads: spinning while they wait, they take the cores from
    # the processes that decode pictures.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    try:
        cli(standalone_mode=False)
    except click.exceptions.Abort:
        _leave("stopped; what is finished stays, and the same command goes on from there", 130)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except FactoryError as error:
        _leave(str(error), 1)
    except KeyboardInterrupt:
        _leave("stopped; what is finished stays, and the same command goes on from there", 130)
    except BrokenPipeError:
        sys.stderr.close()
        sys.exit(1)
    except OSError as error:
        if error.errno not in _DISK_ADVICE:
            raise
        advice = _DISK_ADVICE[error.errno]
        _leave(f"{error.filename or 'disk'}: {error.strerror}; what is finished stays: {advice}", 1)


def _leave(line: str, code: int) -> None:
    # A second Ctrl-C, while the interpreter ends, would change the exit code or print a traceback.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    click.echo(f"popfactory: {line}", err=True)
    sys.exit(code)


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="popfactory")
def cli() -> None:
    """Build your own LAION-POP.

    From a pile of images you like to a large, clean, captioned dataset that looks like them.

    \b
    Try it without any data:     popfactory demo
    With your own pictures:      popfactory init RUN --concepts FOLDER --pool FOLDER
                                 popfactory run RUN
    """


def _options(command: Callable[..., None]) -> Callable[..., None]:
    """The options that every verb working on a run has."""
    command = click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")(command)
    return click.option("--quiet", is_flag=True, help="Print nothing but errors.")(command)


@contextmanager
def _working(folder: Path, arguments: list[str], quiet: bool) -> Iterator[tuple["Run", "Progress"]]:
    """A run with its lock held, its journal open and its progress shown."""
    from popfactory.terminal import TerminalProgress
    from spine.errors import FactoryError
    from spine.jobs import Journal, sole_worker
    from spine.progress import Chorus
    from spine.run import Run

    run = Run(folder).require()
    with sole_worker(run):
        journal, terminal = Journal(run, arguments), TerminalProgress(quiet=quiet)
        try:
            yield run, Chorus(terminal, journal)
        except KeyboardInterrupt:
            journal.close("cancelled", "stopped; the same command goes on from there")
            raise
        except (FactoryError, OSError) as error:
            journal.close("failed", str(error))
            raise
        except BaseException as error:
            journal.close("failed", f"{type(error).__name__}: {error}")
            raise
        else:
            journal.close("done")
        finally:
            terminal.close()


def _report(manifest: "Manifest", quiet: bool, as_json: bool) -> None:
    if as_json:
        shown = {"stage": manifest.stage, "counts": manifest.counts, "facts": manifest.facts}
        click.echo(json.dumps(shown, ensure_ascii=False))
    elif not quiet:
        counts = ", ".join(f"{name.replace('_', ' ')} {count:,}" for name, count in manifest.counts.items())
        click.echo(f"{manifest.stage}: {counts}")


@cli.command()
@RUN
@click.option("--preset", default="standard", show_default=True, help="standard or laion-pop-2023.")
@click.option("--concepts", default="", help="Pictures that set the taste: folder, tars or Parquet.")
@click.option("--pool", default="", help="Pictures to search: folder, tars or Parquet.")
@click.option("--demo-models", is_flag=True, help="Use the small models that come with popfactory.")
@click.option("--force", is_flag=True, help="Write over the settings that are there.")
def init(run: Path, preset: str, concepts: str, pool: str, demo_models: bool, force: bool) -> None:
    """Write RUN/popfactory.toml with every setting, its default and its meaning.

    The settings name the real models (ViT-L-14 of openai, LLaVA-1.5). --demo-models names the small ones that
    come with popfactory instead: they know only drawn scenes, and every card and page of such a run says so.

    \b
    Example:
        popfactory init runs/pop-1 --preset laion-pop-2023 --concepts midjourney/ --pool photos/
    """
    from popfactory.settings_file import start_run

    written = start_run(run, preset, concepts=concepts, pool=pool, demo_models=demo_models, force=force)
    click.echo(f"{written}: written; look it over, then `popfactory run {run}`")


@cli.command()
@RUN
@_options
def run(run: Path, quiet: bool, as_json: bool) -> None:
    """Bring every stage of RUN up to date, in order, and release the dataset.

    Does only what isn't done: stopped at any moment and started again, it goes on from there.

    \b
    Example:
        popfactory run runs/pop-1
    """
    from popfactory.pipeline import run_pipeline
    from popfactory.report import funnel_lines, outcome_json

    with _working(run, ["run", str(run)], quiet) as (opened, progress):
        outcomes = run_pipeline(opened, progress=progress)
    if as_json:
        click.echo(json.dumps(outcome_json(opened, outcomes), ensure_ascii=False))
    elif not quiet:
        if not any(outcome.worked for outcome in outcomes):
            click.echo(f"{run}: every stage is up to date; nothing to do")
        click.echo("\n".join(funnel_lines(opened)))
        click.echo(f"release: {run / outcomes[-1].manifest.facts['folder']}")


@cli.command()
@RUN
@click.argument("collection", type=click.Choice(["concepts", "pool"]))
@click.argument("source", required=False)
@click.option("--force", is_flag=True, help="Start over.")
@_options
def embed(run: Path, collection: str, source: str | None, force: bool, quiet: bool, as_json: bool) -> None:
    """Embed the pictures of SOURCE as the concepts or the pool of RUN.

    SOURCE is a folder of pictures, WebDataset tars or Parquet; without it, the one in popfactory.toml. Writes
    RUN/concepts or RUN/pool. A picture that can't be used is counted with its reason.

    \b
    Example:
        popfactory embed runs/pop-1 concepts ~/pictures/taste
    """
    from index_builder.embeddings import embed as embed_stage
    from popfactory.sources import source_of
    from spine.config import load_config

    arguments = ["embed", str(run), collection, *([source] if source else [])]
    with _working(run, arguments, quiet) as (opened, progress):
        chosen = source or source_of(opened, load_config(opened.config), collection)
        manifest = embed_stage(opened, collection, chosen, force=force, progress=progress)
    _report(manifest, quiet, as_json)


def _stage_command(name: str, work: Callable[..., "Manifest"], reads: str, writes: str, does: str) -> None:
    @click.option("--force", is_flag=True, help="Start over.")
    @_options
    def command(run: Path, force: bool, quiet: bool, as_json: bool) -> None:
        with _working(run, [name, str(run)], quiet) as (opened, progress):
            manifest = work(opened, force=force, progress=progress)
        _report(manifest, quiet, as_json)

    command.__doc__ = f"""{does}

    Reads {reads}, writes {writes}.

    \b
    Example:
        popfactory {name} runs/pop-1
    """
    cli.command(name)(RUN(command))


def _centroids(run: "Run", **options: Any) -> "Manifest":
    from index_builder.centroids import centroids

    return centroids(run, **options)


def _index(run: "Run", **options: Any) -> "Manifest":
    from index_builder.indexes import index

    return index(run, **options)


def _retrieve(run: "Run", **options: Any) -> "Manifest":
    from index_builder.neighbours import retrieve

    return retrieve(run, **options)


def _score(run: "Run", **options: Any) -> "Manifest":
    from index_builder.scores import score

    return score(run, **options)


def _select(run: "Run", **options: Any) -> "Manifest":
    from curation.selection import require_selected, select

    manifest = select(run, **options)
    require_selected(run)
    return manifest


_stage_command(
    "centroids", _centroids, "RUN/concepts", "RUN/centroids", "Cluster the embeddings of RUN into centroids."
)
_stage_command("index", _index, "RUN/pool", "RUN/index", "Build the FAISS index of the pool.")
_stage_command(
    "retrieve",
    _retrieve,
    "RUN/centroids and the index",
    "RUN/neighbours",
    "Find every centroid's neighbours in the pool.",
)


@cli.command()
@RUN
@click.option("--retry-failed", is_flag=True, help="Ask again what gave nothing but may another time.")
@click.option("--force", is_flag=True, help="Start over.")
@_options
def fetch(run: Path, retry_failed: bool, force: bool, quiet: bool, as_json: bool) -> None:
    """Bring in the neighbours' pictures.

    Reads RUN/neighbours, writes RUN/images. --retry-failed asks addresses again that timed out, were busy or
    could not be reached; a picture that is gone is not asked for twice.

    \b
    Example:
        popfactory fetch runs/pop-1 --retry-failed
    """
    from curation.fetched_images import fetch as fetch_stage

    with _working(run, ["fetch", str(run)], quiet) as (opened, progress):
        manifest = fetch_stage(opened, force=force, retry_failed=retry_failed, progress=progress)
    _report(manifest, quiet, as_json)


_stage_command(
    "score", _score, "RUN/images", "RUN/scores", "Score the fetched pictures and group near-duplicates."
)
_stage_command(
    "select",
    _select,
    "RUN/neighbours, images, scores and the curators' decisions",
    "RUN/selection",
    "Decide on every candidate: filters, people, duplicates, quota.",
)


@cli.command()
@RUN
@click.option(
    "--failed-only", is_flag=True, help="Ask again for the pictures that failed, and for no others."
)
@click.option("--limit", type=click.IntRange(1), help="So many pictures at most, then stop.")
@click.option("--dry-run", is_flag=True, help="Say what would be asked and how long it takes; ask nothing.")
@click.option("--force", is_flag=True, help="Throw this captioner's captions away and start over.")
@_options
def caption(run: Path, dry_run: bool, quiet: bool, as_json: bool, **asked: Any) -> None:
    """Describe the selected pictures.

    Reads RUN/selection and RUN/images, writes RUN/captions. What is there is not asked again; captions of another
    model, prompt or parameters are kept beside. How long it takes is told from this captioner's earlier jobs.

    \b
    Example:
        popfactory caption runs/pop-1 --dry-run
        popfactory caption runs/pop-1 --failed-only
    """
    from captioner.captions import caption as caption_stage
    from captioner.estimate import estimate, estimate_lines
    from spine.run import Run

    if dry_run:
        found = estimate(Run(run), **asked)
        told = json.dumps(dataclasses.asdict(found) | {"seconds": found.seconds})
        click.echo(told if as_json else "\n".join(estimate_lines(found)))
        return
    given = [f"--{name.replace('_', '-')}" for name in ("failed_only", "force") if asked[name]]
    given += ["--limit", str(asked["limit"])] if asked["limit"] else []
    with _working(run, ["caption", str(run), *given], quiet) as (opened, progress):
        manifest = caption_stage(opened, progress=progress, **asked)
    _report(manifest, quiet, as_json)


@cli.command("serve-captions")
@click.argument("model", default="demo")
@click.option("--revision", default="", help="Of the checkpoint; the newest without it.")
@click.option("--port", default=8010, show_default=True, type=click.IntRange(1, 65535))
def serve_captions(model: str, revision: str, port: int) -> None:
    """Serve a LLaVA-1.5 checkpoint as a small OpenAI-compatible server on 127.0.0.1.

    MODEL is as [caption] model: demo, a folder, or a name on the hub. One picture at a time: for laptops and for
    trying the http engine; a large run is asked of a real engine.

    \b
    Example:
        popfactory serve-captions demo --port 8010
    """
    from captioner.serving import serve as serve_checkpoint

    serve_checkpoint(model, revision=revision, port=port)


@cli.command()
@RUN
@click.option("--diff", nargs=2, metavar="OLD NEW", help="Tell what differs between two releases, and why.")
@click.option("--check", is_flag=True, help="Name rows of all releases that a list blocks by now.")
@click.option("--force", is_flag=True, help="Make the newest revision anew, in its place.")
@_options
def release(
    run: Path, diff: tuple[str, str] | None, check: bool, force: bool, quiet: bool, as_json: bool
) -> None:
    """Publish the dataset with its card.

    Reads all of RUN, writes RUN/release/NAME-VERSION. What is published stays: rows that differ make the
    version's next revision, NAME-VERSION+1. --diff and --check only read.

    \b
    Example:
        popfactory release runs/pop-1
        popfactory release runs/pop-1 --diff pop-1.0 pop-1.0+1
    """
    from popfactory.report import tell_blocked, tell_difference
    from spine.run import Run

    if diff is not None or check:
        opened = Run(run).require()
        told = (
            tell_blocked(opened, as_json) if diff is None else tell_difference(opened, *diff, as_json=as_json)
        )
        click.echo(told)
        return
    from curation.release import release as release_stage

    with _working(run, ["release", str(run)], quiet) as (working, progress):
        manifest = release_stage(working, force=force, progress=progress)
    _report(manifest, quiet, as_json)


@cli.command()
@click.argument("run", type=click.Path(path_type=Path, file_okay=False), default=Path("demo-run"))
@click.option("--concepts", default=1500, show_default=True, help="Pictures of taste to draw.")
@click.option("--pool", default=6000, show_default=True, help="Pictures to search to draw.")
@click.option("--seed", default=0, show_default=True, help="Same seed, same pictures.")
@click.option("--ui", is_flag=True, help="Open the board on the run afterwards.")
@_options
def demo(run: Path, concepts: int, pool: int, seed: int, ui: bool, quiet: bool, as_json: bool) -> None:
    """Run the whole factory on pictures it draws itself: no data, no network, no GPU.

    Draws a collection of taste and a larger pool, runs every stage on the small models that come with
    popfactory, prints the funnel and three captions, and leaves a release in RUN (demo-run by default).

    \b
    Example:
        popfactory demo --ui
    """
    from popfactory.demo import demo_lines, prepare
    from popfactory.pipeline import run_pipeline
    from popfactory.report import outcome_json

    prepare(run, concepts=concepts, pool=pool, seed=seed, say=None if quiet or as_json else click.echo)
    with _working(run, ["demo", str(run)], quiet) as (opened, progress):
        outcomes = run_pipeline(opened, progress=progress)
    if as_json:
        click.echo(json.dumps(outcome_json(opened, outcomes), ensure_ascii=False))
    elif not quiet:
        click.echo("\n".join(demo_lines(opened)))
    if ui:
        from ui.serving import serve as serve_board

        serve_board(opened)


@cli.command()
@RUN
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def status(run: Path, as_json: bool) -> None:
    """Show the funnel of RUN, which stages are finished, and its jobs.

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


@cli.command(context_settings={"ignore_unknown_options": True})  # an id may begin with a minus sign
@RUN
@click.argument("picture_id", metavar="ID", type=int)
def why(run: Path, picture_id: int) -> None:
    """Tell the whole story of one picture: where it came from, what it scored, why it is in or out.

    \b
    Example:
        popfactory why runs/pop-1 -1234567890123456789
    """
    from curation.story import why as story
    from spine.run import Run

    click.echo("\n".join(story(Run(run).require(), picture_id)))


@cli.command()
@RUN
def verify(run: Path) -> None:
    """Compare every published file of RUN with the digest it was published with.

    \b
    Example:
        popfactory verify runs/pop-1
    """
    from popfactory.report import finished_folders
    from spine.errors import DataError
    from spine.run import Run
    from spine.stage import read_manifest
    from spine.stage import verify as verify_folder

    folders = finished_folders(Run(run).require())
    problems = [problem for folder in folders for problem in verify_folder(folder)]
    if problems:
        raise DataError(
            "\n".join([f"{len(problems)} damaged files; run their stages with --force:", *problems])
        )
    files = sum(len(read_manifest(folder).files) for folder in folders)
    click.echo(f"{run}: {files:,} files in {len(folders)} finished stages are as published")


@cli.command()
@click.option(
    "--indices", type=click.Path(path_type=Path, dir_okay=False), help="clip-retrieval's indices_paths.json."
)
@click.option(
    "--run", "run_folder", type=click.Path(path_type=Path, file_okay=False), help="Serve this run's index."
)
@click.option("--ui", "with_ui", is_flag=True, help="The board on the run as well, at /ui.")
@click.option("--host", default="127.0.0.1", show_default=True, help="Other than loopback needs a token.")
@click.option("--port", default=1234, show_default=True, type=click.IntRange(1, 65535))
@click.option("--token", envvar="POPFACTORY_TOKEN", help="Asked of every request; also POPFACTORY_TOKEN.")
def serve(
    indices: Path | None, run_folder: Path | None, with_ui: bool, host: str, port: int, token: str | None
) -> None:
    """Serve kNN queries over REST as clip-retrieval's back end does.

    \b
    Example:
        popfactory serve --run runs/pop-1 --ui
        popfactory serve --indices indices_paths.json
    """
    from popfactory.settings_file import server_settings
    from retrieval_server.serving import serve as serve_rest

    settings = server_settings(indices, run_folder)
    with contextlib.ExitStack() as stack:
        mounted = {}
        if with_ui:
            mounted["/ui"] = stack.enter_context(_board_beside(run_folder, host, port, token))
        serve_rest(settings, host=host, port=port, token=token, mounted=mounted)


@contextmanager
def _board_beside(run_folder: Path | None, host: str, port: int, token: str | None) -> Iterator["FastAPI"]:
    from spine.run import Run
    from ui.serving import board

    if run_folder is None:
        raise click.UsageError("--ui shows a run: give --run RUN")
    with board(Run(run_folder).require(), base="/ui", token=token, server_url=f"http://{host}:{port}") as app:
        yield app


@cli.command()
@RUN
@click.option("--host", default="127.0.0.1", show_default=True, help="Other than loopback needs a token.")
@click.option("--port", default=7860, show_default=True, type=click.IntRange(1, 65535))
@click.option("--token", envvar="POPFACTORY_TOKEN", help="Asked at the door; also POPFACTORY_TOKEN.")
def ui(run: Path, host: str, port: int, token: str | None) -> None:
    """Open the curation board on RUN.

    \b
    Example:
        popfactory ui runs/pop-1
    """
    from spine.run import Run
    from ui.serving import serve as serve_board

    serve_board(Run(run).require(), host=host, port=port, token=token)
