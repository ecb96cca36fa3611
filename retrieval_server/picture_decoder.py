"""Pictures from outside, opened by processes of their own: the server itself decodes none.

A picture that crashes its decoder, fills the memory it may have, or takes too long costs its own request and
nothing else; the next one gets a new process. They start with the first picture and then stay.
"""

import contextlib
import io
import multiprocessing
import queue
import warnings
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess

import numpy as np
from PIL import Image

from index_builder.encoding.preprocessing import Crop, Preprocessing
from retrieval_server.refusals import Refusal
from spine.errors import ImageError
from spine.images import open_picture
from spine.workers import interrupts_held, limit_memory

WORKERS = 2
"""Processes at most."""

TIMEOUT_S = 10.0
"""For one picture."""

_START_S = 60.0

_Task = tuple[bytes, Preprocessing | None]


@dataclass(frozen=True, slots=True)
class _Failure:
    reason: str
    """One of spine.images.REFUSALS."""
    message: str


_Result = Crop | bytes | _Failure


class PictureDecoder:
    """Opens pictures for the whole server. Threads may share one."""

    def __init__(self) -> None:
        self._idle: queue.SimpleQueue[_Worker] = queue.SimpleQueue()
        for _ in range(WORKERS):
            self._idle.put(_Worker())

    def crop(self, content: bytes, preprocess: Preprocessing) -> Crop:
        """The picture in these bytes at a model's size.

        Raises:
            Refusal: They are none that is opened here, or opening it takes too much time or memory.
        """
        found = self._ask((content, preprocess))
        assert isinstance(found, np.ndarray)
        return found

    def jpeg(self, content: bytes) -> bytes:
        """The picture in these bytes as JPEG, RGB.

        Raises:
            Refusal: As `crop`.
        """
        found = self._ask((content, None))
        assert isinstance(found, bytes)
        return found

    def close(self) -> None:
        """End the processes, once each has done what it is at."""
        for _ in range(WORKERS):
            self._idle.get().end()

    def _ask(self, task: _Task) -> Crop | bytes:
        worker = self._idle.get()
        try:
            found = worker.ask(task)
        finally:
            self._idle.put(worker)
        if isinstance(found, _Failure):
            raise Refusal(f"image: {found.reason}: {found.message}", code="bad_image")
        return found


class _Worker:
    """One process, started when it is needed."""

    def __init__(self) -> None:
        self._process: SpawnProcess | None = None
        self._connection: Connection | None = None

    def ask(self, task: _Task) -> _Result:
        try:
            connection = self._started()
            connection.send(task)
            if connection.poll(TIMEOUT_S):
                found: _Result = connection.recv()
                return found
        except (EOFError, OSError):
            self.end()
            return _Failure("decode_crashed", "what opens pictures ended over this one")
        self.end()
        return _Failure("decode_timeout", f"it took longer than {TIMEOUT_S:g} s to open")

    def end(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.join()
        if self._connection is not None:
            self._connection.close()
        self._process = self._connection = None

    def _started(self) -> Connection:
        if self._connection is not None and self._process is not None and self._process.is_alive():
            return self._connection
        self.end()
        context = multiprocessing.get_context("spawn")
        self._connection, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs,), daemon=True, name="pictures")
        with interrupts_held():
            self._process.start()
        theirs.close()
        if not self._connection.poll(_START_S):
            raise EOFError
        self._connection.recv()
        return self._connection


def _serve(connection: Connection) -> None:
    """A process: pictures in, crops or JPEGs out, until the other side closes."""
    warnings.simplefilter("ignore")  # Pillow's remarks on odd files
    warnings.simplefilter("error", Image.DecompressionBombWarning)
    limit_memory()
    with contextlib.suppress(EOFError, OSError):
        connection.send(None)
        while True:
            connection.send(_result(*connection.recv()))


def _result(content: bytes, preprocess: Preprocessing | None) -> _Result:
    try:
        picture = open_picture(content).image
        if preprocess is not None:
            return preprocess.crop(picture)
        file = io.BytesIO()
        picture.save(file, "JPEG")
        return file.getvalue()
    except ImageError as error:
        return _Failure(error.reason, str(error))
    except MemoryError:
        return _Failure("out_of_memory", "more memory is needed than a picture may take")
