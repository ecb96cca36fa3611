"""The embedded engine as a small OpenAI-compatible server: for laptops, and to try the http engine on a true model.

    popfactory serve-captions demo --port 8010

One picture at a time and no batches: a real engine (vLLM and others) is what a large run is asked of.
"""

import base64
import binascii
import contextlib
import threading
import time
import uuid
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse
from PIL import Image
from starlette.concurrency import run_in_threadpool

from captioner.embedded import EmbeddedEngine, EmbeddedSetup
from captioner.engine import CaptionFailure, Reply, Sampling
from captioner.pictures import bounded
from spine.errors import ConfigError, ImageError
from spine.images import open_picture
from spine.listening import bound_socket
from spine.prompts import Prompt
from spine.settings import CaptionConfig

_HOST = "127.0.0.1"
MAX_BODY_BYTES = 32 << 20
MAX_NEW_TOKENS = 4096


class _Refused(Exception):
    """A request that can't be answered; its text is for who sent it."""


def create_app(setup: EmbeddedSetup) -> FastAPI:
    """A server of this checkpoint.

    Routes: GET /v1/models; POST /v1/chat/completions with one user message of one picture (a base64 data URL) and a
    text. Greedy, unless a temperature and a seed are given. Anything else is answered 400 with what was wrong.

    Raises:
        ModelError: The checkpoint can't be loaded.
    """
    engine, one_at_a_time = EmbeddedEngine(setup), threading.Lock()
    app = FastAPI(title="popfactory captions", openapi_url=None)

    def answer(body: Any) -> Reply | CaptionFailure:
        image, prompt, max_new_tokens, penalty = _asked(body, setup.name)
        sampling = _sampling(body)
        with one_at_a_time:
            return engine.describe([image], prompt, max_new_tokens, penalty, sampling)[0]

    @app.get("/v1/models")
    def models() -> dict[str, Any]:
        return {"object": "list", "data": [{"id": setup.name, "object": "model", "owned_by": "popfactory"}]}

    @app.post("/v1/chat/completions")
    async def complete(request: Request) -> JSONResponse:
        try:
            reply = await run_in_threadpool(answer, await _json_body(request))
        except (_Refused, ConfigError, ImageError) as error:
            return _error(400, str(error))
        if isinstance(reply, CaptionFailure):
            return _error(500, reply.message)
        return JSONResponse(_completion(setup.name, reply))

    return app


async def _json_body(request: Request) -> Any:
    content = bytearray()
    async for chunk in request.stream():
        content += chunk
        if len(content) > MAX_BODY_BYTES:
            raise _Refused(f"a body of more than {MAX_BODY_BYTES:,} bytes")
    request._body = bytes(content)
    try:
        return await request.json()
    except (ValueError, RecursionError):
        raise _Refused("the body is no JSON") from None


def _asked(body: Any, name: str) -> tuple[Image.Image, Prompt, int, float]:
    """The picture, the question, the length and the repetition penalty of a request's body.

    Raises:
        _Refused, ImageError: It isn't one this server answers.
    """
    if not isinstance(body, dict) or body.get("model") != name:
        raise _Refused(f"model {name!r} alone is here")
    length = body.get("max_tokens", 512)
    if not isinstance(length, int) or isinstance(length, bool) or not 1 <= length <= MAX_NEW_TOKENS:
        raise _Refused(f"max_tokens of 1 to {MAX_NEW_TOKENS:,} was needed")
    penalty = body.get("repetition_penalty", 1.0)
    if not isinstance(penalty, (int, float)) or not 0.5 <= penalty <= 2:
        raise _Refused("repetition_penalty of 0.5 to 2 was needed")
    try:
        [message] = body["messages"]
        parts = message["content"]
        [text] = [str(part["text"]) for part in parts if part["type"] == "text"]
        [address] = [str(part["image_url"]["url"]) for part in parts if part["type"] == "image_url"]
    except (KeyError, TypeError, ValueError):
        raise _Refused("one message with one picture and one text was needed") from None
    head, _, data = address.partition(",")
    if not head.startswith("data:image/") or not head.endswith(";base64"):
        raise _Refused("a picture as base64 data URL was needed; addresses are not fetched")
    try:
        content = base64.b64decode(data, validate=True)
    except (binascii.Error, ValueError):
        raise _Refused("the data URL is no valid base64") from None
    question = Prompt(prompt_id="request", text=text, prefix="")
    return bounded(open_picture(content).image), question, length, float(penalty)


def _sampling(body: dict[str, Any]) -> Sampling | None:
    """How words are to be drawn; None, greedy, without a seed or at temperature 0.

    Raises:
        _Refused: A value is none.
    """
    seed, temperature, top_p = body.get("seed"), body.get("temperature", 1.0), body.get("top_p", 1.0)
    if seed is None or temperature == 0:
        return None
    if not isinstance(seed, int) or not 0 <= seed < 1 << 63:
        raise _Refused("a seed of 0 to 2^63 - 1 was needed")
    if not isinstance(temperature, (int, float)) or not 0 < temperature <= 2:
        raise _Refused("a temperature of 0 to 2 was needed")
    if not isinstance(top_p, (int, float)) or not 0 < top_p <= 1:
        raise _Refused("a top_p above 0, at most 1, was needed")
    return Sampling(seed, float(temperature), float(top_p))


def _completion(name: str, reply: Reply) -> dict[str, Any]:
    message = {"role": "assistant", "content": reply.text}
    return {
        "id": f"chatcmpl-{uuid.uuid4().hex}",
        "object": "chat.completion",
        "created": int(time.time()),
        "model": name,
        "choices": [{"index": 0, "message": message, "finish_reason": reply.finish_reason}],
        "usage": {"prompt_tokens": reply.prompt_tokens, "completion_tokens": reply.tokens},
    }


def _error(status: int, message: str) -> JSONResponse:
    return JSONResponse({"error": {"message": message, "type": "invalid_request_error"}}, status_code=status)


def serve(model: str, *, revision: str = "", port: int = 8010) -> None:
    """Serve a checkpoint on this machine alone, until it is stopped.

    Args:
        model: As [caption] model: "demo", a folder, or a name on the hub.
        revision: As [caption] revision.
        port: On 127.0.0.1.

    Raises:
        ConfigError, ModelError: The checkpoint isn't here or can't be loaded, or the port is taken.
    """
    import uvicorn

    with bound_socket(_HOST, port) as listening:
        setup = EmbeddedSetup.of(CaptionConfig(model=model, revision=revision))
        app = create_app(setup)
        print(f"captions by {setup.name}: http://{_HOST}:{port}/v1   (Ctrl-C stops it)", flush=True)  # noqa: T201
        with contextlib.suppress(KeyboardInterrupt):
            uvicorn.Server(uvicorn.Config(app, log_level="warning")).run(sockets=[listening])
