"""CLIP for queries: each model loaded once, at its first use, and run in one thread beside the event loop.

Requests that wait for the same model are embedded together: eight texts take hardly longer than one.
"""

import asyncio
import logging
import threading
from collections import deque
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np

from index_builder.encoding.clip import ClipEncoder, clip_name
from index_builder.encoding.multilingual_text import MultilingualText
from index_builder.encoding.preprocessing import Crop, Preprocessing
from retrieval_server.metrics import Metrics
from retrieval_server.refusals import Refusal
from spine.errors import FactoryError
from spine.settings import ClipConfig
from spine.tables import Vectors

_log = logging.getLogger("popfactory.server")

TOGETHER = 64
"""Texts or pictures of waiting requests embedded at once."""

T = TypeVar("T")


_Encode = Callable[[list[Any]], Vectors]


@dataclass(frozen=True, slots=True)
class _Waiting:
    """One request's texts or crops, and where their vectors go."""

    inputs: Sequence[Any]
    vectors: "Future[Vectors]" = field(default_factory=Future)


class Encoders:
    """Models by their settings; indices of one model share it."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._loaded: dict[ClipConfig, ClipEncoder | None] = {}
        self._multilingual: dict[str, MultilingualText | None] = {}
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="clip")
        self._lock = threading.Lock()
        self._waiting: dict[Hashable, deque[_Waiting]] = {}

    async def texts(self, clip: ClipConfig | None, texts: Sequence[str]) -> Vectors:
        """Embed texts; shape (len(texts), d), rows of L2 norm 1.

        Raises:
            Refusal: There is no such model here.
        """
        return await self._with_others((clip, "texts"), texts, lambda inputs: self._texts(clip, inputs))

    async def multilingual_texts(self, source: str, texts: Sequence[str]) -> Vectors:
        """Embed texts of any language by Multi-CLIP; shape (len(texts), d), rows of L2 norm 1.

        Args:
            source: Its checkpoint; empty is none.
            texts: One or more.

        Raises:
            Refusal: There is no such model here.
        """
        return await self._with_others(source, texts, lambda inputs: self._by_multilingual(source, inputs))

    async def crops(self, clip: ClipConfig | None, crops: Sequence[Crop]) -> Vectors:
        """Embed pictures at the model's size; shape (len(crops), d), rows of L2 norm 1.

        Raises:
            Refusal: There is no such model here, or it gives no embedding for one of them.
        """
        vectors = await self._with_others((clip, "crops"), crops, lambda inputs: self._crops(clip, inputs))
        if not np.isfinite(vectors).all():
            raise Refusal("the model gives no embedding for this picture", code="bad_image")
        return vectors

    async def preprocessing(self, clip: ClipConfig | None) -> Preprocessing:
        """What the model wants done to a picture.

        Raises:
            Refusal: There is no such model here.
        """
        loaded = self._loaded.get(clip) if clip is not None else None
        if loaded is not None:
            return loaded.preprocess
        return await self._run(lambda: self._encoder(clip).preprocess)

    def close(self) -> None:
        """Let what runs end, and take no more."""
        self._pool.shutdown(wait=True, cancel_futures=True)

    async def _with_others(self, model: Hashable, inputs: Sequence[Any], encode: _Encode) -> Vectors:
        mine = _Waiting(inputs)
        with self._lock:
            self._waiting.setdefault(model, deque()).append(mine)
        await self._run(lambda: self._encode_until(mine, model, encode))
        return await asyncio.wrap_future(mine.vectors)

    async def _run(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._pool, work)

    def _encode_until(self, mine: _Waiting, model: Hashable, encode: _Encode) -> None:
        while not mine.vectors.done():  # as a rule an earlier request's turn has done it
            taken: list[_Waiting] = []
            with self._lock:
                waiting = self._waiting[model]
                while waiting and sum(len(one.inputs) for one in taken) < TOGETHER:
                    taken.append(waiting.popleft())
            _encode([one for one in taken if one.vectors.set_running_or_notify_cancel()], encode)

    def _by_multilingual(self, source: str, texts: Sequence[str]) -> Vectors:
        if source and source not in self._multilingual:
            try:
                self._multilingual[source] = MultilingualText.load(source)
            except FactoryError as error:
                _log.error("%s", error)
                self._multilingual[source] = None
        model = self._multilingual.get(source)
        if model is None:
            raise Refusal("use_mclip: no multilingual model is served for this index", code="no_model")
        with self._metrics.time("text_clip_inference_time"):
            return model.encode_texts(texts)

    def _texts(self, clip: ClipConfig | None, texts: Sequence[str]) -> Vectors:
        encoder = self._encoder(clip)
        with self._metrics.time("text_clip_inference_time"):
            return encoder.encode_texts(texts)

    def _crops(self, clip: ClipConfig | None, crops: Sequence[Crop]) -> Vectors:
        encoder = self._encoder(clip)
        with self._metrics.time("image_clip_inference_time"):
            return encoder.encode_images(encoder.preprocess.normalise(np.stack(crops)))

    def _encoder(self, clip: ClipConfig | None) -> ClipEncoder:
        if clip is not None and clip not in self._loaded:
            try:  # brings torch: a server of embeddings alone does without
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


def _encode(taken: list[_Waiting], encode: _Encode) -> None:
    inputs = [each for one in taken for each in one.inputs]
    if not inputs:
        return
    try:
        vectors = encode(inputs)
    except BaseException as error:  # noqa: BLE001  # each request raises it as its own
        for one in taken:
            one.vectors.set_exception(error)
        return
    start = 0
    for one in taken:
        one.vectors.set_result(vectors[start : start + len(one.inputs)])
        start += len(one.inputs)
