"""The Setup page: the server, the lists and the settings as they stand."""

from fastapi import FastAPI, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import JSONResponse

from ui.desk import Desk
from ui.pages import Page, fresh
from ui.requests import json_of
from ui.settings_form import save_settings, setting_rows, settings_digest


def _add_routes(app: FastAPI, desk: Desk) -> None:
    @app.get("/api/setup")
    def setup() -> JSONResponse:
        lists = desk.snapshot.lists()
        entries = sum(
            map(len, (lists.ids, lists.urls, lists.domains, lists.hashes, lists.url_hashes, lists.pdq))
        )
        return fresh({"server": desk.server_url, "lists": {"entries": entries}})

    @app.get("/api/settings")
    def settings() -> JSONResponse:
        seen = settings_digest(desk.run)
        return fresh({"seen": seen, "settings": setting_rows(desk.snapshot.config())})

    @app.post("/api/settings")
    async def save(request: Request) -> JSONResponse:
        content = await json_of(request)
        return fresh({"seen": await run_in_threadpool(save_settings, desk.run, content)})


PAGE = Page("setup", "Setup", ("setup",), _add_routes)
