"""What is sent to a caption server of a picture: a JPEG of a bounded size, in a data URL as JSON, within a question.

Pillow holds Python's lock while it writes a JPEG, so threads don't write two at a time: pictures are made ready in
processes of their own, which know no network.
"""

import base64
import io
from dataclasses import dataclass
from typing import Any

import orjson
from PIL import Image

from captioner.engine import CaptionFailure, Prepared, Wanted
from captioner.pictures import load_picture
from spine.prompts import Prompt

_SIDE_PX = 1008  # the short side: three times what LLaVA-1.5 looks at, so that few need scaling
_JPEG_QUALITY = 95
SENT = f"sent with short side {_SIDE_PX} px at most as JPEG {_JPEG_QUALITY}, 4:4:4"
"""As it stands in a caption's fingerprint."""

_HERE = b"\0"  # marks a picture's place: in JSON it stands nowhere


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


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked of many pictures, as the JSON in front of and behind a picture's: encoded once for all of them."""

    before: bytes
    after: bytes

    @classmethod
    def of(cls, prompt: Prompt, fields: dict[str, Any]) -> "Question":
        """A question.

        Args:
            prompt: What is asked.
            fields: Model, length and how words are chosen, in OpenAI's fields.
        """
        parts = [
            {"type": "image_url", "image_url": {"url": orjson.Fragment(_HERE)}},
            {"type": "text", "text": prompt.text},
        ]
        body = orjson.dumps({"messages": [{"role": "user", "content": parts}], "stream": False, **fields})
        return cls(*body.split(_HERE))

    def body(self, picture: Prepared) -> tuple[bytes, bytes, bytes]:
        """A request for one caption, as JSON in pieces.

        Args:
            picture: As ready_to_send gives it.
        """
        return self.before, picture.content, self.after
