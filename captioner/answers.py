"""What a caption server's answer means: a caption, a picture it can't do, a fault of its own, or that it is busy."""

import json
import random
from dataclasses import dataclass

import httpx

from captioner.engine import CaptionFailure, FinishReason, Reply
from spine.errors import ServiceError

MAX_PAUSE_S = 30.0

UNREACHABLE = "unreachable"
"""Reason of a failure that stands in no table: where a server can't be reached another is asked, or the run stops."""

_MAX_ANSWER_BYTES = 1 << 20
_MAX_TOKENS = 1 << 24  # of one request: more than any model takes
_BUSY = (429, 503)
_WRONG_SETTINGS = (401, 403, 404, 405)


@dataclass(frozen=True, slots=True)
class Busy:
    """The server said: slow down."""

    wait_s: float | None
    """Seconds it asked for; None where it named none."""


async def bounded_body(response: httpx.Response) -> bytes:
    """An answer's body, cut off behind what any caption needs."""
    content = bytearray()
    async for chunk in response.aiter_bytes():
        content += chunk
        if len(content) > _MAX_ANSWER_BYTES:
            break
    return bytes(content)


def understood(endpoint: str, response: httpx.Response, content: bytes) -> Reply | CaptionFailure | Busy:
    """What an answer means.

    Raises:
        ServiceError: It would be the same for every picture: wrong address, no right to ask, no such model.
    """
    status = response.status_code
    said = " ".join(content[:300].decode("utf-8", "replace").split())
    if status in _BUSY:
        return Busy(_seconds(response.headers.get("retry-after")))
    if status in _WRONG_SETTINGS:
        raise ServiceError(f"{endpoint}: answers {status}: {said}", status=status)
    if 400 <= status < 500:
        return CaptionFailure("refused", f"{endpoint}: answers {status}: {said}")
    if status != 200:
        return CaptionFailure("server_error", f"{endpoint}: answers {status}: {said}")
    try:
        answer = json.loads(content)
        choice = answer["choices"][0]
        text, ended = choice["message"]["content"], choice["finish_reason"]
        usage = answer.get("usage") or {}
        tokens, asked = usage.get("completion_tokens"), usage.get("prompt_tokens")
        (text or "").encode()  # JSON can say half a character, which no table takes
    except (ValueError, KeyError, IndexError, TypeError, AttributeError, RecursionError):
        return CaptionFailure("bad_reply", f"{endpoint}: no chat completion: {said}")
    if not isinstance(text, str) or not (_may_be_tokens(tokens) and _may_be_tokens(asked)):
        return CaptionFailure(
            "bad_reply", f"{endpoint}: no text, or no number of tokens, in its answer: {said}"
        )
    if ended not in ("stop", "length"):
        return CaptionFailure("refused", f"{endpoint}: ended its answer with {str(ended)[:50]!r}")
    finish: FinishReason = ended
    return Reply(text, finish, tokens, prompt_tokens=asked)


def _may_be_tokens(told: object) -> bool:
    return told is None or (type(told) is int and 0 <= told <= _MAX_TOKENS)


def _seconds(retry_after: str | None) -> float | None:
    """Retry-After in seconds; its other form, a date, counts as not given."""
    return float(retry_after) if retry_after is not None and retry_after.strip().isdecimal() else None


def pause_s(attempt: int, wait_s: float | None) -> float:
    """Seconds until the next attempt: what the server asked for, or up to 0.5, 1, 2, 4 ... at random."""
    # At random over the whole span, so that requests which failed together don't come back together.
    jitter = random.uniform(0, min(0.5 * 2 ** min(attempt - 1, 10), MAX_PAUSE_S))
    return min(wait_s, MAX_PAUSE_S) + jitter / 4 if wait_s is not None else jitter
