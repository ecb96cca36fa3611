"""The Jobs page: every job of the run, whoever started it."""

import shlex
from dataclasses import asdict
from typing import Any

from fastapi import FastAPI, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import JSONResponse

from spine.errors import DataError
from spine.jobs import cancel_job
from spine.journals import progress_of
from ui.desk import Desk
from ui.failures import examples
from ui.job_queue import job_row
from ui.job_samples import samples
from ui.pages import Page, fresh
from ui.requests import json_of
from ui.start_form import MEANINGS, OPTIONS

_JOBS_SHOWN = 100
_MOST_JOBS = 10_000
_POINTS_SHOWN = 256


def _add_routes(app: FastAPI, desk: Desk) -> None:
    @app.get("/api/jobs")
    def jobs(count: int = _JOBS_SHOWN) -> JSONResponse:
        rows = [job_row(job) for job in desk.job_list.newest(min(max(count, 1), _MOST_JOBS))]
        return fresh({"jobs": rows, "total": desk.job_list.total(), "waiting": desk.jobs.waiting})

    @app.post("/api/jobs")
    async def start(request: Request) -> JSONResponse:
        content = await json_of(request)
        commands = content.get("commands") if isinstance(content, dict) else None
        if not isinstance(commands, list) or not all(isinstance(command, str) for command in commands):
            raise DataError('{"commands": ["select", "caption"]} was needed')
        return fresh({"job": await run_in_threadpool(desk.jobs.start, commands)})

    @app.get("/api/jobs/form")
    def form() -> JSONResponse:
        commands = [
            {"name": name, "meaning": meaning, "options": [asdict(option) for option in OPTIONS[name]]}
            for name, meaning in MEANINGS.items()
        ]
        return fresh({"run": shlex.quote(str(desk.run.folder)), "commands": commands})

    @app.get("/api/jobs/{job_id}")
    def job(job_id: str) -> JSONResponse:
        return fresh(_story(desk, job_id))

    @app.get("/api/jobs/{job_id}/points")
    def points(job_id: str, since: float, until: float) -> JSONResponse:
        desk.job_list.read(job_id)
        return fresh({"points": _spread(progress_of(desk.run, job_id, since, until))})

    @app.get("/api/jobs/{job_id}/examples")
    def failed(job_id: str, stage: str, reason: str) -> JSONResponse:
        desk.job_list.read(job_id)
        return fresh({"examples": examples(desk.run, stage, reason)})

    @app.get("/api/jobs/{job_id}/samples")
    def newest(job_id: str) -> JSONResponse:
        stage = desk.job_list.read(job_id).stage
        return fresh({"stage": stage, "samples": samples(desk.run, desk.gallery, stage)})

    @app.post("/api/jobs/{job_id}/again")
    def again(job_id: str) -> JSONResponse:
        command, *rest = desk.job_list.read(job_id).command
        if command not in MEANINGS:
            raise DataError(f"`popfactory {command}` is not started from here; type it in a terminal")
        # The run folder stands among the arguments as it was typed; it is put in anew.
        options = [each for each in rest if not _names_run(desk, each)]
        return fresh({"job": desk.jobs.start_with(command, options)})

    @app.post("/api/jobs/{job_id}/cancel")
    def cancel(job_id: str) -> JSONResponse:
        desk.jobs.drop_waiting()
        cancel_job(desk.run, job_id)
        return fresh({"job": job_id})


def _story(desk: Desk, job_id: str) -> dict[str, Any]:
    stages = desk.job_list.stages(job_id)
    return {
        "stages": [
            job_row(stage) | {"lines": [], "took": stage.updated - stage.points[0][0]} for stage in stages
        ],
        "points": stages[-1].points if stages else [],
    }


def _spread(points: list[tuple[float, int]]) -> list[tuple[float, int]]:
    """So many of them, the first and the last among them."""
    every = max(1, len(points) // _POINTS_SHOWN)
    return [*points[:-1:every], *points[-1:]]


def _names_run(desk: Desk, argument: str) -> bool:
    try:
        return desk.run.folder.samefile(argument)
    except OSError:
        return False


PAGE = Page("jobs", "Jobs", ("jobs",), _add_routes)
