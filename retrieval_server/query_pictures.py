"""The pictures that queries bring, sent or named by an address, on their way to a vector."""

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TypeVar

from index_builder.encoding.preprocessing import Crop, Preprocessing
from retrieval_server.bodies import parse_picture
from retrieval_server.encoders import Encoders
from retrieval_server.metrics import Metrics
from retrieval_server.picture_decoder import PictureDecoder
from retrieval_server.refusals import Refusal
from retrieval_server.takedowns import Takedowns, refuse_listed_address, refuse_listed_picture
from spine.errors import WebError
from spine.settings import ClipConfig
from spine.tables import Vectors
from spine.web import Web

_AT_ONCE = 8  # fetched or waiting for the decoder; they don't keep searches waiting

T = TypeVar("T")


class QueryPictures:
    """Fetches, checks, opens and embeds pictures."""

    def __init__(
        self, encoders: Encoders, takedowns: Takedowns, metrics: Metrics, *, from_addresses: bool
    ) -> None:
        """Start nothing yet.

        Args:
            encoders: Make the vectors.
            takedowns: Pictures and addresses they name are refused.
            metrics: Take the time of each step.
            from_addresses: Fetch pictures that are named by an address.
        """
        self._encoders, self._takedowns, self._metrics = encoders, takedowns, metrics
        self._threads = ThreadPoolExecutor(_AT_ONCE, "picture")
        self._decoder = PictureDecoder()
        self._web = Web() if from_addresses else None

    async def embed(self, clip: ClipConfig | None, encoded: Sequence[str]) -> Vectors:
        """Vectors of picture files in base64, shape (len(encoded), d).

        Raises:
            Refusal: One is none, or on a list, or there is no such model here.
        """
        return await self._embed(clip, [partial(parse_picture, each) for each in encoded])

    async def embed_address(self, clip: ClipConfig | None, url: str) -> Vectors:
        """The vector of a picture on the web, shape (1, d).

        Raises:
            Refusal: As `embed`, or the address isn't fetched.
        """
        return await self._embed(clip, [partial(self._fetch, url)])

    def close(self) -> None:
        """Let what runs end."""
        self._threads.shutdown(wait=True, cancel_futures=True)
        self._decoder.close()
        if self._web is not None:
            self._web.close()

    async def _embed(self, clip: ClipConfig | None, gets: Sequence[Callable[[], bytes]]) -> Vectors:
        contents = await self._all([partial(self._allowed, get) for get in gets])
        preprocess = await self._encoders.preprocessing(clip)
        crops = await self._all([partial(self._crop, content, preprocess) for content in contents])
        return await self._encoders.crops(clip, crops)

    async def _all(self, works: Sequence[Callable[[], T]]) -> list[T]:
        loop = asyncio.get_running_loop()
        return await asyncio.gather(*(loop.run_in_executor(self._threads, work) for work in works))

    def _allowed(self, get: Callable[[], bytes]) -> bytes:
        content = get()
        refuse_listed_picture(self._takedowns.current(), content)
        return content

    def _crop(self, content: bytes, preprocess: Preprocessing) -> Crop:
        with self._metrics.time("image_prepro_time"):
            return self._decoder.crop(content, preprocess)

    def _fetch(self, url: str) -> bytes:
        if self._web is None:
            raise Refusal(
                "image_url is switched off on this server; send the picture as image",
                status=403,
                code="switched_off",
            )
        refuse_listed_address(self._takedowns.current(), url)
        try:
            with self._metrics.time("download_time"):
                return self._web.fetch(url).content
        except WebError as error:
            raise Refusal(f"image_url: {error.reason}", code="bad_image_url") from None
