"""The Curate page: centroids, the neighbours of one, decisions on them, and searches."""

import re
from dataclasses import asdict
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import JSONResponse

from curation.views import View
from spine.errors import DataError
from ui.desk import Desk
from ui.gallery import Gone
from ui.pages import Page, fresh
from ui.requests import json_of
from ui.search import NoServer

_FOREVER = {"Cache-Control": "private, max-age=31536000, immutable"}
_A_WHILE = {"Cache-Control": "private, max-age=600"}


def _add_routes(app: FastAPI, desk: Desk) -> None:
    _add_pictures(app, desk)
    _add_searches(app, desk)
    _add_views(app, desk)

    @app.get("/api/centroids")
    def centroids() -> JSONResponse:
        # Before the rows: what is published while they are read is news to the page.
        state = desk.state()
        return fresh({"centroids": desk.centroids(), "state": state})

    @app.get("/api/neighbours")
    def neighbours(centroid: int) -> JSONResponse:
        if not 0 <= centroid < 2**31:
            raise DataError(f"centroid {centroid} is not in this run; reload the page")
        # Before the rows: what is decided while they are read is told as news, never missed.
        last_event = desk.decisions.last_event()
        rows = desk.gallery.of_centroid(centroid)
        digest = desk.snapshot.digest(desk.run.neighbours)
        return fresh(
            {"centroid": str(centroid), "rows": rows, "last_event": last_event, "neighbours": digest}
        )

    @app.get("/api/news")
    def news(since: int, client: str = "", curator: str = "", centroid: int = -1) -> JSONResponse:
        if centroid >= 0:
            desk.claims.take(client[:80], curator[:80], centroid)
        held = {str(centroid): curator for centroid, curator in desk.claims.held(curator[:80]).items()}
        return fresh(desk.decisions.since(since) | {"claims": held, "state": desk.state()})

    @app.post("/api/decisions")
    async def decide(request: Request) -> JSONResponse:
        content = await json_of(request)
        answer = await run_in_threadpool(desk.record, content)
        # 409: some of it was left alone, and here is what counts instead. The rest is stored.
        return JSONResponse(
            answer,
            409 if answer["conflicts"] or answer["gone"] else 200,
            headers={"Cache-Control": "no-store"},
        )


def _add_pictures(app: FastAPI, desk: Desk) -> None:
    @app.get("/thumb/{name}")
    def thumb(name: str, by: str = "") -> Response:
        found = re.fullmatch(r"([0-9a-f]{64})(\.large)?(\.blurred)?\.webp", name)
        if found is None:
            return JSONResponse({"error": "a thumbnail is SHA256.webp or SHA256.blurred.webp"}, 404)
        sha256, large, blurred = found[1], found[2] is not None, found[3] is not None
        try:
            content = desk.gallery.thumbnail(sha256, blurred=blurred, large=large)
        except Gone as gone:
            return JSONResponse({"error": str(gone)}, gone.status)
        if not blurred:
            desk.reveals.note(sha256, by[:80])
        return Response(content, media_type="image/webp", headers=_FOREVER)

    @app.get("/preview/{name}")
    def preview(name: str) -> Response:
        found = re.fullmatch(r"(-?[0-9]{1,19})(\.blurred)?\.webp", name)
        if found is None:
            return JSONResponse({"error": "a preview is ID.webp or ID.blurred.webp"}, 404)
        try:
            made = desk.gallery.preview(int(found[1]))
        except Gone as gone:
            return JSONResponse({"error": str(gone)}, gone.status, headers={"Cache-Control": "no-store"})
        content = made.clear if found[2] is None else made.blurred
        return Response(content or b"", media_type="image/webp", headers=_A_WHILE)

    @app.get("/api/picture")
    def picture(of: str) -> JSONResponse:
        if not re.fullmatch(r"-?[0-9]{1,19}", of):
            raise DataError(f"{of[:40]!r} is no id of a picture")
        try:
            return fresh(desk.gallery.about(int(of)))
        except Gone as gone:
            return JSONResponse({"error": str(gone)}, gone.status)


def _add_searches(app: FastAPI, desk: Desk) -> None:
    @app.exception_handler(NoServer)
    def no_server(_: Request, error: NoServer) -> JSONResponse:
        return JSONResponse({"error": str(error), "server": False}, 503)

    @app.get("/api/server")
    def server() -> JSONResponse:
        return fresh(desk.search.state())

    @app.get("/api/ranking")
    def ranking(like: str) -> JSONResponse:
        return fresh(desk.search.ranking(like))

    @app.get("/api/search")
    def search(like: str) -> JSONResponse:
        last_event = desk.decisions.last_event()
        rows = desk.gallery.of_search(desk.search.pool(like))
        return fresh({"like": like, "rows": rows, "last_event": last_event})

    @app.post("/api/search/picture")
    async def remember(request: Request) -> JSONResponse:
        content = await json_of(request)
        encoded = content.get("picture") if isinstance(content, dict) else None
        if not isinstance(encoded, str):
            raise DataError('{"picture": BASE64} was needed')
        return fresh({"like": await run_in_threadpool(desk.search.remember_picture, encoded)})

    @app.post("/api/concepts")
    async def concept(request: Request) -> JSONResponse:
        content = await json_of(request)
        given = [_text(content, name) for name in ("like", "label", "curator")]
        return fresh({"centroid": str(await run_in_threadpool(desk.search.add_concept, *given))})


def _add_views(app: FastAPI, desk: Desk) -> None:
    @app.get("/api/views")
    def views(curator: str) -> JSONResponse:
        return fresh({"views": [asdict(view) for view in desk.views.of(curator)]})

    @app.post("/api/views")
    async def save(request: Request) -> JSONResponse:
        content = await json_of(request)
        view = View(
            name=_text(content, "name").strip(),
            owner=_text(content, "curator").strip(),
            query=_text(content, "query"),
            shared=bool(content.get("shared")),
        )
        await run_in_threadpool(desk.views.save, view)
        return fresh({"saved": view.name})

    @app.post("/api/views/delete")
    async def delete(request: Request) -> JSONResponse:
        content = await json_of(request)
        await run_in_threadpool(desk.views.delete, _text(content, "curator"), _text(content, "name"))
        return fresh({"deleted": content["name"]})


def _text(content: Any, name: str) -> str:
    value = content.get(name) if isinstance(content, dict) else None
    if not isinstance(value, str):
        raise DataError(f"{name}: a text was needed")
    return value


PAGE = Page("", "Curate", ("centroids", "grid", "side"), _add_routes)
