"""Questions in words and pictures, answered by a retrieval server: which centroids are near, what the pool has."""

import base64
import hashlib
import threading
from collections import OrderedDict
from typing import Any

import numpy as np
import pyarrow as pa

from spine.added_centroids import add_centroid
from spine.answer_times import AnswerTimes, answer_times
from spine.errors import DataError, FactoryError, ServiceError
from spine.ids import laion_id
from spine.manifest import read_manifest
from spine.protocol import RetrievalClient
from spine.run import Run
from spine.tables import METADATA, NEIGHBOURS, Vectors
from ui.snapshot import Snapshot

POOL_ROWS = 400
"""Pictures shown of a search in the pool."""

_KEPT = 40
_MAX_TEXT = 1_000
_MAX_PICTURE_BYTES = 3_000_000
_TIMEOUT_S = 20
_COLUMNS = ["hash", *(name for name in METADATA.names if name != "id")]


class NoServer(FactoryError):
    """There is no retrieval server to ask, or it can't answer this."""


class Search:
    """Asks the server, and remembers what it answered lately. Used from several threads."""

    def __init__(self, run: Run, snapshot: Snapshot, url: str | None, token: str | None) -> None:
        """Ask nothing yet.

        Args:
            run: Named in advice.
            snapshot: Its centroids and scores.
            url: Of the server; None where there is none.
            token: That it wants.
        """
        self._run, self._snapshot = run, snapshot
        self._client = (
            RetrievalClient(url, timeout_s=_TIMEOUT_S, retries=1, token=token or "") if url else None
        )
        self._lock = threading.Lock()
        self._vectors: OrderedDict[str, Vectors] = OrderedDict()
        self._found: OrderedDict[str, pa.Table] = OrderedDict()

    def state(self) -> dict[str, Any]:
        """Whether questions can be asked, and if not, how to start what is missing."""
        if self._client is None:
            return {"url": None, "ready": False, "advice": self._advice()}
        try:
            return {"url": self._client.url, "ready": True, "indices": self._client.indices()}
        except ServiceError as error:
            return {"url": self._client.url, "ready": False, "advice": f"{error}. {self._advice()}"}

    def answer_times(self) -> AnswerTimes | None:
        """How long the server's searches took since it started; None where it doesn't tell.

        Raises:
            NoServer: There is none, or it doesn't answer.
        """
        try:
            return answer_times(self._required().metrics(), "full_knn_request_time")
        except ServiceError as error:
            if error.status is not None:  # a server of another make
                return None
            raise self._unanswered(error) from None

    def ranking(self, like: str) -> dict[str, Any]:
        """How similar each centroid is to what is asked for.

        Args:
            like: As for `pool`, or "centroid:ID".

        Returns:
            Centroid ids as decimal text and their similarities, best first.

        Raises:
            NoServer: The server can't be asked.
            DataError: It names nothing.
        """
        ids, embeddings = self._snapshot.centroid_embeddings()
        similarities = embeddings @ self._vector(like)
        order = np.argsort(-similarities, kind="stable")
        return {
            "centroids": [str(each) for each in ids[order].tolist()],
            "similarities": [round(float(each), 4) for each in similarities[order]],
        }

    def pool(self, like: str) -> pa.Table:
        """The pool's pictures nearest to what is asked for, as rows of spine.tables.NEIGHBOURS of no centroid.

        Args:
            like: "text:WORDS", "image:ID" for a scored picture of the run, "picture:SHA256" for one that was
                given to `remember_picture`, or "centroid:ID".

        Raises:
            NoServer: The server can't be asked.
            DataError: It names nothing.
        """
        with self._lock:
            known = self._found.get(like)
        if known is not None:
            return known
        vector = self._vector(like)
        client = self._required()
        try:
            table = client.knn_batch(vector[None, :], POOL_ROWS, columns=_COLUMNS)
        except ServiceError as error:
            raise self._unanswered(error) from None
        found = _as_neighbours(table)
        with self._lock:
            _keep(self._found, like, found)
        return found

    def add_concept(self, like: str, label: str, curator: str) -> int:
        """Make a centroid of what was searched for, as the curator's own.

        Args:
            like: As for `pool`, but no centroid.
            label: What to call it; empty for the words themselves.
            curator: Who adds it.

        Returns:
            Its centroid id; `retrieve` finds its neighbours.

        Raises:
            NoServer: The server can't be asked.
            DataError: It can't be made into one.
        """
        kind, _, source = like.partition(":")
        if kind not in ("text", "image", "picture"):
            raise DataError(f"{like[:80]!r} is no text and no picture; a concept is made of one of these")
        vector = self._vector(like)
        model = read_manifest(self._run.centroids).facts.get("model")
        if kind != "image":
            try:
                model = self._required().model()
            except ServiceError as error:
                raise NoServer(str(error)) from None
        return add_centroid(
            self._run,
            label=label.strip() or (source if kind == "text" else f"like picture {source[:20]}"),
            kind="text" if kind == "text" else "example",
            source=source,
            embedding=vector,
            curator=curator,
            model=model,
        )

    def remember_picture(self, encoded: str) -> str:
        """Embed a picture that a curator gave, so that it can be searched for.

        Args:
            encoded: Its file in base64.

        Returns:
            What names it in `ranking` and `pool`: "picture:SHA256".

        Raises:
            NoServer: The server can't be asked.
            DataError: It is too large or no picture.
        """
        if len(encoded) > _MAX_PICTURE_BYTES * 4 // 3:
            raise DataError(
                f"a picture of more than {_MAX_PICTURE_BYTES // 1_000_000} MB; give a smaller copy"
            )
        try:
            content = base64.b64decode(encoded, validate=True)
        except ValueError:
            raise DataError("the picture is no base64") from None
        name = f"picture:{hashlib.sha256(content).hexdigest()}"
        try:
            vector = self._required().embed_pictures([content])[0]
        except ServiceError as error:
            raise DataError(str(error)) if error.status == 400 else NoServer(str(error)) from None
        with self._lock:
            _keep(self._vectors, name, vector)
        return name

    def close(self) -> None:
        """Close the connections."""
        if self._client is not None:
            self._client.close()

    def _vector(self, like: str) -> Vectors:
        """A unit vector, shape (d,)."""
        kind, _, name = like.partition(":")
        if kind == "centroid":
            ids, embeddings = self._snapshot.centroid_embeddings()
            places = np.flatnonzero(ids == _whole(name))
            if len(places):
                return np.asarray(embeddings[places[0]], dtype=np.float32)
        elif kind == "image":
            found = self._snapshot.picture_embedding(_whole(name))
            if found is not None:
                return found
            raise DataError("this picture has no embedding yet: it is not scored; choose another")
        elif kind in ("text", "picture"):
            with self._lock:
                known = self._vectors.get(like)
            if known is not None:
                return known
            if kind == "text" and 0 < len(name.strip()) <= _MAX_TEXT:
                return self._embedded(like, name.strip())
            if kind == "picture":
                raise DataError("the board no longer has this picture: give it again")
        raise DataError(f"{like[:80]!r} names nothing to look for; write a few words")

    def _embedded(self, like: str, text: str) -> Vectors:
        try:
            vector: Vectors = self._required().embed_texts([text])[0]
        except ServiceError as error:
            raise self._unanswered(error) from None
        with self._lock:
            _keep(self._vectors, like, vector)
        return vector

    def _unanswered(self, error: ServiceError) -> NoServer:
        if "Timeout" in str(error):
            return NoServer(
                f"{error}: no answer within {_TIMEOUT_S} s. The server may be busy, or loading its model: ask again"
            )
        return NoServer(f"{error}. {self._advice()}" if error.status is None else str(error))

    def _required(self) -> RetrievalClient:
        if self._client is None:
            raise NoServer(self._advice())
        return self._client

    def _advice(self) -> str:
        return (
            "Words and pictures are looked for by a retrieval server: start one, with this board, by "
            f"`popfactory serve --run {self._run.folder} --ui`"
        )


def _as_neighbours(table: pa.Table) -> pa.Table:
    """A server's answer to one question with the columns of neighbours; a picture found twice stands once."""
    rows = table.to_pylist()
    seen: set[int] = set()
    kept: list[dict[str, Any]] = []
    for row in rows:
        known = row.pop("hash", None)
        if known is None and row.get("url") is None:
            continue  # nothing names it
        picture = int(known) if known is not None else laion_id(row["url"], row.get("caption"))
        if picture in seen:
            continue
        seen.add(picture)
        named = {name: row.get(name) for name in NEIGHBOURS.names if name in row}
        kept.append(named | {"id": picture, "rank": len(kept), "centroid_id": None})
    return pa.Table.from_pylist(kept, schema=NEIGHBOURS)


def _keep(into: "OrderedDict[str, Any]", name: str, value: Any) -> None:
    into[name] = value
    while len(into) > _KEPT:
        into.popitem(last=False)


def _whole(text: str) -> int:
    try:
        number = int(text)
    except ValueError:
        raise DataError(f"{text[:40]!r} is no id") from None
    if not -(2**63) <= number < 2**63:
        raise DataError(f"{text[:40]!r} is no id")
    return number
