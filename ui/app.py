"""The board as one FastAPI app: our routes, and Gradio's pages mounted over them. Wiring only."""

import os
import warnings
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

# Read when Gradio is imported: no figures about the run or the machine go anywhere.
os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"

import gradio as gr
from fastapi import FastAPI
from fastapi.middleware.cors import CORSMiddleware
from fastapi.middleware.gzip import GZipMiddleware

from spine.run import Run
from ui import api, captions_page, curate_page, documents, jobs_page, release_page, setup_page
from ui.access import Guard, SecurityHeaders
from ui.desk import Desk
from ui.pages import Page
from ui.static_files import StaticFiles
from ui.tokens import Token

PAGES = (curate_page.PAGE, captions_page.PAGE, jobs_page.PAGE, release_page.PAGE, setup_page.PAGE)

_THEME = gr.themes.Base(
    primary_hue="blue",
    neutral_hue="slate",
    font=["system-ui", "sans-serif"],
    font_mono=["ui-monospace", "monospace"],
)

# Gradio adds our script to the page while it mounts its parts: either may come first, so parts wait in a list.
_ON_LOAD = """
(window.popfactoryParts ??= []).push([element.querySelector('.pf-panel') || element, props.base]);
if (window.Popfactory) window.Popfactory.draw();
"""


def build_app(
    run: Run,
    *,
    server_url: str | None = None,
    server_token: str | None = None,
    base: str = "",
    tokens: Sequence[Token] = (),
) -> FastAPI:
    """The board over a run, as an app of its own.

    Args:
        run: What is curated.
        server_url: A retrieval server to ask words and pictures of; None where there is none.
        server_token: What it wants to hear.
        base: Where another app mounts this one, such as "/ui"; "" at the root. The outer app must enter
            this one's lifespan: `app.router.lifespan_context(app)`.
        tokens: One of them is asked for at /login; none lets in who reaches it under a loopback name.
    """
    desk = Desk(run.require(), server_url=server_url, server_token=server_token)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        desk.warm()
        yield
        desk.close()

    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None, lifespan=lifespan)
    app.add_middleware(GZipMiddleware, minimum_size=2_000, compresslevel=3)
    # Gradio sees this and leaves out its own, which reflects any origin with credentials.
    app.add_middleware(CORSMiddleware, allow_origins=[])
    app.add_middleware(Guard, tokens=tokens)
    app.add_middleware(SecurityHeaders)
    api.add_routes(app, desk)
    for page in PAGES:
        page.add_routes(app, desk)
    documents.add_routes(app)
    files = StaticFiles(base)
    files.add_routes(app)
    with warnings.catch_warnings():
        # It says that it does without server-side rendering, which nobody asked for.
        warnings.filterwarnings("ignore", message="SSR mode")
        gr.mount_gradio_app(
            app,
            _pages(base),
            path="/",
            run_history=False,
            footer_links=[],
            show_error=False,
            enable_monitoring=False,
            max_file_size="5mb",
            theme=_THEME,
            head=files.head(),
        )
    return app


def _pages(base: str) -> gr.Blocks:
    first, *others = PAGES
    pages = gr.Blocks(title="popfactory", analytics_enabled=False, fill_width=True)
    with pages:
        _lay_out(first, base)
    for page in others:
        with pages.route(page.label, f"/{page.name}"):
            _lay_out(page, base)
    return pages


def _lay_out(page: Page, base: str) -> None:
    _panel("header", base)
    if len(page.parts) == 1:
        _panel(page.parts[0], base)
    else:
        with gr.Row(elem_classes=["pf-columns"]):
            for part in page.parts:
                _panel(part, base)


# A function and no subclass of gr.HTML: Gradio writes a stub file beside the source of every subclass.
def _panel(part: str, base: str) -> gr.HTML:
    """A part of the page that our script draws into; it gets the base address and nothing of the data."""
    return gr.HTML(
        "",
        # Constants: a template with text from a pool in it would run that text.
        html_template=f'<div class="pf-panel" data-part="{part}"></div>',
        js_on_load=_ON_LOAD,
        apply_default_css=False,
        elem_classes=["pf-host", f"pf-host-{part}"],
        base=base,
    )
