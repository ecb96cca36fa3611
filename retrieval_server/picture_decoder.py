"""Pictures from outside, opened by processes of their own: the server itself decodes none.

A picture that crashes its decoder, fills the memory it may have, or takes too long costs its own request and
nothing else; the next one gets a new process. They start with the first picture and then stay.
"""

import io
from collections.abc import Callable
from typing import TypeVar

from index_builder.encoding.preprocessing import Crop, Preprocessing
from retrieval_server.refusals import Refusal
from spine.errors import ImageError
from spine.images import open_picture
from spine.refused import Refused
from spine.workers import PictureWorkers

WORKERS = 2
"""Processes at most."""

TIMEOUT_S = 10.0
"""For one picture."""

_Result = TypeVar("_Result")


class PictureDecoder:
    """Opens pictures for the whole server. Threads may share one."""

    def __init__(self, *, time_limit_s: float = TIMEOUT_S) -> None:
        """Start nothing yet. Args: time_limit_s: For one picture."""
        self._workers = PictureWorkers(WORKERS, time_limit_s)

    def crop(self, content: bytes, preprocess: Preprocessing) -> Crop:
        """The picture in these bytes at a model's size.

        Raises:
            Refusal: They are none that is opened here, or opening it takes too much time or memory.
        """
        return self._ask(_crop, content, preprocess)

    def jpeg(self, content: bytes) -> bytes:
        """The picture in these bytes as JPEG, RGB.

        Raises:
            Refusal: As `crop`.
        """
        return self._ask(_jpeg, content)

    def close(self) -> None:
        """End the processes, once each has done what it is at."""
        self._workers.close()

    def _ask(self, work: Callable[..., _Result | Refused], *arguments: object) -> _Result:
        found = self._workers.ask("the picture", work, *arguments)
        if isinstance(found, Refused):
            raise Refusal(f"image: {found.reason}: {found.message}", code="bad_image")
        return found


def _crop(content: bytes, preprocess: Preprocessing) -> Crop | Refused:
    try:
        return preprocess.crop(open_picture(content).image)
    except ImageError as error:
        return Refused(error.reason, str(error))
    except MemoryError:
        return _too_large()


def _jpeg(content: bytes) -> bytes | Refused:
    file = io.BytesIO()
    try:
        open_picture(content).image.save(file, "JPEG")
    except ImageError as error:
        return Refused(error.reason, str(error))
    except MemoryError:
        return _too_large()
    return file.getvalue()


def _too_large() -> Refused:
    return Refused("out_of_memory", "more memory is needed than a picture may take")
