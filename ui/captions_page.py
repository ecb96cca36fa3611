"""The Captions page: what the captioner wrote."""

from fastapi import FastAPI
from fastapi.responses import JSONResponse

from ui.desk import Desk
from ui.pages import Page, fresh


def _add_routes(app: FastAPI, desk: Desk) -> None:
    @app.get("/api/captions")
    def captions() -> JSONResponse:
        manifest = desk.snapshot.manifest(desk.run.captions)
        return fresh({"counts": manifest.counts if manifest is not None else None})


PAGE = Page("captions", "Captions", ("captions",), _add_routes)
