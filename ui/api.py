"""What every page uses: what the run is, and how a refusal is told."""

from fastapi import FastAPI, Request
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
    def about(request: Request) -> JSONResponse:
        state = request.state
        return fresh(desk.about() | {"curator": state.curator or None, "may_write": state.may_write})
