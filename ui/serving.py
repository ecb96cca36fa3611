"""The board on an address of this machine."""

import contextlib
import os
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from spine.errors import ConfigError
from spine.listening import bound_socket
from spine.run import Run
from ui.access import is_loopback
from ui.tokens import Token, read_tokens

if TYPE_CHECKING:
    from fastapi import FastAPI


def serve(
    run: Run,
    host: str = "127.0.0.1",
    port: int = 7860,
    tokens: Sequence[Token] = (),
    server_url: str | None = None,
    server_token: str | None = None,
) -> None:
    """Serve the board over a run until it is stopped.

    Args:
        run: What is curated.
        host: Address to listen on; other than loopback needs a token.
        port: 1 to 65535.
        tokens: One of them is asked for at /login.
        server_url: A retrieval server to ask words and pictures of.
        server_token: What it wants to hear.

    Raises:
        ConfigError: The address can be reached from other machines and there is no token, or it is taken.
        DataError: The folder is no run.
    """
    if not is_loopback(host) and not tokens:
        raise ConfigError(
            f"--host {host}: other machines can reach it, so a token is needed; add --tokens FILE or --token"
        )
    run.require()
    with (
        bound_socket(host, port) as listening,
        board(run, server_url=server_url, server_token=server_token, tokens=tokens) as app,
    ):
        import uvicorn

        shown = f"[{host}]" if ":" in host else host
        print(f"the board on {run.folder}: http://{shown}:{port}/   (Ctrl-C stops it)", flush=True)  # noqa: T201
        settings = uvicorn.Config(app, log_level="warning", access_log=False, server_header=False)
        with contextlib.suppress(KeyboardInterrupt):
            uvicorn.Server(settings).run(sockets=[listening])


@contextlib.contextmanager
def board(
    run: Run,
    *,
    base: str = "",
    tokens: Sequence[Token] = (),
    server_url: str | None = None,
    server_token: str | None = None,
) -> Iterator["FastAPI"]:
    """The board's application, for as long as the block runs.

    Args:
        run: What is curated.
        base: Where another application mounts it, such as "/ui".
        tokens: One of them is asked for at /login.
        server_url: A retrieval server to ask words and pictures of.
        server_token: What it wants to hear.

    Raises:
        DataError: The folder is no run.
    """
    # Gradio puts files of its own there; a folder that goes with this process leaves nothing to others.
    with tempfile.TemporaryDirectory(prefix="popfactory-board-") as own:
        os.environ["GRADIO_TEMP_DIR"] = own
        from ui.app import build_app

        yield build_app(run, base=base, tokens=tokens, server_url=server_url, server_token=server_token)


def tokens_of(secret: str | None, file: Path | None) -> list[Token]:
    """The tokens that --token and --tokens name.

    Args:
        secret: One for all, who may write; each gives a name on the page.
        file: Named ones; see `ui.tokens.read_tokens`.

    Raises:
        ConfigError: The file is wrong, or both are given.
    """
    if secret and file:
        raise ConfigError("--token and --tokens: give one of them (POPFACTORY_TOKEN counts as --token)")
    if file:
        return read_tokens(file)
    return [Token("", "write", secret)] if secret else []
