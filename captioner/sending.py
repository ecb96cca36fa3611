"""What is sent to a caption server of a picture: a JPEG of a bounded size, in a data URL, in a question as JSON.

Pillow holds Python's lock while it writes a JPEG, so threads don't write two at a time: pictures are made ready in
processes of their own, which know no network.
"""

import asyncio
import base64
import io
from collections.abc import AsyncIterator
from typing import Any, Self

import orjson
from PIL import Image

from captioner.engine import CaptionFailure, Prepared, Wanted
from captioner.pictures import load_picture
from spine.prompts import Prompt

_SIDE_PX = 1008  # the short side: three times what LLaVA-1.5 looks at, so that few need scaling
_JPEG_QUALITY = 95
SENT = f"sent with short side {_SIDE_PX} px at most as JPEG {_JPEG_QUALITY}, 4:4:4"
"""As it stands in a caption's fingerprint."""

SETTING_OUT = 8
"""Requests to a server that are made ready for their way at the same time."""


def read_to_send(wanted: Wanted | None, mode: str) -> Prepared | CaptionFailure:
    """Read one picture and make it ready to be sent; in a worker.

    Args:
        wanted: None where the picture was not fetched.
        mode: One of captioner.pictures.PREPROCESSING.
    """
    picture = load_picture(wanted, mode)
    return picture if isinstance(picture, CaptionFailure) else ready_to_send(picture)


def ready_to_send(image: Image.Image) -> Prepared:
    """A picture whose content is its data URL as JSON."""
    return Prepared(orjson.dumps(data_url(image)), image.width, image.height)


def data_url(image: Image.Image) -> str:
    """A picture as a JPEG data URL, its short side at most 1,008 px."""
    short = min(image.size)
    if short > _SIDE_PX:
        scale = _SIDE_PX / short
        size = (round(image.width * scale), round(image.height * scale))
        # A third of Lanczos's time, and no worse once the server has scaled it down to 336 px.
        image = image.resize(size, Image.Resampling.HAMMING, reducing_gap=3.0)
    content = io.BytesIO()
    image.save(content, "JPEG", quality=_JPEG_QUALITY, subsampling=0)
    return "data:image/jpeg;base64," + base64.b64encode(content.getvalue()).decode("ascii")


def question_body(picture: Prepared, prompt: Prompt, question: dict[str, Any]) -> bytes:
    """A request for one caption, as JSON.

    Args:
        picture: As ready_to_send gives it.
        prompt: What is asked.
        question: Model, length and how words are chosen, in OpenAI's fields.
    """
    parts = [
        {"type": "image_url", "image_url": {"url": orjson.Fragment(picture.content)}},
        {"type": "text", "text": prompt.text},
    ]
    return orjson.dumps({"messages": [{"role": "user", "content": parts}], "stream": False, **question})


class Question:
    """A request's body, sent when it is its turn: few set out at a time, and one that is on its way makes room.

    Where many answers come at once, their places at the server are so filled one after the other. Otherwise the event
    loop does one step of each in turn, none is filled before all are, and the next answers come at once again.
    """

    def __init__(self, body: bytes, setting_out: asyncio.Semaphore) -> None:
        """A body that waits for its turn.

        Args:
            body: As question_body gives it.
            setting_out: As many places as requests may set out at a time.
        """
        self.headers = {"content-type": "application/json", "content-length": str(len(body))}
        self._body, self._setting_out, self._in_the_way = body, setting_out, False

    async def __aenter__(self) -> Self:
        await self._setting_out.acquire()
        self._in_the_way = True
        return self

    async def __aexit__(self, *_: object) -> None:
        self._make_room()

    async def content(self) -> AsyncIterator[bytes]:
        """The body, asked for by the connection that takes it."""
        self._make_room()
        yield self._body

    def _make_room(self) -> None:
        if self._in_the_way:
            self._in_the_way = False
            self._setting_out.release()
