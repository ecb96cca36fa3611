"""The Release page: what would be published, what was, and what differs."""

from fastapi import FastAPI
from fastapi.responses import FileResponse, JSONResponse, Response

from ui.desk import Desk
from ui.pages import Page, fresh
from ui.release_desk import ReleaseDesk
from ui.release_figures import ReleaseFigures


def _add_routes(app: FastAPI, desk: Desk) -> None:
    releases, counted = ReleaseDesk(desk), ReleaseFigures(desk)

    @app.get("/api/release")
    def about() -> JSONResponse:
        return fresh(releases.about())

    @app.get("/api/release/figures")
    def figures() -> JSONResponse:
        return fresh(counted.figures())

    @app.get("/api/release/draft")
    def draft() -> JSONResponse:
        return fresh(releases.draft())

    @app.get("/api/release/samples")
    def samples(name: str, seed: int = 0) -> JSONResponse:
        return fresh(releases.samples(name, seed))

    @app.get("/api/release/resemblance")
    def resemblance(name: str) -> JSONResponse:
        return fresh(releases.resemblance(name))

    @app.get("/api/release/diff")
    def diff(old: str, new: str) -> JSONResponse:
        return fresh(releases.difference(old, new))

    @app.get("/api/release/blocked")
    def blocked() -> JSONResponse:
        return fresh(releases.blocked())

    @app.get("/api/release/card/{name}")
    def card(name: str) -> Response:
        # Plain text with nosniff: what stands in it is never taken for a page.
        return FileResponse(
            releases.file(name, "README.md"),
            media_type="text/plain; charset=utf-8",
            headers={"Cache-Control": "no-store"},
        )

    @app.get("/api/release/files/{name}/{path:path}")
    def file(name: str, path: str) -> Response:
        found = releases.file(name, path)
        return FileResponse(
            found,
            media_type="application/octet-stream",
            filename=f"{name}-{found.name}",
            content_disposition_type="attachment",
            headers={"Cache-Control": "no-store"},
        )


PAGE = Page("release", "Release", ("release",), _add_routes)
