"""What every page uses: what the run is, and how a refusal is told."""

import errno
import logging

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse

from spine.errors import FactoryError
from ui.desk import Desk
from ui.pages import fresh

_FULL = (errno.ENOSPC, errno.EDQUOT)
_logger = logging.getLogger(__name__)


def add_routes(app: FastAPI, desk: Desk) -> None:
    """Put them on the app, in front of Gradio's."""

    @app.exception_handler(FactoryError)
    def explain(_: Request, error: FactoryError) -> JSONResponse:
        return JSONResponse({"error": str(error)}, 409)

    @app.exception_handler(OSError)
    def tell_of_the_disk(_: Request, error: OSError) -> JSONResponse:
        _logger.error("%s", error)
        if error.errno in _FULL:
            said = f"the disk of {desk.run.folder} is full: free some space; nothing that was saved is lost"
            return JSONResponse({"error": said}, 507)
        return JSONResponse({"error": f"the run folder can't be used: {error.strerror}"}, 500)

    @app.get("/api/run")
    def about(request: Request) -> JSONResponse:
        state = request.state
        return fresh(desk.about() | {"curator": state.curator or None, "may_write": state.may_write})
