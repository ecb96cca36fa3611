"""The Setup page: servers, index, models, lists, access, disk, and every setting."""

from fastapi import FastAPI, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import JSONResponse

from ui.captioning import last_rate
from ui.desk import Desk
from ui.pages import Page, fresh
from ui.requests import json_of
from ui.settings_form import save_settings, setting_rows, settings_digest
from ui.setup_desk import SetupDesk


def _add_routes(app: FastAPI, desk: Desk) -> None:
    setup = SetupDesk(desk)

    @app.get("/api/setup")
    def about(request: Request) -> JSONResponse:
        name, may_write = (getattr(request.state, key, None) for key in ("curator", "may_write"))
        access = {"curator": name, "may_write": may_write is not False}
        access["roles"] = getattr(request.state, "roles", [])
        return fresh(setup.about() | {"access": access})

    @app.get("/api/setup/server")
    def server() -> JSONResponse:
        return fresh(setup.server())

    @app.get("/api/setup/engines")
    def engines() -> JSONResponse:
        return fresh({"engines": setup.engines(), "rate": last_rate(desk.run)})

    @app.get("/api/setup/disk")
    def disk() -> JSONResponse:
        return fresh(setup.disk())

    @app.get("/api/settings")
    def settings() -> JSONResponse:
        seen = settings_digest(desk.run)
        return fresh({"seen": seen, "settings": setting_rows(desk.snapshot.config())})

    @app.post("/api/settings")
    async def save(request: Request) -> JSONResponse:
        content = await json_of(request)
        return fresh({"seen": await run_in_threadpool(save_settings, desk.run, content)})


PAGE = Page("setup", "Setup", ("setup",), _add_routes)
