"""The Jobs page: every job of the run, whoever started it."""

from fastapi import FastAPI, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import JSONResponse

from spine.errors import DataError
from spine.jobs import cancel_job, list_jobs
from ui.desk import Desk
from ui.job_queue import job_row
from ui.pages import Page, fresh
from ui.requests import json_of

_JOBS_SHOWN = 100


def _add_routes(app: FastAPI, desk: Desk) -> None:
    @app.get("/api/jobs")
    def jobs() -> JSONResponse:
        rows = [job_row(job) for job in list_jobs(desk.run)[:_JOBS_SHOWN]]
        return fresh({"jobs": rows, "waiting": desk.jobs.waiting})

    @app.post("/api/jobs")
    async def start(request: Request) -> JSONResponse:
        content = await json_of(request)
        commands = content.get("commands") if isinstance(content, dict) else None
        if not isinstance(commands, list) or not all(isinstance(command, str) for command in commands):
            raise DataError('{"commands": ["select", "caption"]} was needed')
        return fresh({"job": await run_in_threadpool(desk.jobs.start, commands)})

    @app.post("/api/jobs/{job_id}/cancel")
    def cancel(job_id: str) -> JSONResponse:
        desk.jobs.drop_waiting()
        cancel_job(desk.run, job_id)
        return fresh({"job": job_id})


PAGE = Page("jobs", "Jobs", ("jobs",), _add_routes)
