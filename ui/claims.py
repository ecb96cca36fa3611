"""Who has which centroid open: a hint for the others, kept in memory alone. It stops nobody."""

import threading
import time

_LASTS_S = 600.0


class Claims:
    """The centroid each page has open, for ten minutes after it was last heard of."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._open: dict[str, tuple[int, str, float]] = {}

    def take(self, client: str, curator: str, centroid_id: int) -> None:
        """A page of this curator shows this centroid now, and no other."""
        now = time.monotonic()
        with self._lock:
            self._open = {
                name: claim
                for name, claim in self._open.items()
                if now - claim[2] < _LASTS_S and name != client
            }
            self._open[client] = (centroid_id, curator, now)

    def held(self, but: str) -> dict[int, str]:
        """Curator by centroid, but for those of this curator."""
        now = time.monotonic()
        with self._lock:
            return {
                centroid: curator
                for centroid, curator, seen in self._open.values()
                if curator != but and now - seen < _LASTS_S
            }
