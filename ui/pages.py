"""What a page of the board is.

To add one, named "stages" say:

- `ui/stages_page.py` with `PAGE = Page("stages", "Stages", ("stages",), add_routes)`; its routes answer
  under /api/ with data for the page, and keep every id as decimal text;
- `ui/static/stages.js` with `part("stages", (host) => ...)`, which draws into `host` with `el()` alone, and
  `load(["stages"], async () => ...)`, which asks for the data; import it in `ui/static/main.js`, and name
  the page in `ui/static/core/head.js`;
- `ui/static/stages.css`: everything inside `:root { ... }`, or Gradio's reset wins over a class alone;
- its PAGE in `ui/app.py`.

Traps of Gradio: templates and values of gr.HTML are constants (`${...}` in one is run as code), no gr.State,
no `unload` (each tab would hold a connection for good), and no data in the page itself.
"""

from collections.abc import Callable
from dataclasses import dataclass

import orjson
from fastapi import FastAPI
from fastapi.responses import JSONResponse

from ui.desk import Desk


@dataclass(frozen=True, slots=True)
class Page:
    """One page: its address, the parts a script draws, and its own routes."""

    name: str
    """Its path under the board's address; that of Curate is /."""
    label: str
    """In the navigation."""
    parts: tuple[str, ...]
    """Drawn by `part(NAME, ...)` of the page's script; several stand side by side."""
    add_routes: Callable[[FastAPI, Desk], None]


class _Written(JSONResponse):
    # Ten times as fast: the list of 10,000 centroids took a third of a second.
    def render(self, content: object) -> bytes:
        return orjson.dumps(content)


def fresh(content: object) -> JSONResponse:
    """An answer that no cache keeps."""
    return _Written(content, headers={"Cache-Control": "no-store"})
