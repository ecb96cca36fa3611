"""Which ids were there before: 8 bytes each, where a set of Python's numbers takes ten times as much."""

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

Ids = npt.NDArray[np.int64]


class KnownIds:
    """Ids that have been seen, in sorted arrays of which each is at least twice as long as the next.

    So an id is copied as often as the logarithm of their number, and looked up in a few arrays.
    """

    def __init__(self) -> None:
        self._runs: list[Ids] = []
        self._fresh: set[int] = set()  # of the shard that is being made: it may still take some back

    def add(self, number: int) -> bool:
        """Remember an id for now; returns False where it was known."""
        if number in self._fresh or number in self:
            return False
        self._fresh.add(number)
        return True

    def take_back(self, numbers: Iterable[int]) -> None:
        """Forget ids that came by `add` since the last `keep`."""
        self._fresh -= set(numbers)

    def keep(self) -> None:
        """Remember for good what came by `add`."""
        self.extend(np.fromiter(self._fresh, dtype=np.int64, count=len(self._fresh)))
        self._fresh = set()

    def extend(self, ids: Ids) -> None:
        """Remember ids for good: different ones, none of them known."""
        run = np.sort(ids)
        while self._runs and len(self._runs[-1]) < 2 * len(run):
            run = np.sort(
                np.concatenate([self._runs.pop(), run]), kind="stable"
            )  # two sorted halves: a merge
        if len(run):
            self._runs.append(run)

    def __contains__(self, number: int) -> bool:
        """Whether an id is remembered for good."""
        for run in self._runs:
            place = run.searchsorted(number)
            if place < len(run) and run[place] == number:
                return True
        return False

    def known(self, ids: Ids) -> npt.NDArray[np.bool_]:
        """Which of these are remembered for good; shape (n,)."""
        found = np.zeros(len(ids), dtype=bool)
        for run in self._runs:
            places = np.searchsorted(run, ids)
            found |= run[np.minimum(places, len(run) - 1)] == ids
        return found

    def first_of_each(self, ids: Ids) -> npt.NDArray[np.bool_]:
        """Which of these are neither remembered for good nor a repeat of one before them; shape (n,)."""
        first = np.zeros(len(ids), dtype=bool)
        first[np.unique(ids, return_index=True)[1]] = True
        return first & ~self.known(ids)
