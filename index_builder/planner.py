"""Which FAISS index a pool gets: exact while that is cheap, then coarser codes as memory gets tight.

    Flat                     4·d bytes a vector; exact search
    IVF,SQ8                  d + 8 bytes; one byte a dimension
    IVF,RaBitQ (fast scan)   d/8 + 16 bytes; one bit a dimension. The vectors themselves lie beside the
                             index on disk as float16, and candidates are ranked on them

At equal bytes one-bit RaBitQ finds more than product quantisation, and needs no training. It takes all
dimensions for alike, so vectors are rotated at random before: on vectors with a few large dimensions, as
CLIP's have, its recall is .77 with and .55 without (60,000 drawn vectors, d = 512, k = 40, not re-ranked).

Source: Gao and Long, "RaBitQ", SIGMOD 2024; the FAISS wiki's guidelines for the number of lists.
"""

from dataclasses import dataclass
from math import log2, sqrt

from spine.errors import ConfigError
from spine.sizes import format_size

FLAT_MAX = 100_000
"""Vectors up to which exact search is cheap: 0.15 GFLOP a query at d = 768."""

_LISTS_MAX = 131_072
_TRAINED_BY = 40  # vectors that train a list at least, as FAISS asks


@dataclass(frozen=True, slots=True)
class IndexPlan:
    """A kind of index and its size."""

    kind: str
    """Flat, SQ8 or RaBitQ."""
    d: int
    nlist: int
    """Inverted lists; 0 for Flat."""
    nprobe: int
    """Lists searched a query by default; 0 for Flat."""
    size_bytes: int
    """What it takes in memory, estimated."""

    @property
    def key(self) -> str:
        """FAISS's name of it."""
        keys = {
            "Flat": "Flat",
            "SQ8": f"IVF{self.nlist},SQ8",
            "RaBitQ": f"RR{self.d},IVF{self.nlist},RaBitQfs",
        }
        return keys[self.kind]

    @property
    def keeps_vectors(self) -> bool:
        """Whether the vectors themselves go beside the index, to rank candidates on."""
        return self.kind == "RaBitQ"


def plan_index(n: int, d: int, memory_bytes: int) -> IndexPlan:
    """The most exact kind of index that fits into memory and is not needlessly slow.

    Args:
        n: Vectors, 1 at least.
        d: Their dimension.
        memory_bytes: What the index may take.

    Raises:
        ConfigError: Even the coarsest is larger.
    """
    nlist = list_count(n)
    nprobe = min(nlist, max(32, round(sqrt(nlist) / 2)))
    lists_bytes = nlist * d * 4
    padded = n + 16 * nlist  # the fast scan stores the codes of a list in blocks of 32
    plans = [
        IndexPlan("SQ8", d, nlist, nprobe, n * (d + 8) + lists_bytes),
        IndexPlan("RaBitQ", d, nlist, nprobe, padded * (-(-d // 8) + 8) + 8 * n + lists_bytes + 4 * d * d),
    ]
    if n <= FLAT_MAX:
        plans.insert(0, IndexPlan("Flat", d, 0, 0, n * d * 4))
    for plan in plans:
        if plan.size_bytes <= memory_bytes:
            return plan
    smallest = min(plan.size_bytes for plan in plans)
    raise ConfigError(
        f"[index] memory_budget = {format_size(memory_bytes)}, {format_size(smallest)} at least was needed for"
        f" {n:,} vectors of dimension {d}; raise it"
    )


def list_count(n: int) -> int:
    """Inverted lists for n vectors: the power of two nearest to 4·√n, each with enough vectors to train it."""
    wanted = 2 ** round(log2(4 * sqrt(n)))
    return int(max(1, min(wanted, n // _TRAINED_BY, _LISTS_MAX)))
