"""The retrieval server and the curation board."""

import contextlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from popfactory.commands.frame import RUN

if TYPE_CHECKING:
    from fastapi import FastAPI

_TOKENS = click.Path(path_type=Path, dir_okay=False)


@click.command()
@click.option(
    "--indices", type=click.Path(path_type=Path, dir_okay=False), help="clip-retrieval's indices_paths.json."
)
@click.option(
    "--run", "run_folder", type=click.Path(path_type=Path, file_okay=False), help="Serve this run's index."
)
@click.option("--ui", "with_ui", is_flag=True, help="The board on the run as well, at /ui.")
@click.option("--host", default="127.0.0.1", show_default=True, help="Other than loopback needs a token.")
@click.option(
    "--port", default=1234, show_default=True, type=click.IntRange(1, 65535), help="Port to listen on."
)
@click.option("--token", envvar="POPFACTORY_TOKEN", help="Asked of every request; also POPFACTORY_TOKEN.")
@click.option(
    "--tokens", type=_TOKENS, help="For --ui: a file of named tokens, a line NAME read|write SECRET each."
)
@click.option(
    "--takedown",
    multiple=True,
    metavar="FILE",
    help="List of what no answer may hold; a run has its own [lists].",
)
@click.option("--hash-block", multiple=True, metavar="FILE", help="List of hashes that no answer may hold.")
@click.option("--image-url", is_flag=True, help="Fetch pictures that queries name, from public addresses.")
@click.option("--strict-safety", is_flag=True, help="Refuse a query whose safety filter isn't there.")
@click.option("--allow-host", multiple=True, help="Another name that the server is asked by.")
@click.option("--allow-origin", multiple=True, help="A web page's origin that may ask from a browser.")
@click.option("--trust-proxy", multiple=True, help="Address of a proxy whose X-Forwarded-* count.")
@click.option(
    "--processes",
    default=1,
    show_default=True,
    type=click.IntRange(1, 64),
    help="That share the port: more small queries a second, for as many times the memory.",
)
@click.option(
    "--copies",
    default="256MB",
    show_default=True,
    metavar="SIZE",
    help="Memory an index may take for copies that make its search faster.",
)
def serve(
    indices: Path | None,
    run_folder: Path | None,
    with_ui: bool,
    host: str,
    port: int,
    token: str | None,
    tokens: Path | None,
    takedown: tuple[str, ...],
    hash_block: tuple[str, ...],
    image_url: bool,
    strict_safety: bool,
    allow_host: tuple[str, ...],
    allow_origin: tuple[str, ...],
    trust_proxy: tuple[str, ...],
    processes: int,
    copies: str,
) -> None:
    """Serve kNN queries over REST, as clip-retrieval does.

    The last options may be given several times.

    \b
    Example:
        popfactory serve --run runs/pop-1 --ui
        popfactory serve --indices indices_paths.json
    """
    if (indices is None) == (run_folder is None):
        raise click.UsageError("either --run RUN or --indices FILE was needed")
    from popfactory.settings_file import server_settings
    from retrieval_server.serving import serve as serve_rest
    from spine.settings import ListsConfig
    from spine.sizes import parse_size

    copies_bytes = parse_size(copies)
    settings = server_settings(indices, run_folder, ListsConfig(takedown=takedown, hash_block=hash_block))
    settings = replace(
        settings,
        indices=tuple(replace(index, copies_bytes=copies_bytes) for index in settings.indices),
        image_url=image_url,
        strict_safety=strict_safety,
        hosts=allow_host,
        origins=allow_origin,
        proxies=trust_proxy,
    )
    with contextlib.ExitStack() as stack:
        mounted = {}
        if with_ui:
            mounted["/ui"] = stack.enter_context(_board_beside(run_folder, host, port, token, tokens))
        serve_rest(settings, host=host, port=port, token=token, mounted=mounted, processes=processes)


@contextmanager
def _board_beside(
    run_folder: Path | None, host: str, port: int, token: str | None, tokens: Path | None
) -> Iterator["FastAPI"]:
    from spine.run import Run
    from ui.serving import board, tokens_of

    if run_folder is None:
        raise click.UsageError("--ui shows a run: give --run RUN")
    named = tokens_of(None if tokens else token, tokens)
    address = f"http://{host}:{port}"
    run = Run(run_folder).require()
    with board(run, base="/ui", tokens=named, server_url=address, server_token=token) as app:
        yield app


@click.command()
@RUN
@click.option("--host", default="127.0.0.1", show_default=True, help="Other than loopback needs a token.")
@click.option(
    "--port", default=7860, show_default=True, type=click.IntRange(1, 65535), help="Port to listen on."
)
@click.option("--token", envvar="POPFACTORY_TOKEN", help="Asked at the door; also POPFACTORY_TOKEN.")
@click.option("--tokens", type=_TOKENS, help="A file of named tokens, a line NAME read|write SECRET each.")
@click.option(
    "--server", default=None, metavar="URL", help="A retrieval server, for searches in words and pictures."
)
@click.option("--server-token", default=None, help="What that server wants to hear.")
def ui(
    run: Path,
    host: str,
    port: int,
    token: str | None,
    tokens: Path | None,
    server: str | None,
    server_token: str | None,
) -> None:
    """Open the curation board on RUN.

    \b
    Example:
        popfactory ui runs/pop-1
    """
    from spine.config import load_config
    from spine.run import Run
    from ui.serving import serve as serve_board
    from ui.serving import tokens_of

    opened = Run(run).require()
    load_config(opened.config)  # a slip in it is told here, not on every page
    serve_board(
        opened,
        host=host,
        port=port,
        tokens=tokens_of(token, tokens),
        server_url=server,
        server_token=server_token,
    )


COMMANDS = (serve, ui)
