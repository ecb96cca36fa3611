"""What travels between a retrieval server and its clients: clip-retrieval's messages, and a client for both.

The wire's own words (`indice_name`, `num_images`, `id` for a row number) stop here. Our server answers
the same messages as clip-retrieval 2.45's back end, and two more: POST /knn-batch and POST /embed.
"""

import base64
import io
import random
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import Any

import httpx
import numpy as np
import pyarrow as pa

from spine.errors import ServiceError
from spine.knn_query import MAX_RESULTS, KnnQuery, short
from spine.knn_tables import joined, table_of_results
from spine.tables import Vectors

__all__ = ["ARROW_STREAM", "MAX_RESULTS", "NPY", "KnnQuery", "RetrievalClient"]

NPY = "application/x-npy"
ARROW_STREAM = "application/vnd.apache.arrow.stream"
_ANSWER_ROWS = 100_000  # rows asked for in one batch request, so that an answer stays small
_TEXTS_A_REQUEST = 256


class RetrievalClient:
    """A client of a clip-retrieval back end, ours or the original. Threads may share one.

    Connections are kept open and reused. Answers 429 and 503 and broken connections are tried again
    after a growing, random pause. Everything a server refuses is a `ServiceError` with its own words.
    """

    def __init__(self, url: str, *, timeout_s: float = 60, retries: int = 3, token: str = "") -> None:
        """Remember the address; nothing is asked yet.

        Args:
            url: Such as http://127.0.0.1:1234; a trailing slash or /knn-service is taken off.
            timeout_s: Seconds an answer may take.
            retries: Further tries after the first.
            token: Sent as a bearer token, where the server wants one.

        Raises:
            ServiceError: `url` is no http or https address.
        """
        base = url.strip().rstrip("/").removesuffix("/knn-service").rstrip("/")
        if not base.startswith(("http://", "https://")):
            raise ServiceError(f"{url!r} is no address of a server; http://HOST:PORT was needed")
        self.url = base
        self._retries = retries
        self._has_batch: bool | None = None
        # A proxy named in the environment has no business with a server on this machine.
        direct: dict[str, httpx.BaseTransport | None] = {
            f"all://{host}": None for host in ("127.0.0.1", "localhost", "[::1]")
        }
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        try:
            self._client = httpx.Client(base_url=base, timeout=timeout_s, headers=headers, mounts=direct)
        except httpx.InvalidURL as error:
            raise ServiceError(f"{url!r} is no address of a server: {error}") from None

    def __enter__(self) -> "RetrievalClient":
        """This client, to be closed at the end of the block."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the connections."""
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def indices(self) -> list[str]:
        """Names of the server's indices; the first is the one that serves where none is named.

        Raises:
            ServiceError: The server can't be reached or answers something else.
        """
        names = self._json(self._request("GET", "/indices-list"))
        if not isinstance(names, list):
            raise ServiceError(f"{self.url}/indices-list: a list of names was needed")
        return [str(name) for name in names]

    def knn(self, query: KnnQuery) -> list[dict[str, Any]]:
        """Ask one query.

        Returns:
            Best first: `id` (row number), `similarity`, and the metadata of the first `num_images`.

        Raises:
            ServiceError: The server can't be reached or refuses the query.
        """
        return self._rows(self._request("POST", "/knn-service", json=query.to_json()))

    def metadata(self, ids: Sequence[int], index: str | None = None) -> list[dict[str, Any]]:
        """Metadata of rows.

        Args:
            ids: Row numbers, MAX_RESULTS at most.
            index: Name of the index; None is the server's first.

        Returns:
            {"id": row number, "metadata": {...}} in the order of `ids`.

        Raises:
            ServiceError: The server can't be reached, or a row isn't there.
        """
        body = {"ids": [int(row) for row in ids], "indice_name": index or self.indices()[0]}
        return self._rows(self._request("POST", "/metadata", json=body))

    def embed_texts(self, texts: Sequence[str]) -> Vectors:
        """Embed texts with the model of the server's first index.

        Returns:
            Shape (len(texts), d), rows of L2 norm 1.

        Raises:
            ServiceError: The server can't be reached, or has no model (clip-retrieval's has no such route).
        """
        if not texts:
            raise ServiceError("no texts to embed")
        starts = range(0, len(texts), _TEXTS_A_REQUEST)
        chunks = [list(texts[start : start + _TEXTS_A_REQUEST]) for start in starts]
        return np.concatenate([self._embed({"texts": chunk}) for chunk in chunks])

    def embed_pictures(self, pictures: Sequence[bytes]) -> Vectors:
        """Embed picture files with the model of the server's first index.

        Args:
            pictures: Their bytes, 64 pictures at most.

        Returns:
            Shape (len(pictures), d), rows of L2 norm 1.

        Raises:
            ServiceError: The server can't be reached, has no model, or one of them is no picture.
        """
        if not pictures:
            raise ServiceError("no pictures to embed")
        return self._embed({"images": [base64.b64encode(content).decode() for content in pictures]})

    def model(self) -> str:
        """The CLIP model of the server's first index, by the name that centroids and cards give it.

        Raises:
            ServiceError: The server can't be reached, or has no model.
        """
        answer = self._json(self._request("POST", "/embed", json={"texts": ["a"]}))
        if not isinstance(answer, dict) or not isinstance(answer.get("model"), str):
            raise ServiceError(f"{self.url}/embed: the answer names no model")
        return str(answer["model"])

    def metrics(self) -> str:
        """What it has measured since it started, in Prometheus's text format."""
        return self._request("GET", "/metrics").text

    def knn_batch(
        self,
        embeddings: Vectors,
        k: int,
        *,
        index: str | None = None,
        columns: Sequence[str] | None = None,
        nprobe: int = 0,
        conditions: Mapping[str, Any] | None = None,
        in_flight: int = 8,
    ) -> pa.Table:
        """The k nearest neighbours of many embeddings; the same rows whether the server has a batch route or not.

        Args:
            embeddings: Shape (n, d), float32; searched as they are.
            k: Neighbours a query, 1 to MAX_RESULTS.
            index: Name of the index; None is the server's first.
            columns: Metadata to bring; one the server lacks is null. None brings all it has.
            nprobe: Lists searched a query; 0 lets the server choose. Needs the batch route.
            conditions: What a row must be to be found, by the batch route's own names: min_side_px, languages and so
                on. Needs the batch route.
            in_flight: Requests at the same time.

        Returns:
            Sorted by query and rank: query int32 (row of `embeddings`), rank int32 (from 0), row int64,
            similarity float32, then the metadata.

        Raises:
            ServiceError: The server can't be reached or refuses.
        """
        step = max(1, min(1024, _ANSWER_ROWS // max(1, k)))
        chunks = [embeddings[start : start + step] for start in range(0, len(embeddings), step)]
        conditions = dict(conditions or {})
        asked = {"k": k, "nprobe": nprobe} | conditions
        if index is not None:
            asked["indice_name"] = index
        if columns is not None:
            asked["columns"] = list(columns) or [""]
        tables = self._by_batches(chunks, asked, in_flight)
        if tables is None:
            self._check_single(({"nprobe": nprobe} if nprobe else {}) | conditions)
            chunks = [embeddings[number : number + 1] for number in range(len(embeddings))]
            tables = _in_order(lambda chunk: self._single(chunk, k, index), chunks, in_flight)
        starts = np.cumsum([0, *(len(chunk) for chunk in chunks)])
        return joined(tables, starts.tolist(), columns)

    def _by_batches(
        self, chunks: Sequence[Vectors], asked: Mapping[str, Any], in_flight: int
    ) -> list[pa.Table] | None:
        """Answers of the batch route; None where the server has none."""
        if not chunks:
            return []
        if self._has_batch is False:
            return None
        first = self._batch_or_none(chunks[0], asked)
        self._has_batch = first is not None
        if first is None:
            return None

        def rest(chunk: Vectors) -> pa.Table:
            table = self._batch_or_none(chunk, asked)
            if table is None:
                raise ServiceError(f"{self.url}: /knn-batch was there and is not any more; start again")
            return table

        return [first, *_in_order(rest, chunks[1:], in_flight)]

    def _check_single(self, asked: Mapping[str, Any]) -> None:
        """Refuse what only the batch route can be asked."""
        if asked:
            what = ", ".join(f"{name} = {value}" for name, value in asked.items())
            raise ServiceError(
                f"{self.url}: has no /knn-batch, and clip-retrieval's own messages can't carry {what}; leave it out"
            )

    def _batch_or_none(self, embeddings: Vectors, asked: Mapping[str, Any]) -> pa.Table | None:
        body = npy(np.ascontiguousarray(embeddings, dtype=np.float32))
        headers = {"Content-Type": NPY}
        response = self._send("POST", "/knn-batch", params=dict(asked), content=body, headers=headers)
        # Ours says by a code what it did not find; a server without the route has none to tell.
        if response.status_code in (404, 405) and "code" not in _object(response):
            return None
        self._check(response)
        try:
            with pa.ipc.open_stream(response.content) as reader:
                return reader.read_all()
        except (pa.ArrowInvalid, OSError) as error:
            raise ServiceError(f"{response.url}: no Arrow stream ({error})") from None

    def _single(self, embedding: Vectors, k: int, index: str | None) -> pa.Table:
        query = KnnQuery(embedding_input=embedding[0], num_images=k, num_result_ids=k, indice_name=index)
        return table_of_results(self.knn(query))

    def _embed(self, content: dict[str, list[str]]) -> Vectors:
        response = self._send("POST", "/embed", json=content, headers={"Accept": NPY})
        if response.status_code in (404, 405) and "code" not in _object(response):
            raise ServiceError(
                f"{self.url}: this server can't embed texts or pictures (it has no /embed)", status=404
            )
        self._check(response)
        try:
            vectors = np.load(io.BytesIO(response.content), allow_pickle=False)
        except (ValueError, OSError, EOFError) as error:
            raise ServiceError(f"{response.url}: no .npy array ({error})") from None
        return np.asarray(vectors, dtype=np.float32)

    def _rows(self, response: httpx.Response) -> list[dict[str, Any]]:
        content = self._json(response)
        if not isinstance(content, list) or not all(isinstance(row, dict) for row in content):
            raise ServiceError(f"{response.url}: a list of objects was needed, got {short(content)}")
        return content

    def _json(self, response: httpx.Response) -> Any:
        try:
            return response.json()  # Python's reader: clip-retrieval writes a bare NaN
        except ValueError:
            raise ServiceError(
                f"{response.url}: the answer is no JSON; is it a clip-retrieval server?"
            ) from None

    def _request(self, method: str, path: str, **arguments: Any) -> httpx.Response:
        return self._check(self._send(method, path, **arguments))

    def _check(self, response: httpx.Response) -> httpx.Response:
        if response.status_code == 200:
            return response
        words = _object(response).get("message") or response.text.strip().partition("\n")[0][:300]
        raise ServiceError(
            f"{response.url.copy_with(query=None)}: {response.status_code}: {words or 'no word of why'}",
            status=response.status_code,
        )

    def _send(self, method: str, path: str, **arguments: Any) -> httpx.Response:
        for attempt in range(self._retries + 1):
            wait_s = min(10.0, 0.2 * 2**attempt) * random.uniform(0.5, 1.5)
            try:
                response = self._client.request(method, path, **arguments)
            except (
                httpx.ConnectError,
                httpx.ConnectTimeout,
                httpx.ReadError,
                httpx.RemoteProtocolError,
            ) as error:
                if attempt == self._retries:
                    raise ServiceError(
                        f"{self.url}: can't be reached ({error}); is the server running?"
                    ) from None
            except httpx.HTTPError as error:
                raise ServiceError(f"{self.url}{path}: {type(error).__name__} {error}".rstrip()) from None
            else:
                if response.status_code not in (429, 503) or attempt == self._retries:
                    return response
                asked = response.headers.get("Retry-After", "")
                wait_s = max(wait_s, min(30.0, float(asked))) if asked.isdecimal() else wait_s
            time.sleep(wait_s)
        raise AssertionError("the last attempt returns or raises")


def _object(response: httpx.Response) -> dict[str, Any]:
    try:
        content = response.json()
    except ValueError:
        return {}
    return content if isinstance(content, dict) else {}


def npy(array: Vectors) -> bytes:
    """An array as the body of a request: a .npy file."""
    header = io.BytesIO()  # numpy.save would write it piece by piece, and three times as long
    np.lib.format.write_array_header_1_0(header, np.lib.format.header_data_from_array_1_0(array))
    return b"".join((header.getvalue(), array.data))


def _in_order(
    work: Callable[[Vectors], pa.Table], chunks: Sequence[Vectors], in_flight: int
) -> list[pa.Table]:
    with ThreadPoolExecutor(max(1, in_flight), thread_name_prefix="knn") as pool:
        waiting = [pool.submit(work, chunk) for chunk in chunks]
        try:
            return [future.result() for future in waiting]
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
