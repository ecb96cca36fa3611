"""What /docs and /openapi.json say of bodies that the routes read themselves, each with an example."""

from typing import Any

from fastapi import FastAPI

from spine.knn_query import MAX_RESULTS, MAX_TEXT_CHARACTERS
from spine.protocol import ARROW_STREAM, NPY

_TEXT = {"type": ["string", "null"]}
_FLAG = {"type": ["boolean", "null"], "default": False}
_INDEX = _TEXT | {"description": "Which index; null is the server's first."}
_ROWS = {"type": "array", "maxItems": MAX_RESULTS, "items": {"type": "integer", "minimum": 0}}

_QUERY = {
    "type": "object",
    "properties": {
        "text": _TEXT | {"maxLength": MAX_TEXT_CHARACTERS, "description": "Counts before all others."},
        "image": _TEXT | {"description": "A picture file in base64."},
        "image_url": _TEXT | {"description": "Fetched where the server is set so."},
        "embedding_input": {
            "type": ["array", "null"],
            "items": {"type": "number"},
            "description": "d numbers, searched as they are.",
        },
        "modality": {"type": ["string", "null"], "enum": ["image", "text", None], "default": "image"},
        "indice_name": _INDEX,
        "num_images": {
            "type": ["integer", "null"],
            "description": "How many results carry metadata, as a Python slice.",
        },
        "num_result_ids": {
            "type": ["integer", "null"],
            "minimum": 1,
            "maximum": MAX_RESULTS,
            "description": "Neighbours searched; num_images where it is left out.",
        },
        "deduplicate": _FLAG,
        "use_safety_model": _FLAG,
        "use_violence_detector": _FLAG,
        "use_mclip": _FLAG,
        "aesthetic_score": {
            "type": ["integer", "string", "null"],
            "enum": [*range(10), *map(str, range(10)), "", None],
        },
        "aesthetic_weight": {"type": ["number", "string", "null"]},
    },
}

_REFUSED: dict[str, Any] = {
    "type": "object",
    "required": ["message", "code"],
    "properties": {"message": {"type": "string"}, "code": {"type": "string"}},
}


def _json(schema: dict[str, Any], example: object) -> dict[str, Any]:
    return {"application/json": {"schema": schema, "example": example}}


def _described(body: dict[str, Any], answer: dict[str, Any]) -> dict[str, Any]:
    refused = {"description": "Refused, and why.", "content": {"application/json": {"schema": _REFUSED}}}
    return {
        "requestBody": {"required": True, "content": body},
        "responses": {
            "200": {"description": "Found.", "content": answer},
            "4XX": refused,
            "503": refused,
        },
    }


_KNN_SERVICE = _described(
    _json(_QUERY, {"text": "a red star", "num_images": 3}),
    _json(
        {"type": "array", "items": {"type": "object", "required": ["id", "similarity"]}},
        [{"url": "https://pictures.example/1.jpg", "caption": "a star", "id": 17, "similarity": 0.31}],
    ),
)

_KNN_SERVICE_ROUTE = {
    "summary": "Knn Service",
    "description": "The nearest pictures of a text, a picture or an embedding.",
    "operationId": "knn_service",
    **_KNN_SERVICE,
}

METADATA = _described(
    _json(
        {"type": "object", "required": ["ids"], "properties": {"ids": _ROWS, "indice_name": _INDEX}},
        {"ids": [0, 5, 17], "indice_name": None},
    ),
    _json(
        {"type": "array", "items": {"type": "object", "required": ["id", "metadata"]}},
        [{"id": 0, "metadata": {"url": "https://pictures.example/0.jpg"}}],
    ),
)

KNN_BATCH = _described(
    {NPY: {"schema": {"type": "string", "format": "binary"}}},
    {ARROW_STREAM: {"schema": {"type": "string", "format": "binary"}}},
)

EMBED = _described(
    _json(
        {
            "type": "object",
            "properties": {
                "texts": {"type": ["array", "null"], "items": {"type": "string"}},
                "images": {"type": ["array", "null"], "items": {"type": "string"}},
                "indice_name": _INDEX,
            },
        },
        {"texts": ["a red star", "two blue rings"]},
    ),
    _json(
        {"type": "object", "required": ["model", "embeddings"]},
        {"model": "demo-clip", "embeddings": [[0.1, 0.2]]},
    )
    | {NPY: {"schema": {"type": "string", "format": "binary"}}},
)


def described(app: FastAPI) -> dict[str, Any]:
    """The application as OpenAPI 3.1, made once. FastAPI's own word for refusals, 422, never comes here."""
    if app.openapi_schema is None:
        made = FastAPI.openapi(app)
        made["paths"] = {"/knn-service": {"post": _KNN_SERVICE_ROUTE}} | made["paths"]
        for path in made["paths"].values():
            for method in path.values():
                method["responses"].pop("422", None)
        made.get("components", {}).get("schemas", {}).clear()
        app.openapi_schema = made
    return app.openapi_schema
