"""The Setup page: the server, the lists and the settings as they stand."""

from fastapi import FastAPI
from fastapi.responses import JSONResponse

from ui.desk import Desk
from ui.pages import Page, fresh


def _add_routes(app: FastAPI, desk: Desk) -> None:
    @app.get("/api/setup")
    def setup() -> JSONResponse:
        lists = desk.snapshot.lists()
        entries = sum(
            map(len, (lists.ids, lists.urls, lists.domains, lists.hashes, lists.url_hashes, lists.pdq))
        )
        return fresh({"server": desk.server_url, "lists": {"entries": entries}})


PAGE = Page("setup", "Setup", ("setup",), _add_routes)
