"""What the commands share: a run's lock, journal and progress, and how a stage's result is told."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from spine.manifest import Manifest
    from spine.progress import Progress
    from spine.run import Run

RUN = click.argument("run", type=click.Path(path_type=Path, file_okay=False))


def result_options(command: Callable[..., None]) -> Callable[..., None]:
    """The options that every verb working on a run has: --json and --quiet."""
    command = click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")(command)
    return click.option("--quiet", is_flag=True, help="Print nothing but errors.")(command)


@contextmanager
def working(folder: Path, arguments: list[str], quiet: bool) -> Iterator[tuple["Run", "Progress"]]:
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
        except FactoryError as error:
            journal.close("failed", str(error))
            raise
        except OSError as error:
            error.filename = error.filename or str(folder)  # a full disk doesn't say which one it is
            journal.close("failed", str(error))
            raise
        except BaseException as error:
            journal.close("failed", f"{type(error).__name__}: {error}")
            raise
        else:
            journal.close("done")
        finally:
            terminal.close()


def report(manifest: "Manifest", quiet: bool, as_json: bool) -> None:
    """Tell a stage's counts on standard output, as a line or as JSON."""
    if as_json:
        shown = {"stage": manifest.stage, "counts": manifest.counts, "facts": manifest.facts}
        click.echo(json.dumps(shown, ensure_ascii=False))
    elif not quiet:
        counts = ", ".join(f"{name.replace('_', ' ')} {count:,}" for name, count in manifest.counts.items())
        click.echo(f"{manifest.stage}: {counts}")


def stage_command(
    name: str, work: Callable[..., "Manifest"], reads: str, writes: str, does: str
) -> click.Command:
    """The command of a stage that has no options of its own but --force."""

    @click.option("--force", is_flag=True, help="Start over.")
    @result_options
    def command(run: Path, force: bool, quiet: bool, as_json: bool) -> None:
        with working(run, [name, str(run)], quiet) as (opened, progress):
            manifest = work(opened, force=force, progress=progress)
        report(manifest, quiet, as_json)

    command.__doc__ = f"""{does}

    Reads {reads}, writes {writes}.

    \b
    Example:
        popfactory {name} runs/pop-1
    """
    return click.command(name)(RUN(command))
