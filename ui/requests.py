"""Reading what a page sends."""

import json
from typing import Any

from fastapi import Request

from spine.errors import DataError

_MAX_BODY_BYTES = 4_000_000


async def json_of(request: Request) -> Any:
    """A bounded JSON body; its "curator" is the name of the token, where there is one.

    Raises:
        DataError: It is too long or no JSON.
    """
    content = b""
    async for chunk in request.stream():
        content += chunk
        if len(content) > _MAX_BODY_BYTES:
            raise DataError(f"more than {_MAX_BODY_BYTES:,} bytes; send less at once")
    try:
        body = json.loads(content)
    except ValueError:
        raise DataError("the body is no JSON") from None
    # Who came in with a named token decides under that name, whatever the page says.
    if request.state.curator and isinstance(body, dict):
        body["curator"] = request.state.curator
    return body
