"""The Release page: what was published, and what would be."""

from fastapi import FastAPI
from fastapi.responses import JSONResponse

from curation.revisions import published
from ui.desk import Desk
from ui.pages import Page, fresh


def _add_routes(app: FastAPI, desk: Desk) -> None:
    @app.get("/api/releases")
    def releases() -> JSONResponse:
        return fresh({"releases": [folder.name for folder in published(desk.run)]})


PAGE = Page("release", "Release", ("release",), _add_routes)
