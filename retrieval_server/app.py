"""The application: which route does what, and how a refusal looks. Wiring only."""

import contextlib
import io
import logging
from collections.abc import AsyncIterator, Sequence
from typing import Annotated, Literal

import numpy as np
from fastapi import Depends, FastAPI, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse, PlainTextResponse
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import ClientDisconnect
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from index_builder.metadata.predicates import Predicate
from retrieval_server import openapi
from retrieval_server.access_log import AccessLines, AccessLog
from retrieval_server.bodies import read_body
from retrieval_server.front_page import front_page
from retrieval_server.guard import LOOPBACK, Guard
from retrieval_server.refusals import Refusal
from retrieval_server.search import BatchQuestion
from retrieval_server.service import Service
from retrieval_server.settings import ServerSettings
from spine.errors import FactoryError
from spine.protocol import ARROW_STREAM, NPY
from spine.settings import AestheticMin, FiltersConfig

_log = logging.getLogger("popfactory.server")

WARNING_HEADER = "X-Popfactory-Warning"
"""On an answer that left out something that was asked for."""


_Threshold = Annotated[float | None, Query(allow_inf_nan=False)]


def build_app(settings: ServerSettings, *, token: str = "", any_host: bool = False) -> FastAPI:
    """Open the indices and wire the routes.

    Args:
        settings: What to serve.
        token: Bearer token that requests must carry; empty for none.
        any_host: Answer whatever name the server is asked by; false is the loopback's names and settings.hosts.

    Raises:
        ConfigError: An index is set up wrong.
        DataError: An index can't be read.
    """
    service, access_lines = Service(settings), AccessLines()

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        service.close()
        access_lines.write()

    app = FastAPI(
        title="popfactory retrieval server", lifespan=lifespan, redirect_slashes=False, redoc_url=None
    )
    _add_clip_retrieval_routes(app, service)
    _add_own_routes(app, service)
    _add_probes(app, service)
    _add_refusals(app)
    app.openapi = lambda: openapi.described(app)  # type: ignore[method-assign]
    hosts = settings.hosts if any_host else (*LOOPBACK, *settings.hosts)
    app.add_middleware(Guard, token=token, hosts=hosts)
    app.state.service = service
    if settings.origins:
        app.add_middleware(
            CORSMiddleware, allow_origins=settings.origins, allow_methods=["GET", "POST"], allow_headers=["*"]
        )
    app.add_middleware(AccessLog, lines=access_lines)
    return app


class _KnnService:
    """POST /knn-service as a plain ASGI application."""

    def __init__(self, service: Service) -> None:
        self._service = service

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        with self._service.admission.body() as held:
            content, warnings = await self._service.knn(await read_body(Request(scope, receive), held))
        answer = Response(content, media_type="application/json", headers=_warned(warnings))
        await answer(scope, receive, send)


def _add_clip_retrieval_routes(app: FastAPI, service: Service) -> None:
    # Without FastAPI's own steps, which cost as much as all the rest of a small query's way through HTTP.
    app.router.routes.insert(0, Route("/knn-service", _KnnService(service), methods=["POST"]))

    @app.post("/metadata", openapi_extra=openapi.METADATA)
    async def metadata(request: Request) -> Response:
        """Metadata of rows."""
        with service.admission.body() as held:
            content = await service.rows(await read_body(request, held))
        return Response(content, media_type="application/json")

    @app.get("/indices-list")
    async def indices_list() -> list[str]:
        """Names of the indices; the first serves requests that name none."""
        return list(service.indices)

    @app.get("/metrics")
    async def metrics() -> Response:
        """Prometheus metrics."""
        return Response(service.metrics.text(), media_type="text/plain; version=0.0.4")

    @app.get("/metrics-summary")
    async def metrics_summary() -> PlainTextResponse:
        """Where the time of requests goes, for a person."""
        return PlainTextResponse(service.metrics.summary())

    @app.get("/favicon.ico", include_in_schema=False)
    async def icon() -> Response:
        """None: browsers ask for one by themselves, and an error would stand in every log."""
        return Response(status_code=204, headers={"Cache-Control": "max-age=86400"})

    @app.get("/", include_in_schema=False)
    async def front(request: Request) -> HTMLResponse:
        page = front_page(service.indices.values(), str(request.base_url).rstrip("/"))
        policy = "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'"
        return HTMLResponse(page, headers={"Content-Security-Policy": policy})


def _batch_question(
    k: int,
    modality: str = "image",
    nprobe: int = 0,
    columns: Annotated[list[str] | None, Query()] = None,
    aesthetic_score: Annotated[int | None, Query(ge=0, le=9)] = None,
    aesthetic_weight: Annotated[float, Query(ge=-1e6, le=1e6, allow_inf_nan=False)] = 0.5,
    min_side_px: Annotated[int, Query(ge=0, le=1_000_000)] = 0,
    pwatermark_max: _Threshold = None,
    punsafe_max: _Threshold = None,
    aesthetic_min: _Threshold = None,
    alt_txt_similarity_min: _Threshold = None,
    languages: Annotated[list[str] | None, Query(max_length=200)] = None,
    unknown: Literal["keep", "drop"] = "drop",
) -> BatchQuestion:
    """What the query string of POST /knn-batch asks of each embedding."""
    filters = FiltersConfig(
        min_side_px=min_side_px,
        pwatermark_max=pwatermark_max,
        punsafe_max=punsafe_max,
        aesthetic_min=AestheticMin(value=aesthetic_min),
        unknown=unknown,
    )
    return BatchQuestion(
        k=k,
        modality=modality,
        nprobe=nprobe,
        columns=None if columns is None else list(dict.fromkeys(columns)),
        aesthetic_score=aesthetic_score,
        aesthetic_weight=aesthetic_weight,
        predicate=Predicate(
            filters=filters,
            languages=tuple(languages or ()),
            alt_txt_similarity_min=alt_txt_similarity_min,
        ),
    )


def _add_own_routes(app: FastAPI, service: Service) -> None:
    @app.post("/knn-batch", openapi_extra=openapi.KNN_BATCH, response_class=Response)
    async def knn_batch(
        request: Request,
        question: Annotated[BatchQuestion, Depends(_batch_question)],
        indice_name: str | None = None,
    ) -> Response:
        """The nearest pictures of many embeddings: .npy of shape (n, d) in, an Arrow stream out."""
        with service.admission.body() as held:
            body = await read_body(request, held)
            content, warnings = await service.batch(body, indice_name, question)
        return Response(content, media_type=ARROW_STREAM, headers=_warned(warnings))

    @app.post("/embed", openapi_extra=openapi.EMBED)
    async def embed(request: Request) -> Response:
        """Unit vectors of texts or pictures, as JSON or .npy by the Accept header."""
        with service.admission.body() as held:
            vectors, model = await service.embed(await read_body(request, held))
        if NPY in request.headers.get("accept", ""):
            file = io.BytesIO()
            np.save(file, vectors, allow_pickle=False)
            return Response(file.getvalue(), media_type=NPY)
        return JSONResponse({"model": model, "embeddings": vectors.tolist()})


def _add_probes(app: FastAPI, service: Service) -> None:
    @app.get("/live")
    async def live() -> dict[str, str]:
        """Whether the process answers."""
        return {"status": "live"}

    @app.get("/ready")
    async def ready() -> dict[str, object]:
        """Whether every index is open, every list can be read, and the server goes on; how large the indices are."""
        service.check_ready()
        return {
            "status": "ready",
            "indices": {name: index.n for name, index in service.indices.items()},
        }


def _add_refusals(app: FastAPI) -> None:
    @app.exception_handler(Refusal)
    async def refused(_: Request, error: Refusal) -> JSONResponse:
        headers = {"Retry-After": "1"} if error.code == "busy" else {}
        if error.status in (408, 413, 503):
            headers["Connection"] = "close"  # or the rest of the body would still be taken in
        return JSONResponse({"message": str(error), "code": error.code}, error.status, headers)

    @app.exception_handler(FactoryError)
    async def not_possible(_: Request, error: FactoryError) -> JSONResponse:
        # Such a message is for the server's operator: it may name files.
        _log.error("%s", error)
        words = "this server can't do that as it is set up; its log says why"
        return JSONResponse({"message": words, "code": "not_possible"}, 400)

    @app.exception_handler(RequestValidationError)
    async def not_valid(_: Request, error: RequestValidationError) -> JSONResponse:
        return JSONResponse({"message": _first_problem(error.errors()), "code": "bad_request"}, 400)

    @app.exception_handler(HTTPException)
    async def no_route(_: Request, error: HTTPException) -> JSONResponse:
        code = {404: "no_route", 405: "wrong_method"}.get(error.status_code, "bad_request")
        return JSONResponse({"message": str(error.detail), "code": code}, error.status_code, error.headers)

    @app.exception_handler(ClientDisconnect)
    async def gone(_: Request, __: ClientDisconnect) -> Response:
        return Response(status_code=400)  # nobody reads it

    @app.exception_handler(Exception)
    async def a_bug(_: Request, __: Exception) -> JSONResponse:
        return JSONResponse({"message": "Internal Server Error", "code": "internal"}, 500)


def _warned(warnings: Sequence[str]) -> dict[str, str]:
    return {WARNING_HEADER: "; ".join(warnings)} if warnings else {}


def _first_problem(errors: Sequence[dict[str, object]]) -> str:
    if not errors:
        return "the request is not valid"
    place = errors[0].get("loc")
    name = place[-1] if isinstance(place, tuple | list) and place else "request"
    return f"{name}: {errors[0].get('msg')}"
