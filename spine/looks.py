"""PDQ hashes of a list, found again within 31 differing bits without comparing each with each.

Of 16 pieces of 16 bits at least one differs in one bit at most where all differ in 31 at most: so only hashes that
share such a piece are compared in full. Ten thousand entries leave some forty to compare.

Source: Norouzi, Punjani and Fleet, "Fast Search in Hamming Space with Multi-Index Hashing", 2012; Facebook,
ThreatExchange, "PDQ", for the distance.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

PDQ_DISTANCE = 31
"""Bits of 256 in which two PDQ hashes of one picture may differ, as its authors recommend."""

Words = npt.NDArray[np.uint64]
Mask = npt.NDArray[np.bool_]

_PIECES = 16
_VALUES = 1 << 16
_FLIPS = np.concatenate([[0], 1 << np.arange(16)]).astype(np.uint16)  # none, or one bit
_AT_ONCE = 200_000  # pairs compared at a time: 6 MB each side
_FEW = 20_000  # pairs that are sooner compared in full than looked up


def words(hashes: list[str]) -> Words:
    """PDQ hashes in hex as shape (n, 4)."""
    content = np.frombuffer(bytes.fromhex("".join(hashes)), dtype=np.uint8)
    return content.reshape(-1, 32).view(np.uint64)


@dataclass(frozen=True, slots=True)
class Looks:
    """The PDQ hashes of a list, to be asked."""

    hashes: Words
    """Shape (n, 4)."""
    entries: npt.NDArray[np.int32]
    """For each piece the hashes ordered by its value, each 17 times, once for each flip; shape (16, 17 n)."""
    starts: npt.NDArray[np.int64]
    """Where in `entries` each value of a piece begins; shape (16, 65537)."""

    @classmethod
    def of(cls, hashes: Words) -> "Looks":
        """Args: hashes: Shape (n, 4)."""
        pieces = _pieces(hashes)
        entries = np.empty((_PIECES, len(_FLIPS) * len(hashes)), dtype=np.int32)
        starts = np.zeros((_PIECES, _VALUES + 1 if len(hashes) else 1), dtype=np.int64)
        for piece in range(_PIECES if len(hashes) else 0):
            values = (pieces[:, piece, None] ^ _FLIPS).reshape(-1)
            entries[piece] = np.argsort(values, kind="stable") // len(_FLIPS)
            np.cumsum(np.bincount(values, minlength=_VALUES), out=starts[piece, 1:])
        return cls(hashes, entries, starts)

    def __len__(self) -> int:
        return len(self.hashes)

    def near(self, hashes: Words) -> Mask:
        """Which of these differ from an entry in PDQ_DISTANCE bits at most.

        Args:
            hashes: Shape (m, 4).

        Returns:
            Shape (m,).
        """
        if len(self) * len(hashes) <= _FEW:
            differing = np.bitwise_count(hashes[:, None] ^ self.hashes).sum(axis=2)
            return np.asarray((differing <= PDQ_DISTANCE).any(axis=1))
        found = np.zeros(len(hashes), dtype=bool)
        pieces = _pieces(hashes).astype(np.int64)
        for piece in range(_PIECES):
            first, end = (self.starts[piece, pieces[:, piece] + each] for each in (0, 1))
            ends = np.cumsum(end - first)
            start = 0
            while start < len(hashes):
                before = int(ends[start - 1]) if start else 0
                stop = max(start + 1, int(np.searchsorted(ends, before + _AT_ONCE, side="right")))
                rows = slice(start, stop)
                found[rows] |= self._any_near(piece, first[rows], end[rows], hashes[rows])
                start = stop
        return found

    def _any_near(
        self, piece: int, first: npt.NDArray[np.int64], end: npt.NDArray[np.int64], hashes: Words
    ) -> Mask:
        """Which of the hashes are near one of those that `entries` of a piece has from `first` to `end`."""
        counts = end - first
        of = np.repeat(np.arange(len(hashes)), counts)
        within = np.arange(len(of)) - np.repeat(np.cumsum(counts) - counts, counts)
        candidates = self.hashes[self.entries[piece, np.repeat(first, counts) + within]]
        # Added word by word, which is faster than along an axis. 8 bits hold the sum: a pair shares 15 bits at least.
        first_word, *others = np.bitwise_count(candidates ^ hashes[of]).T
        differing = sum(others, start=first_word)
        found = np.zeros(len(hashes), dtype=bool)
        found[of[differing <= PDQ_DISTANCE]] = True
        return found


def _pieces(hashes: Words) -> npt.NDArray[np.uint16]:
    return np.ascontiguousarray(hashes).view(np.uint16).reshape(len(hashes), _PIECES)
