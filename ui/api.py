"""The routes that every page uses: what the run is, and thumbnails."""

import re

from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse

from spine.errors import FactoryError
from ui.desk import Desk
from ui.pages import fresh


def add_routes(app: FastAPI, desk: Desk) -> None:
    """Put them on the app, in front of Gradio's."""

    @app.exception_handler(FactoryError)
    def explain(_: Request, error: FactoryError) -> JSONResponse:
        return JSONResponse({"error": str(error)}, 409)

    @app.get("/api/run")
    def about() -> JSONResponse:
        return fresh(desk.about())

    @app.get("/thumb/{name}")
    def thumb(name: str) -> Response:
        found = re.fullmatch(r"([0-9a-f]{64})(\.blurred)?\.webp", name)
        if found is None:
            return JSONResponse({"error": "a thumbnail is SHA256.webp or SHA256.blurred.webp"}, 404)
        return desk.thumbnail(found[1], blurred=found[2] is not None)
