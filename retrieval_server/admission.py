"""How much may be under way at once: requests by number, their bodies by bytes."""

import contextlib
from collections.abc import Iterator

from retrieval_server.refusals import Refusal


class Admission:
    """Places for requests. For the event loop alone."""

    def __init__(self, requests: int, size_bytes: int) -> None:
        """So many requests at work or waiting, and so many bytes of their bodies."""
        self._requests, self._size_bytes = requests, size_bytes

    @contextlib.contextmanager
    def request(self) -> Iterator[None]:
        """Count a request while it is worked on.

        Raises:
            Refusal: There are as many as there may be.
        """
        if self._requests <= 0:
            raise _busy()
        self._requests -= 1
        try:
            yield
        finally:
            self._requests += 1

    @contextlib.contextmanager
    def body(self) -> Iterator["HeldBytes"]:
        """Count the bytes of one body, from the first to the answer."""
        held = HeldBytes(self)
        try:
            yield held
        finally:
            self._size_bytes += held.size_bytes

    def _take(self, size_bytes: int) -> None:
        if size_bytes > self._size_bytes:
            raise _busy()
        self._size_bytes -= size_bytes


class HeldBytes:
    """What one body holds of the room for all."""

    def __init__(self, admission: Admission) -> None:
        self._admission = admission
        self.size_bytes = 0

    def add(self, size_bytes: int) -> None:
        """Take room for so many more.

        Raises:
            Refusal: There is not so much left.
        """
        self._admission._take(size_bytes)
        self.size_bytes += size_bytes


def _busy() -> Refusal:
    return Refusal("too many requests are waiting; try again", status=503, code="busy")
