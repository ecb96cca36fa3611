"""The Captions page: what captioners wrote, what curators make of it, and captioning runs."""

import json
import re
from collections.abc import Mapping
from typing import Any

from fastapi import FastAPI, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import JSONResponse

from spine.errors import DataError
from spine.jobs import answer_of
from spine.prompts import Prompt, prompts_of
from ui.caption_desk import CaptionDesk
from ui.caption_list import ANY, NONE, ORDERS, STATES, Asked
from ui.caption_tables import FLAG_MEANINGS
from ui.captioning import kept_captioning
from ui.desk import Desk
from ui.pages import Page, fresh
from ui.requests import json_of

_MOST_PREVIEWED = 50
_MOST_AGAIN = 200


def _add_routes(app: FastAPI, desk: Desk) -> None:
    captions = CaptionDesk(desk)

    @app.get("/api/captions")
    def page(
        show: str = "",
        flag: str = "",
        centroid: str = "",
        sort: str = "centroid",
        begin: str = "",
        after: str = "",
        before: str = "",
        limit: int = 40,
    ) -> JSONResponse:
        asked = _asked(show, flag, centroid, sort)
        places = {"begin": _id(begin), "after": _id(after), "before": _id(before)}
        return fresh(captions.page(asked, **places, limit=limit) | {"meanings": FLAG_MEANINGS})

    @app.get("/api/captions/unflagged")
    def unflagged(centroid: str = "", sort: str = "centroid") -> JSONResponse:
        return fresh(captions.unflagged(_asked("", "", centroid, sort)))

    @app.get("/api/captions/shown")
    def shown(show: str = "", flag: str = "", centroid: str = "", sort: str = "centroid") -> JSONResponse:
        return fresh(captions.shown(_asked(show, flag, centroid, sort), _MOST_AGAIN))

    @app.get("/api/captions/form")
    def form() -> JSONResponse:
        return fresh(captions.form())

    @app.get("/api/captions/kept")
    def kept(centroid: int, prompt: str = "") -> JSONResponse:
        return fresh(kept_captioning(desk, centroid, prompt))

    @app.get("/api/captions/estimate")
    def estimate(
        limit: int | None = None, failed_only: bool = False, kept_in: int | None = None
    ) -> JSONResponse:
        options = _run_options({"limit": limit, "failed_only": failed_only})
        if kept_in is not None:
            options += ["--kept-in", str(kept_in)]
        arguments = ["caption", str(desk.run.folder), "--dry-run", "--json", *options]
        return fresh(json.loads(answer_of(arguments)))

    @app.get("/api/captions/previews")
    def previews() -> JSONResponse:
        return fresh({"previews": captions.previews()})

    @app.get("/api/captions/previews/{name}")
    def preview(name: str) -> JSONResponse:
        return fresh(captions.preview(name) | {"meanings": FLAG_MEANINGS})

    @app.post("/api/captions/start")
    async def start(request: Request) -> JSONResponse:
        options = _options(await json_of(request), prompts_of(desk.run))
        return fresh({"job": await run_in_threadpool(desk.jobs.start_with, "caption", options)})


def _asked(show: str, flag: str, centroid: str, sort: str) -> Asked:
    """What an address asks to see; a word it can't know is an old or mistyped link."""
    for name, value, known in (
        ("show", show, ("", *STATES)),
        ("flag", flag, ("", ANY, NONE, *FLAG_MEANINGS)),
        ("sort", sort, ORDERS),
    ):
        if value not in known:
            raise DataError(
                f"{name} = {value[:40]!r} is unknown; there are: {', '.join(filter(None, known))}"
            )
    number = _id(centroid)
    return Asked(show=show, flag=flag, centroid=number, sort=sort)


def _id(text: str) -> int | None:
    if not text:
        return None
    if not re.fullmatch(r"-?\d{1,19}", text) or not -(2**63) <= int(text) < 2**63:
        raise DataError(f"{text[:40]!r} is no id; go to the page without it")
    return int(text)


def _options(content: Any, known: Mapping[str, Prompt]) -> list[str]:
    """The options of `popfactory caption` for what a page wants started.

    Args:
        content: {"kind": "run", "limit", "failed_only"}, {"kind": "preview", "n", "prompts", "models"} or
            {"kind": "again", "ids", "prompt", "model"}.
        known: Prompts by id.

    Raises:
        DataError: It is something else.
    """
    if not isinstance(content, dict):
        raise DataError('{"kind": "run"} was needed')
    match content.get("kind"):
        case "run":
            return _run_options(content)
        case "preview":
            n = content.get("n")
            if type(n) is not int or not 1 <= n <= _MOST_PREVIEWED:
                raise DataError(f"n = {n!r}, 1 to {_MOST_PREVIEWED} pictures were needed")
            return ["--preview", str(n), *_who(content.get("prompts"), content.get("models"), known)]
        case "again":
            ids = content.get("ids")
            if not isinstance(ids, list) or not 1 <= len(ids) <= _MOST_AGAIN:
                raise DataError(f"ids: a list of 1 to {_MOST_AGAIN} was needed")
            if not all(isinstance(each, str) and _id(each) is not None for each in ids):
                raise DataError("ids: decimal texts were needed")
            named = [word for each in ids for word in ("--only", each)]
            prompt, model = content.get("prompt"), content.get("model")
            return [*named, *_who([prompt] if prompt else [], [model] if model else [], known)]
    raise DataError(f"kind = {content.get('kind')!r} is none of run, preview, again")


def _run_options(content: dict[str, Any]) -> list[str]:
    limit, options = content.get("limit"), []
    if limit is not None:
        if type(limit) is not int or limit < 1:
            raise DataError(f"limit = {limit!r}, 1 or more was needed")
        options = ["--limit", str(limit)]
    return [*options, "--failed-only"] if content.get("failed_only") is True else options


def _who(prompts: Any, models: Any, known: Mapping[str, Prompt]) -> list[str]:
    if not isinstance(prompts, list) or not isinstance(models, list):
        raise DataError("prompts and models: two lists were needed")
    for prompt in prompts:
        if prompt not in known:
            raise DataError(f"prompt {str(prompt)[:40]!r} is unknown; there are: {', '.join(known)}")
    for model in models:
        if not isinstance(model, str) or not 1 <= len(model) <= 300 or model.startswith("-"):
            raise DataError(f"model {str(model)[:40]!r}: a name or folder was needed")
    words = [word for prompt in prompts for word in ("--prompt", prompt)]
    return [*words, *(word for model in models for word in ("--model", model))]


PAGE = Page("captions", "Captions", ("captions",), _add_routes)
