"""Addresses of OpenAI-compatible servers that the settings name, and what such a server says it has."""

from dataclasses import dataclass

import httpx

from spine.errors import ConfigError

_DIRECT: dict[str, httpx.BaseTransport | None] = {
    "all://127.0.0.1": None,  # no proxy on the way to this machine
    "all://localhost": None,
    "all://[::1]": None,
}


@dataclass(frozen=True, slots=True)
class Models:
    """What a server answered when it was asked for its models."""

    names: tuple[str, ...]
    trouble: str = ""
    """Why there is no answer; empty where there is one."""


def endpoint_base(address: str) -> str:
    """An endpoint up to its version: http://HOST:8000 becomes http://HOST:8000/v1.

    Raises:
        ConfigError: It is no http address.
    """
    try:
        url = httpx.URL(address)
    except httpx.InvalidURL:
        url = httpx.URL("")
    if url.scheme not in ("http", "https") or not url.host:
        raise ConfigError(
            f"[caption] endpoints: {address!r} is no address; one such as http://127.0.0.1:8000/v1 was needed"
        )
    path = url.path.rstrip("/").removesuffix("/chat/completions") or "/v1"
    return str(url.copy_with(path=path, query=None, fragment=None))


def models_at(address: str, *, key: str = "", timeout_s: float = 3.0) -> Models:
    """Ask a server for its models. Whatever goes wrong is told and not raised: one of several may be down.

    Args:
        address: As in the settings.
        key: Sent as a bearer token; empty sends none.
        timeout_s: Seconds it may take.
    """
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    try:
        base = endpoint_base(address)
        with httpx.Client(timeout=timeout_s, headers=headers, mounts=_DIRECT) as client:
            content = client.get(f"{base}/models").raise_for_status().json()
        return Models(tuple(str(entry["id"])[:200] for entry in content["data"][:100]))
    except ConfigError as error:
        return Models((), str(error))
    except httpx.HTTPStatusError as error:
        return Models((), f"it answers {error.response.status_code} when asked for its models")
    except httpx.HTTPError as error:
        return Models(
            (), f"can't be reached ({str(error) or type(error).__name__}); start it, or correct the address"
        )
    except (ValueError, KeyError, TypeError):
        return Models((), "answers, but not as an OpenAI-compatible server does")
