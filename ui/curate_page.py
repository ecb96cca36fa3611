"""The Curate page: centroids, the neighbours of one, and decisions on them."""

from fastapi import FastAPI, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import JSONResponse

from spine.errors import DataError
from ui.desk import Desk
from ui.pages import Page, fresh
from ui.requests import json_of


def _add_routes(app: FastAPI, desk: Desk) -> None:
    @app.get("/api/centroids")
    def centroids() -> JSONResponse:
        return fresh({"centroids": desk.centroids()})

    @app.get("/api/neighbours")
    def neighbours(centroid: int) -> JSONResponse:
        if not 0 <= centroid < 2**31:
            raise DataError(f"centroid {centroid} is not in this run; reload the page")
        last_event = desk.decisions.last_event()
        rows = desk.neighbours(centroid)
        return fresh({"centroid": str(centroid), "rows": rows, "last_event": last_event})

    @app.post("/api/decisions")
    async def decide(request: Request) -> JSONResponse:
        content = await json_of(request)
        return fresh(await run_in_threadpool(desk.record, content))


PAGE = Page("", "Curate", ("centroids", "grid", "side"), _add_routes)
