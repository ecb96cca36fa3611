"""What a caption server's answer means: a caption, a picture it can't do, a fault of its own, or that it is busy."""

import random
from dataclasses import dataclass

import orjson

from captioner.engine import CaptionFailure, FinishReason, Reply
from spine.errors import ServiceError

MAX_PAUSE_S = 30.0

UNREACHABLE = "unreachable"
"""Reason of a failure that stands in no table: where a server can't be reached another is asked, or the run stops."""

MAX_ANSWER_BYTES = 1 << 20
"""Of an answer no more is read: more than any caption needs."""

_MAX_TOKENS = 1 << 24  # of one request: more than any model takes
_BUSY = (429, 503)
_WRONG_SETTINGS = (401, 403, 404, 405)


@dataclass(frozen=True, slots=True)
class Busy:
    """The server said: slow down."""

    wait_s: float | None
    """Seconds it asked for; None where it named none."""


@dataclass(frozen=True, slots=True)
class Answered:
    """A server's answer, as it came."""

    status: int
    retry_after: str | None
    content: bytes
    """The body, cut off behind what any caption needs."""


class Unreachable(Exception):
    """No connection to a server comes about."""


class BrokenOff(Exception):
    """A server ended the connection before its answer was whole, or answered with what is no HTTP."""


def understood(endpoint: str, answered: Answered) -> Reply | CaptionFailure | Busy:
    """What an answer means.

    Raises:
        ServiceError: It would be the same for every picture: wrong address, no right to ask, no such model.
    """
    status = answered.status
    if status == 200:
        return _reply(endpoint, answered.content)
    said = _beginning(answered.content)
    if status in _BUSY:
        return Busy(_seconds(answered.retry_after))
    if status in _WRONG_SETTINGS:
        raise ServiceError(f"{endpoint}: answers {status}: {said}", status=status)
    if 400 <= status < 500:
        return CaptionFailure("refused", f"{endpoint}: answers {status}: {said}")
    return CaptionFailure("server_error", f"{endpoint}: answers {status}: {said}")


def _reply(endpoint: str, content: bytes) -> Reply | CaptionFailure:
    try:
        answer = orjson.loads(content)
        choice = answer["choices"][0]
        text, ended = choice["message"]["content"], choice["finish_reason"]
        usage = answer.get("usage") or {}
        tokens, asked = usage.get("completion_tokens"), usage.get("prompt_tokens")
    except (ValueError, KeyError, IndexError, TypeError, AttributeError):
        return CaptionFailure("bad_reply", f"{endpoint}: no chat completion: {_beginning(content)}")
    if not isinstance(text, str) or not (_may_be_tokens(tokens) and _may_be_tokens(asked)):
        return CaptionFailure(
            "bad_reply", f"{endpoint}: no text, or no number of tokens, in its answer: {_beginning(content)}"
        )
    if ended not in ("stop", "length"):
        return CaptionFailure("refused", f"{endpoint}: ended its answer with {str(ended)[:50]!r}")
    finish: FinishReason = ended
    return Reply(text, finish, tokens, prompt_tokens=asked)


def _beginning(content: bytes) -> str:
    return " ".join(content[:300].decode("utf-8", "replace").split())


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
