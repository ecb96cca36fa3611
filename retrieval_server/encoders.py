"""CLIP for queries: each model loaded once, at its first use, and run in one thread beside the event loop."""

import asyncio
import logging
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from PIL import Image

from index_builder.clip import ClipEncoder, clip_name
from retrieval_server.metrics import Metrics
from retrieval_server.refusals import Refusal
from spine.errors import FactoryError
from spine.settings import ClipConfig
from spine.tables import Vectors

_log = logging.getLogger("popfactory.server")


class Encoders:
    """Models by their settings; indices of one model share it."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._loaded: dict[ClipConfig, ClipEncoder | None] = {}
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="clip")

    async def texts(self, clip: ClipConfig | None, texts: Sequence[str]) -> Vectors:
        """Embed texts; shape (len(texts), d), rows of L2 norm 1.

        Raises:
            Refusal: There is no such model here.
        """
        return await self._run(lambda: self._texts(clip, texts))

    async def pictures(self, clip: ClipConfig | None, pictures: Sequence[Image.Image]) -> Vectors:
        """Embed RGB pictures; shape (len(pictures), d), rows of L2 norm 1.

        Raises:
            Refusal: There is no such model here.
        """
        return await self._run(lambda: self._pictures(clip, pictures))

    def close(self) -> None:
        """Let what runs end, and take no more."""
        self._pool.shutdown(wait=True, cancel_futures=True)

    async def _run(self, work: Callable[[], Vectors]) -> Vectors:
        return await asyncio.get_running_loop().run_in_executor(self._pool, work)

    def _texts(self, clip: ClipConfig | None, texts: Sequence[str]) -> Vectors:
        encoder = self._encoder(clip)
        with self._metrics.time("text_clip_inference_time"):
            return encoder.encode_texts(list(texts))

    def _pictures(self, clip: ClipConfig | None, pictures: Sequence[Image.Image]) -> Vectors:
        encoder = self._encoder(clip)
        with self._metrics.time("image_prepro_time"):
            pixels = np.stack([encoder.preprocess(picture) for picture in pictures])
        with self._metrics.time("image_clip_inference_time"):
            vectors = encoder.encode_images(pixels)
        if not np.isfinite(vectors).all():
            raise Refusal("the model gives no embedding for this picture", code="bad_image")
        return vectors

    def _encoder(self, clip: ClipConfig | None) -> ClipEncoder:
        if clip is not None and clip not in self._loaded:
            from index_builder.clip import (
                ClipEncoder,
            )  # brings torch: a server of embeddings alone does without

            try:
                self._loaded[clip] = ClipEncoder.load(clip)
            except FactoryError as error:  # the message may name paths of this machine
                _log.error("CLIP model %s can't be loaded: %s", clip_name(clip), error)
                self._loaded[clip] = None
        encoder = self._loaded.get(clip) if clip is not None else None
        if encoder is None:
            name = (
                f"its CLIP model ({clip_name(clip)}) can't be loaded"
                if clip is not None
                else "it has no CLIP model"
            )
            raise Refusal(
                f"this index takes no text and no pictures: {name} on this server; send embedding_input",
                code="no_model",
            )
        return encoder
