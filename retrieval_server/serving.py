"""Running the application: uvicorn on a port, until it is told to stop."""

import contextlib
import gc
import ipaddress
import logging
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import replace
from functools import partial
from types import FrameType

import uvicorn
from fastapi import FastAPI
from starlette.applications import Starlette
from starlette.responses import RedirectResponse
from starlette.routing import Mount, Route

from index_builder.numerics.matrix_threads import one_matrix_thread
from retrieval_server.app import build_app
from retrieval_server.bodies import MAX_BODY_BYTES
from retrieval_server.connections import IDLE_S, BoundedConnection
from retrieval_server.footprint import give_back_large, leave_out_the_unused
from retrieval_server.guard import LOOPBACK
from retrieval_server.processes import orphaned, run_together
from retrieval_server.service import Service
from retrieval_server.settings import ServerSettings
from spine.errors import ConfigError
from spine.listening import bound_socket

PORT = 1234
"""clip-retrieval's."""

LEAVE_S = 1.0
"""From SIGTERM to the end of listening: meanwhile /ready is 503, so that whoever sends requests looks elsewhere."""

_COLLECT_AFTER = 20_000  # new containers

_log = logging.getLogger("popfactory.server")


def serve(
    settings: ServerSettings,
    host: str = "127.0.0.1",
    port: int = PORT,
    token: str | None = None,
    mounted: Mapping[str, FastAPI] | None = None,
    processes: int = 1,
) -> None:
    """Serve until SIGTERM or Ctrl-C; requests in flight are answered first.

    Args:
        settings: What to serve.
        host: Address to listen on; one that others can reach needs a token.
        port: 0 takes a free one, and the log says which.
        token: What requests must carry as Authorization: Bearer.
        mounted: Other applications by their path, such as "/ui"; they guard themselves.
        processes: That share the port; each has models, and what isn't memory-mapped of the indices, for itself.

    Raises:
        ConfigError: The address is open to others and there is no token, the port is taken, a proxy is no
            address, or another application is to be in several processes.
        DataError: An index can't be read.
    """
    if not is_loopback(host) and not token:
        raise ConfigError(
            f"{host} can be reached by others: set a token, or serve on 127.0.0.1 behind a proxy that asks who it is"
        )
    for proxy in settings.proxies:
        _check_proxy(proxy)
    _set_up_log()
    if processes == 1:
        with bound_socket(host, port) as listening:
            _serve_on(listening, settings, host, token or "", mounted or {})
        return
    if mounted:
        raise ConfigError("several processes serve the REST routes alone; start the board by itself")
    with bound_socket(host, port) as alone:  # a shared one would not tell that somebody else has the port
        port = alone.getsockname()[1]
    with bound_socket(host, port, shared=True):
        work = partial(_serve_beside, _share(settings, processes), host, port, token or "")
        run_together(
            processes, work, lambda: _log.info("serving on %s in %d processes", _url(host, port), processes)
        )


def _serve_on(
    listening: socket.socket,
    settings: ServerSettings,
    host: str,
    token: str,
    mounted: Mapping[str, FastAPI],
    started: Callable[[], None] | None = None,
) -> None:
    if not mounted:  # the board works with pandas
        leave_out_the_unused()
    give_back_large()
    # OpenBLAS starts a thread a core for each product and lets them spin; with several requests at once they
    # mostly wait for each other: 571 ms of CPU to deduplicate 1,800 results, 33 ms with one thread, were measured
    # on 4 busy cores, and 13 s to open an index. It is NumPy's own OpenBLAS: FAISS's, which serves batches, keeps
    # its threads.
    with one_matrix_thread():
        app = build_app(settings, token=token, any_host=not is_loopback(host))
        _run(settings, app, listening, mounted, started)


def _serve_beside(
    settings: ServerSettings, host: str, port: int, token: str, started: Callable[[], None]
) -> None:
    """One of several processes."""
    _set_up_log()
    with bound_socket(host, port, shared=True) as listening:
        _serve_on(listening, settings, host, token, {}, started)


def _share(settings: ServerSettings, processes: int) -> ServerSettings:
    """One process's part of what the whole server takes at once."""
    threads = settings.search_threads or os.cpu_count() or 1
    return replace(
        settings,
        search_threads=max(1, threads // processes),
        waiting=max(1, settings.waiting // processes),
        waiting_bytes=max(MAX_BODY_BYTES, settings.waiting_bytes // processes),
    )


def _set_up_log() -> None:
    if not logging.getLogger().handlers:
        logging.basicConfig(stream=sys.stderr, level=logging.WARNING, format="%(message)s")
        # And not what FAISS and open_clip tell of loading.
        logging.getLogger("popfactory").setLevel(logging.INFO)


def _run(
    settings: ServerSettings,
    app: FastAPI,
    listening: socket.socket,
    mounted: Mapping[str, FastAPI],
    started: Callable[[], None] | None,
) -> None:
    config = uvicorn.Config(
        _joined(app, mounted) if mounted else app,
        loop="uvloop" if sys.platform != "win32" else "auto",
        http=BoundedConnection,
        log_level="warning",
        access_log=False,  # it has query strings; ours hasn't
        server_header=False,
        proxy_headers=bool(settings.proxies),
        forwarded_allow_ips=list(settings.proxies),
        timeout_keep_alive=IDLE_S,
        timeout_graceful_shutdown=20,
    )
    server = _Server(config, app.state.service, started)
    # Answers are thousands of small dicts without cycles: looking for some every 700 took over a quarter of their time.
    gc.collect()
    gc.freeze()
    gc.set_threshold(_COLLECT_AFTER)
    if threading.current_thread() is threading.main_thread():
        # uvicorn raises a signal it caught once more when it has stopped; to stop when asked is no failure.
        signal.signal(signal.SIGTERM, lambda *_: None)
    with contextlib.suppress(KeyboardInterrupt):  # raised once more by uvicorn when all is ended
        server.run(sockets=[listening])


def _joined(app: FastAPI, mounted: Mapping[str, FastAPI]) -> Starlette:
    """One application of several, each started and ended with it."""

    @contextlib.asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        async with contextlib.AsyncExitStack() as stack:
            for each in (app, *mounted.values()):
                await stack.enter_async_context(each.router.lifespan_context(each))
            yield

    def redirect(path: str) -> Route:
        return Route(path, lambda _: RedirectResponse(f"{path}/"))

    others = [route for path, each in mounted.items() for route in (redirect(path), Mount(path, each))]
    return Starlette(routes=[*others, Mount("/", app)], lifespan=lifespan)


def _check_proxy(address: str) -> None:
    try:
        ipaddress.ip_network(address, strict=False)
    except ValueError:
        raise ConfigError(
            f"proxy {address!r}: an IP address or network was needed, such as 10.0.0.0/8"
        ) from None


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches a server that listens on `host`."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host in LOOPBACK


class _Server(uvicorn.Server):
    """Says where it listens, once it does; told to end, it first says for a moment that it isn't ready."""

    def __init__(self, config: uvicorn.Config, service: Service, started: Callable[[], None] | None) -> None:
        super().__init__(config)
        self._service = service
        self._started = started
        self._leave_s: float | None = None

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Stop at once when a person asks, or when asked twice; else when LEAVE_S have passed."""
        if sig == signal.SIGTERM and not self._service.stopping:
            self._service.stopping = True
            self._leave_s = time.monotonic() + LEAVE_S
            self._captured_signals.append(sig)
        else:
            super().handle_exit(sig, frame)

    async def on_tick(self, counter: int) -> bool:
        """Ten times a second."""
        if orphaned() or (self._leave_s is not None and time.monotonic() >= self._leave_s):
            self.should_exit = True
        return await super().on_tick(counter)

    async def startup(self, sockets: list[object] | None = None) -> None:  # type: ignore[override]
        await super().startup(sockets)  # type: ignore[arg-type]
        if self._started is not None:
            self._started()
            return
        for server in getattr(self, "servers", []):
            for listening in server.sockets:
                _log.info("serving on %s", _url(*listening.getsockname()[:2]))


def _url(host: str, port: int) -> str:
    return f"http://{f'[{host}]' if ':' in host else host}:{port}"
