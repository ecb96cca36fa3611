"""The board's own routes: data for the pages, decisions and jobs from them, thumbnails."""

import hashlib
import json
import logging
import re
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow.compute as pc
from fastapi import FastAPI, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import FileResponse, JSONResponse

from curation.funnel import funnel
from spine.config import uses_demo_models
from spine.errors import DataError, FactoryError
from spine.jobs import cancel_job, list_jobs
from spine.run import Run
from ui.board import (
    Measured,
    centroid_rows,
    filter_settings,
    funnel_rows,
    neighbour_rows,
    unsafe_limit,
)
from ui.decision_log import DecisionLog
from ui.job_queue import JobQueue, job_row
from ui.snapshot import Snapshot
from ui.thumbnails import Thumbnails

STATIC = Path(__file__).parent / "static"
DEMO_STAMP = "demo models: captions and scores come from small models trained on drawn scenes"

_MAX_BODY_BYTES = 4_000_000
_JOBS_SHOWN = 100
_logger = logging.getLogger(__name__)


class Board:
    """What the routes share: the run's tables, thumbnails, decisions and jobs."""

    def __init__(self, run: Run, *, server_url: str | None = None) -> None:
        self.run = run
        self.server_url = server_url
        self.snapshot = Snapshot(run)
        self.thumbnails = Thumbnails(run.thumbnails)
        self.decisions = DecisionLog(run)
        self.jobs = JobQueue(run)

    def close(self) -> None:
        """Stop what runs beside the server; jobs at work go on."""
        self.jobs.close()
        self.thumbnails.close()

    def static_version(self) -> str:
        """Changes with the script and the style sheet, so that a browser doesn't keep old ones."""
        content = b"".join(path.read_bytes() for path in sorted(STATIC.iterdir()))
        return hashlib.sha256(content).hexdigest()[:12]

    def about(self) -> dict[str, Any]:
        """The run as the page's head, filters and captioning panel need it."""
        config, snapshot = self.snapshot.config(), self.snapshot
        stages = {
            name: snapshot.manifest(folder)
            for name, folder in (
                ("centroids", self.run.centroids),
                ("neighbours", self.run.neighbours),
                ("images", self.run.images),
                ("scores", self.run.scores),
                ("selection", self.run.selection),
                ("captions", self.run.captions),
            )
        }
        facts = [manifest.facts for manifest in stages.values() if manifest is not None]
        demo = uses_demo_models(config) or any(fact.get("demo_models") for fact in facts)
        selection = stages["selection"]
        return {
            "run": self.run.folder.absolute().name,
            "run_id": hashlib.sha256(str(self.run.folder.resolve()).encode()).hexdigest()[:16],
            "demo": DEMO_STAMP if demo else None,
            "stages": {name: manifest is not None for name, manifest in stages.items()},
            "filters": filter_settings(config.filters),
            "caption": {
                "engine": config.caption.engine,
                "model": config.caption.model,
                "prompt": config.caption.prompt,
            },
            "selected": selection.counts.get("pictures_selected") if selection is not None else None,
            "quota": config.select.quota_per_centroid,
            "funnel": funnel_rows(funnel(self.run)),
            "server": self.server_url,
        }

    def centroids(self) -> list[dict[str, Any]]:
        """The list of centroids."""
        snapshot = self.snapshot
        exemplars = snapshot.exemplars()
        scored = snapshot.exemplar_scores().rows(exemplars.ids).column("unsafe")
        place = exemplars.table.schema.get_field_index("punsafe")
        known = pc.coalesce(scored, exemplars.table.column("punsafe"))
        return centroid_rows(
            snapshot.centroids(),
            snapshot.neighbour_counts(),
            snapshot.selection(),
            self.decisions.counts(),
            exemplars.table.set_column(place, "punsafe", known),
            unsafe_limit(snapshot.config().filters),
        )

    def neighbours(self, centroid_id: int) -> list[dict[str, Any]]:
        """The neighbours of one centroid, in order of rank.

        Raises:
            DataError: The run has no such centroid.
        """
        snapshot, lists = self.snapshot, self.snapshot.lists()
        if not pc.any(pc.equal(snapshot.centroids().column("centroid_id"), centroid_id)).as_py():
            raise DataError(f"centroid {centroid_id} is not in this run; reload the page")
        neighbours = snapshot.neighbours(centroid_id)
        ids: npt.NDArray[np.int64] = np.asarray(
            neighbours.column("id").to_numpy(zero_copy_only=False), dtype=np.int64
        )
        measured = Measured(
            snapshot.images().rows(ids),
            snapshot.scores().rows(ids),
            snapshot.groups().rows(ids),
            snapshot.captions().rows(ids),
        )
        selection = snapshot.selection()
        return neighbour_rows(
            neighbours,
            measured,
            selection.filter(pc.equal(selection.column("centroid_id"), centroid_id)),
            self.decisions.verdicts(ids.tolist()),
            snapshot.config(),
            lambda picture, url, sha256: lists.blocks(picture_id=picture, url=url, sha256=sha256),
        )

    def record(self, content: Any) -> dict[str, Any]:
        """Record what a page sent; see `DecisionLog.record`."""
        manifest = self.snapshot.manifest(self.run.neighbours)
        return self.decisions.record(content, manifest.digest if manifest is not None else None)

    def thumbnail(self, sha256: str, *, blurred: bool) -> Response:
        """The thumbnail of a picture of this run; 404 where there is none, 410 where a list keeps it out."""
        picture = self.snapshot.find_picture(sha256)
        if picture is None:
            return JSONResponse({"error": "no picture of this run has this hash"}, 404)
        lists = self.snapshot.lists()
        if lists.blocks(picture_id=picture.picture_id, url=picture.url, sha256=sha256) is not None:
            return JSONResponse({"error": "a list keeps this picture out"}, 410)
        try:
            content = self.thumbnails.get(sha256, picture.place, blurred=blurred)
        except FactoryError as error:
            _logger.warning("no thumbnail of %s: %s", sha256, error)
            return JSONResponse({"error": "this picture can't be opened"}, 404)
        headers = {"Cache-Control": "private, max-age=31536000, immutable"}
        return Response(content, media_type="image/webp", headers=headers)


def add_routes(app: FastAPI, board: Board) -> None:
    """Put the board's routes on the app, in front of Gradio's."""

    @app.exception_handler(FactoryError)
    def explain(_: Request, error: FactoryError) -> JSONResponse:
        return JSONResponse({"error": str(error)}, 409)

    @app.get("/api/run")
    def about() -> JSONResponse:
        return _fresh(board.about())

    @app.get("/api/centroids")
    def centroids() -> JSONResponse:
        return _fresh({"centroids": board.centroids()})

    @app.get("/api/neighbours")
    def neighbours(centroid: int) -> JSONResponse:
        if not 0 <= centroid < 2**31:
            raise DataError(f"centroid {centroid} is not in this run; reload the page")
        last_event = board.decisions.last_event()
        rows = board.neighbours(centroid)
        return _fresh({"centroid": str(centroid), "rows": rows, "last_event": last_event})

    @app.post("/api/decisions")
    async def decide(request: Request) -> JSONResponse:
        content = await _json_of(request)
        return _fresh(await run_in_threadpool(board.record, content))

    @app.get("/api/jobs")
    def jobs() -> JSONResponse:
        rows = [job_row(job) for job in list_jobs(board.run)[:_JOBS_SHOWN]]
        return _fresh({"jobs": rows, "waiting": board.jobs.waiting})

    @app.post("/api/jobs")
    async def start(request: Request) -> JSONResponse:
        content = await _json_of(request)
        commands = content.get("commands") if isinstance(content, dict) else None
        if not isinstance(commands, list) or not all(isinstance(command, str) for command in commands):
            raise DataError('{"commands": ["select", "caption"]} was needed')
        return _fresh({"job": await run_in_threadpool(board.jobs.start, commands)})

    @app.post("/api/jobs/{job_id}/cancel")
    def cancel(job_id: str) -> JSONResponse:
        board.jobs.drop_waiting()
        cancel_job(board.run, job_id)
        return _fresh({"job": job_id})

    @app.get("/thumb/{name}")
    def thumb(name: str) -> Response:
        found = re.fullmatch(r"([0-9a-f]{64})(\.blurred)?\.webp", name)
        if found is None:
            return JSONResponse({"error": "a thumbnail is SHA256.webp or SHA256.blurred.webp"}, 404)
        return board.thumbnail(found[1], blurred=found[2] is not None)

    @app.get("/static/board.js")
    def script() -> FileResponse:
        return FileResponse(STATIC / "board.js", media_type="text/javascript")

    @app.get("/static/board.css")
    def style() -> FileResponse:
        return FileResponse(STATIC / "board.css", media_type="text/css")

    @app.get("/favicon.ico")
    def icon() -> FileResponse:
        return FileResponse(STATIC / "icon.svg", media_type="image/svg+xml")


def _fresh(content: Any) -> JSONResponse:
    return JSONResponse(content, headers={"Cache-Control": "no-store"})


async def _json_of(request: Request) -> Any:
    """A bounded JSON body.

    Raises:
        DataError: It is too long or no JSON.
    """
    content = b""
    async for chunk in request.stream():
        content += chunk
        if len(content) > _MAX_BODY_BYTES:
            raise DataError(f"more than {_MAX_BODY_BYTES:,} bytes; send less at once")
    try:
        return json.loads(content)
    except ValueError:
        raise DataError("the body is no JSON") from None
