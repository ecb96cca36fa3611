"""What the routes do: open indices, the threads that search them, and each request from body to answer.

A single query runs in one of a few threads, each with one FAISS thread, and together with others that wait: under many
clients that is the fastest. A batch has all FAISS threads to itself, one batch at a time.
"""

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import numpy as np
import orjson

from index_builder.encoding.clip import clip_name
from retrieval_server import bodies, search
from retrieval_server.admission import Admission
from retrieval_server.duplicates import warm_up
from retrieval_server.encoders import Encoders
from retrieval_server.indices import ServedIndex
from retrieval_server.metrics import Metrics
from retrieval_server.query_pictures import QueryPictures
from retrieval_server.refusals import Refusal
from retrieval_server.search import BatchQuestion
from retrieval_server.search_threads import SearchThreads
from retrieval_server.served_indices import ServedIndices
from retrieval_server.settings import ServerSettings
from retrieval_server.takedowns import Takedowns, blocked_rows
from spine.errors import DataError
from spine.knn_query import KnnQuery, check_k
from spine.tables import Vectors

_SMALL_BODY = 100_000  # bytes parsed on the event loop: a millisecond at most
_MAX_NPROBE = 1_000_000

T = TypeVar("T")

_Question = tuple[ServedIndex, KnnQuery, Vectors]


class Service:
    """Open indices and the threads that serve them.

    Attributes:
        indices: By name, in the order of the settings.
        metrics: What requests cost.
        takedowns: What no answer may hold.
        admission: How much may be under way.
        stopping: Whether the server is about to end: it isn't ready any more.
    """

    def __init__(self, settings: ServerSettings) -> None:
        """Open every index and say what it is.

        Raises:
            ConfigError: There are none, or one is set up wrong, or a takedown or hash list can't be read.
            DataError: An index can't be read or doesn't fit its metadata.
        """
        self.indices = ServedIndices(settings.indices)
        warm_up()  # or the first query that asks for it waits
        self.takedowns = Takedowns(settings.lists, settings.lists_folder, settings.lists_from)
        self.metrics = Metrics()
        self._settings = settings
        self._encoders = Encoders(self.metrics)
        self._searches = SearchThreads[_Question, tuple[bytes, list[str]]](
            settings.search_threads, self._knn_answers
        )
        self._batches = ThreadPoolExecutor(1, "batch")
        self._pictures = QueryPictures(
            self._encoders, self.takedowns, self.metrics, from_addresses=settings.image_url
        )
        self.admission = Admission(settings.waiting, settings.waiting_bytes)
        self.stopping = False

    def close(self) -> None:
        """Let what runs end, then close the indices."""
        self._pictures.close()
        self._searches.close()
        self._batches.shutdown(wait=True, cancel_futures=True)
        self._encoders.close()
        self.indices.close()

    def check_ready(self) -> None:
        """See that requests can be answered.

        Raises:
            Refusal: The server is about to end, or a list can't be read.
        """
        if self.stopping:
            raise Refusal("this server is about to end", status=503, code="stopping")
        self.takedowns.current()

    def index(self, name: object) -> ServedIndex:
        """The index of this name; None is the first.

        Raises:
            Refusal: There is no such index.
        """
        if name is None:
            return next(iter(self.indices.values()))
        index = self.indices.get(name) if isinstance(name, str) else None
        if index is None:
            raise Refusal(
                f"no such index; there are: {', '.join(self.indices)}", status=404, code="unknown_index"
            )
        return index

    async def knn(self, body: bytes) -> tuple[bytes, list[str]]:
        """Answer POST /knn-service: the results as JSON, and warnings.

        Raises:
            Refusal: The query can't be answered.
        """
        with self.admission.request(), self.metrics.time("full_knn_request_time"):
            query = await self._parsed(body, _knn_query)
            index = self.index(query.indice_name)
            index.folder(query.modality)  # or a refusal, before a model runs
            missing = search.missing_filters(index, query)
            if self._settings.strict_safety and any("not filtered" in words for words in missing):
                raise Refusal(missing[0], code="no_safety_model")
            vector = await self._vector(index, query)
            most = max(1, search.TOGETHER_ROWS // query.k)
            return await self._searches.ask(search.alike(index, query), (index, query, vector), most)

    async def rows(self, body: bytes) -> bytes:
        """Answer POST /metadata: the rows' metadata as JSON.

        Raises:
            Refusal: A row or the index isn't there.
        """
        with self.admission.request():
            content = await self._parsed(body, lambda content: content)
            index = self.index(content.get("indice_name") if isinstance(content, dict) else None)
            ids = bodies.parse_metadata_query(content, index.n)
            return await self._searches.run(lambda: self._rows_answer(index, ids))

    async def batch(
        self, body: bytes, name: str | None, question: BatchQuestion
    ) -> tuple[memoryview, list[str]]:
        """Answer POST /knn-batch: an Arrow IPC stream, and warnings.

        Raises:
            Refusal: The array or a parameter isn't what it should be.
        """
        index = self.index(name)
        index.folder(question.modality)
        _as_refusal(lambda: check_k(question.k, "k"))
        if not 0 <= question.nprobe <= _MAX_NPROBE:
            raise Refusal(f"nprobe is not in 0 to {_MAX_NPROBE:,}")

        def work() -> memoryview:
            vectors = bodies.parse_npy(body, index.d)
            lists = self.takedowns.current()
            return bodies.arrow_stream(search.answer_batch(index, vectors, question, lists))

        with self.admission.request():
            content = await asyncio.get_running_loop().run_in_executor(self._batches, work)
            return content, search.missing_filters(index, question)

    async def embed(self, body: bytes) -> tuple[Vectors, str]:
        """Answer POST /embed: unit vectors, and the model they come from.

        Raises:
            Refusal: The body isn't what it should be, or there is no model.
        """
        content = await self._parsed(body, lambda content: content)
        index = self.index(content.get("indice_name") if isinstance(content, dict) else None)
        texts, images = bodies.parse_embed(content)
        clip = index.settings.clip
        with self.admission.request():
            embedding = self._encoders.texts(clip, texts) if texts else self._pictures.embed(clip, images)
            vectors = await embedding
        return vectors, clip_name(clip) if clip is not None else ""

    async def _vector(self, index: ServedIndex, query: KnnQuery) -> Vectors:
        """The query's vector, (d,): of its text, else its picture, else its address, else as given."""
        clip = index.settings.clip
        if query.text:
            if query.use_mclip:
                vectors = await self._encoders.multilingual_texts(index.settings.mclip, [query.text])
            else:
                vectors = await self._encoders.texts(clip, [query.text])
        elif query.image:
            vectors = await self._pictures.embed(clip, [query.image])
        elif query.image_url:
            vectors = await self._pictures.embed_address(clip, query.image_url)
        else:
            vectors = np.asarray(query.embedding_input, dtype=np.float32)[None]
        vector: Vectors = vectors[0]
        return vector

    def _knn_answers(self, questions: Sequence[_Question]) -> list[tuple[bytes, list[str]]]:
        """Of each the results as JSON, and warnings; all are `alike`."""
        index, lists = questions[0][0], self.takedowns.current()
        asked = [(query, vector) for _, query, vector in questions]
        answers = search.answers(index, asked, lists, self.metrics)
        return [(_json(answer.results), answer.warnings) for answer in answers]

    def _rows_answer(self, index: ServedIndex, ids: list[int]) -> bytes:
        lists, rows = self.takedowns.current(), index.rows_of(np.array(ids, dtype=np.int64))
        with self.metrics.time("metadata_get_time"):
            records = search.records(index.metadata(rows)) or [{} for _ in ids]
            if index.pictures is not None:
                index.pictures.add_to(records, lists)
        # Beside the names that don't hide the kNN's own, the columns' own: here nothing is hidden.
        own = {name: column for name, column in index.columns.items() if name != column}
        for record in records:
            record.update({column: record[name] for name, column in own.items()})
        for place in np.flatnonzero(blocked_rows(lists, index.rows, rows)):
            records[place] = {}
        return _json([{"id": row, "metadata": record} for row, record in zip(ids, records, strict=True)])

    async def _parsed(self, body: bytes, read: Callable[[Any], T]) -> T:
        if len(body) <= _SMALL_BODY:
            return read(bodies.parse_json(body))
        return await self._searches.run(lambda: read(bodies.parse_json(body)))


def _knn_query(content: Any) -> KnnQuery:
    return _as_refusal(lambda: KnnQuery.from_json(content))


def _as_refusal(check: Callable[[], T]) -> T:
    try:
        return check()
    except DataError as error:  # these messages are about the request alone
        raise Refusal(str(error)) from None


def _json(content: Any) -> bytes:
    # orjson writes NaN as null: clip-retrieval's bare NaN is no JSON.
    return orjson.dumps(content, default=str, option=orjson.OPT_APPEND_NEWLINE)
