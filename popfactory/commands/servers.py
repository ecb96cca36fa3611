"""The retrieval server and the curation board."""

import contextlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from popfactory.commands.frame import RUN

if TYPE_CHECKING:
    from fastapi import FastAPI


@click.command()
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


@click.command()
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


COMMANDS = (serve, ui)
