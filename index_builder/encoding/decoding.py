"""Pictures decoded by processes of their own, in order.

A decoder that a hostile picture crashes, or fills with memory, or keeps busy for ever, is a process that
dies; the picture is counted with its reason and the work goes on. The processes are spawned, not forked
(torch and FAISS don't survive a fork), and know Pillow and NumPy only.
"""

import contextlib
import hashlib
import itertools
import multiprocessing
import os
import queue
import threading
import time
import warnings
from collections import deque
from collections.abc import Callable, Generator, Iterable
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from typing import Any, Generic, TypeVar

from PIL import Image

from index_builder.encoding.preprocessing import Crop, Preprocessing
from spine.errors import ImageError
from spine.images import open_picture
from spine.places import read_bytes
from spine.refused import md5_of
from spine.workers import interrupts_held, limit_memory

T = TypeVar("T")
Crops = tuple[Preprocessing, ...]
Hashes = frozenset[str]

TIMEOUT_S = 60.0
"""For one picture; the largest that is taken needs about two on a quiet core."""

_START_TIMEOUT_S = 180.0
_AHEAD = 2  # pictures a process holds, so that it need not wait for the next
_STARTING = 4  # processes that start at the same time, where each must be ready before it is given bytes
_WINDOW = 384  # pictures between the source and whoever takes them


@dataclass(frozen=True, slots=True)
class Decoded:
    """A picture, ready for the model."""

    crop: Crop
    width: int
    """Pixels of the whole picture, after EXIF rotation."""
    height: int
    format: str
    sha256: str
    """Of its bytes, in hex."""
    other: Crop | None = None
    """The same picture for another model, where one was asked for."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a picture can't be used."""

    reason: str
    """One of spine.images.REFUSALS, "decode_crashed" and "decode_timeout" among them, or "hash_block"."""
    message: str


def decode(
    items: Iterable[tuple[T, str | bytes | None]],
    preprocess: Preprocessing,
    *,
    other: Preprocessing | None = None,
    workers: int = 0,
    timeout_s: float = TIMEOUT_S,
    listed: Callable[[], Hashes] = frozenset,
) -> Generator[tuple[T, Decoded | Refusal | None], None, None]:
    """Read, open and crop pictures in several processes, while the caller works on the last ones.

    Args:
        items: Anything, with the place of its picture or its bytes; None where there is none to decode.
        preprocess: Makes the crop.
        other: Makes a second one, for another model.
        workers: Processes at most; 0 is one a core.
        timeout_s: For one picture.
        listed: Gives SHA-256 and MD5, in hex, of pictures that may not be opened, as they stand now; asked often, and
            what it raises ends the work. The same set as long as nothing changes.

    Yields:
        Each item in its order, with its picture, the reason why not, or None where there was none to decode.

    Raises:
        RuntimeError: The processes can't be started.
    """
    crops = (preprocess,) if other is None else (preprocess, other)
    dispatcher = _Dispatcher(items, crops, workers or available_cores(), timeout_s, listed)
    dispatcher.start()
    try:
        while (found := dispatcher.output.get()) is not None:
            if isinstance(found, BaseException):
                raise found
            dispatcher.taken += 1
            yield found
    finally:
        dispatcher.stop.set()
        dispatcher.join()


def available_cores() -> int:
    """Cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@dataclass(slots=True)
class _Task:
    number: int
    source: str | bytes
    crashes: int = 0


@dataclass(slots=True)
class _Worker:
    process: Any
    connection: Connection
    hashes: Hashes
    """What it was told not to open."""
    tasks: deque[_Task] = field(default_factory=deque)
    """What it holds; it works on the first."""
    since: float = 0.0
    """When it began with the first, or was started."""
    ready: bool = False


class _Dispatcher(threading.Thread, Generic[T]):
    """Hands pictures to processes and collects what they make of them, in order."""

    def __init__(
        self,
        items: Iterable[tuple[T, str | bytes | None]],
        crops: Crops,
        limit: int,
        timeout_s: float,
        listed: Callable[[], Hashes],
    ) -> None:
        super().__init__(name="decoding", daemon=True)
        self.output: queue.SimpleQueue[Any] = queue.SimpleQueue()
        """Results, then None; or the exception that ended the work."""
        self.stop = threading.Event()
        self.taken = 0
        """Results that the caller has taken."""
        self._items = iter(items)
        self._crops = crops
        self._limit = limit
        self._timeout_s = timeout_s
        self._listed, self._hashes = listed, Hashes()
        self._workers: list[_Worker] = []
        self._backlog: deque[_Task] = deque()
        self._open: dict[int, T] = {}
        self._results: dict[int, Decoded | Refusal | None] = {}
        self._read = 0  # items read
        self._given = 0  # results put out
        self._exhausted = False
        self._failed_starts = 0

    def run(self) -> None:
        """Work until all is done or the caller stops."""
        end: BaseException | None = None
        try:
            while not self.stop.is_set():
                self._read_items()
                self._hand_out()
                self._put_out()
                if self._exhausted and self._given == self._read:
                    break
                self._collect()
        except BaseException as error:  # noqa: BLE001  # it is raised again where the results are taken
            end = error
        finally:
            for worker in self._workers:
                self._end(worker)
            self.output.put(end)

    def _read_items(self) -> None:
        while not self._exhausted and not self._backlog and self._read - self.taken < _WINDOW:
            found = next(self._items, None)
            if found is None:
                self._exhausted = True
                return
            item, source = found
            self._open[self._read] = item
            if source is None:
                self._results[self._read] = None
            else:
                self._backlog.append(_Task(self._read, source))
            self._read += 1
            self._hand_out()

    def _hand_out(self) -> None:
        self._hashes = self._listed()
        while self._backlog:
            worker = self._free_worker(self._backlog[0])
            if worker is None:
                return
            task = self._backlog.popleft()
            try:
                if worker.hashes is not self._hashes:
                    worker.connection.send(self._hashes)
                    worker.hashes = self._hashes
                worker.connection.send(task.source)
            except OSError:  # it died with nothing to do: nobody's fault
                self._backlog.appendleft(task)
                self._drop(worker)
                continue
            if not worker.tasks:
                worker.since = time.monotonic()
            worker.tasks.append(task)

    def _free_worker(self, task: _Task) -> _Worker | None:
        """A process that takes a task now; None where all have enough."""
        worker = min(self._workers, key=lambda one: len(one.tasks), default=None)
        if isinstance(task.source, str):
            if (worker is None or worker.tasks) and len(self._workers) < self._limit:
                worker = self._start_worker()
            if worker is None or (worker.tasks and worker.hashes is not self._hashes):
                return None  # it is told of other hashes once it waits, as bytes are given
            return worker if len(worker.tasks) < _AHEAD else None
        # Bytes go to a process that waits for them: a pipe holds few, and were both sides writing, each would
        # wait for ever for the other to read.
        waiting = next((one for one in self._workers if one.ready and not one.tasks), None)
        starting = sum(not one.ready for one in self._workers)
        if waiting is None and starting < _STARTING and len(self._workers) < self._limit:
            self._start_worker()
        return waiting

    def _put_out(self) -> None:
        while self._given in self._results:
            self.output.put((self._open.pop(self._given), self._results.pop(self._given)))
            self._given += 1

    def _collect(self) -> None:
        busy = self._busy()
        if not busy:  # the caller has enough for now
            time.sleep(0.01)
            return
        heard = wait([worker.connection for worker in busy], timeout=0.2)
        for worker in busy:
            if worker.connection in heard:
                self._receive(worker)
        now = time.monotonic()
        for worker in self._busy():
            if not worker.ready and now - worker.since > _START_TIMEOUT_S:
                self._crashed(worker)
            elif worker.ready and now - worker.since > self._timeout_s:
                task = worker.tasks.popleft()
                message = f"{_named(task.source)}: not open after {self._timeout_s:.0f} s"
                self._results[task.number] = Refusal("decode_timeout", message)
                self._drop(worker)

    def _busy(self) -> list[_Worker]:
        return [worker for worker in self._workers if worker.tasks or not worker.ready]

    def _receive(self, worker: _Worker) -> None:
        try:
            result = worker.connection.recv()
        except (EOFError, OSError):
            self._crashed(worker)
            return
        worker.since = time.monotonic()
        if worker.ready:
            self._results[worker.tasks.popleft().number] = result
        worker.ready = True
        self._failed_starts = 0

    def _crashed(self, worker: _Worker) -> None:
        """A process ended by itself. Its picture gets a second chance: it may have been killed from outside."""
        if not worker.ready:
            self._failed_starts += 1
            if self._failed_starts > 3:
                raise RuntimeError("the processes that decode pictures end as soon as they start")
        else:
            task = worker.tasks.popleft()
            task.crashes += 1
            if task.crashes < 2:
                self._backlog.append(task)
            else:
                worker.process.join(1)
                message = (
                    f"{_named(task.source)}: its decoder ended twice (exit code {worker.process.exitcode})"
                )
                self._results[task.number] = Refusal("decode_crashed", message)
        self._drop(worker)

    def _start_worker(self) -> _Worker:
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        process = context.Process(
            target=_serve, args=(theirs, self._crops, self._hashes), daemon=True, name="decoder"
        )
        with interrupts_held():
            process.start()
        theirs.close()
        worker = _Worker(process, ours, self._hashes, since=time.monotonic())
        self._workers.append(worker)
        return worker

    def _drop(self, worker: _Worker) -> None:
        """End a process; what it held and hadn't begun goes to others."""
        self._workers.remove(worker)
        self._backlog.extendleft(reversed(worker.tasks))
        worker.tasks.clear()
        self._end(worker)

    def _end(self, worker: _Worker) -> None:
        worker.connection.close()
        worker.process.kill()
        worker.process.join()


def _serve(connection: Connection, crops: Crops, hashes: Hashes) -> None:
    """A process: places or bytes in, pictures out, until the other side closes; other hashes replace those it has."""
    warnings.simplefilter("ignore")  # Pillow's remarks on odd files
    warnings.simplefilter("error", Image.DecompressionBombWarning)
    limit_memory()
    with contextlib.suppress(EOFError, OSError):  # the parent is gone or has enough
        connection.send(None)
        for _ in itertools.count():
            given = connection.recv()
            if isinstance(given, frozenset):
                hashes = given
            else:
                connection.send(_decoded(given, crops, hashes))


def _named(source: str | bytes) -> str:
    return source if isinstance(source, str) else "a downloaded picture"


def _decoded(source: str | bytes, crops: Crops, hashes: Hashes) -> Decoded | Refusal:
    try:
        content = read_bytes(source) if isinstance(source, str) else source
        sha256 = hashlib.sha256(content).hexdigest()
        if hashes and not hashes.isdisjoint((sha256, md5_of(content))):
            return Refusal("hash_block", f"{_named(source)}: on a list")
        picture = open_picture(content)
        crop, *others = (preprocess.crop(picture.image) for preprocess in crops)
    except ImageError as error:
        return Refusal(error.reason, str(error))
    except MemoryError:
        return Refusal("out_of_memory", f"{_named(source)}: more memory is needed than a decoder may take")
    return Decoded(crop, picture.width, picture.height, picture.format, sha256, *others)
