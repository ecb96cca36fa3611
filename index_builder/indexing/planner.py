"""Which FAISS index a pool gets, by what memory allows and what was measured; docs/indexes.md has the figures.

    Flat              4·d bytes a vector; exact search, up to 100,000 vectors
    IVF,RaBitQ        d/8 + 16 bytes; one bit a dimension
    IVF,RaBitQ2       d/4 + 28 bytes; two bits a dimension
    IVF,SQ8           d + 8 bytes; one byte a dimension

Beside RaBitQ's codes lie the vectors themselves as float16, memory-mapped, and candidates are ranked on them: a search
is then faster than on SQ8 and finds more. Where memory has no room for these rows, but for SQ8, SQ8 is taken: it reads
nothing from disk. Where even one bit a dimension is too much, the lists stay on disk as well.

RaBitQ takes all dimensions for alike, so vectors are rotated at random before: on vectors with a few large dimensions,
as CLIP's have, its recall is .77 with and .55 without (60,000 drawn vectors, d = 512, k = 40, not re-ranked).

Source: Gao and Long, "RaBitQ", SIGMOD 2024; the FAISS wiki's guidelines for the number of lists.
"""

import re
from dataclasses import dataclass
from math import log2, sqrt

from spine.errors import ConfigError
from spine.sizes import format_size

FLAT_MAX = 100_000
"""Vectors up to which exact search is cheap: 0.15 GFLOP a query at d = 768."""

TRAINED_BY = 64
"""Vectors a list is trained by, where there are so many."""

_LISTS_MAX = 131_072
_LEAST_TRAINED_BY = 40  # as FAISS asks
_ID_BYTES = 8

_TRANSFORM = r"(?:OPQ\d{1,4}(?:_\d{1,5})?|PCAR?\d{1,5}|RR\d{0,5})"
_CODES = r"(?:Flat|SQ(?:8|6|4|fp16|bf16)|PQ\d{1,4}(?:x\d{1,2}(?:fs)?)?|RaBitQ(?:fs)?[2-9]?)"
_FACTORY = re.compile(
    rf"(?P<flat>Flat)|(?P<graph>HNSW\d{{1,3}}(?:,(?:Flat|SQ8|SQfp16))?)"
    rf"|(?P<transform>{_TRANSFORM},)?IVF(?P<nlist>\d{{1,7}})(?P<coarse>_HNSW\d{{1,3}})?,(?P<codes>{_CODES})"
)


@dataclass(frozen=True, slots=True)
class IndexPlan:
    """An index to build, and why this one."""

    factory: str
    """FAISS's name of it."""
    n: int
    d: int
    nlist: int
    """Inverted lists; 0 for an index without."""
    keeps_vectors: bool
    """Whether the vectors themselves go beside the index, to rank candidates on."""
    size_bytes: int
    """What the index takes in memory, estimated; the vectors beside it not counted. 0 where it isn't known before."""
    recall: float
    """Share of the exact 100 nearest that searches reach at most, about: measured on drawn vectors. 0: not known."""
    why: str

    @property
    def training_rows(self) -> int:
        """Vectors that the lists are trained by."""
        return min(self.n, self.nlist * TRAINED_BY)

    @property
    def streams(self) -> bool:
        """Whether its lists are written in parts and put together on disk; otherwise it is built in memory."""
        return self.nlist > 0 and "fs" not in self.factory

    def line(self) -> str:
        """The choice, what it takes, what it finds and why, in one line."""
        size = f"{format_size(self.size_bytes)}" if self.size_bytes else "size unknown"
        rows = (
            f" and {format_size(2 * self.n * self.d)} of float16 rows on disk" if self.keeps_vectors else ""
        )
        finds = f"; recall@100 up to about {self.recall:.2f}" if self.recall else ""
        trained = f"; lists trained by {self.training_rows:,} vectors" if self.nlist else ""
        return f"{self.factory} for {self.n:,} vectors of dimension {self.d}: {size}{rows}{finds}; {self.why}{trained}"


def plan_index(
    n: int, d: int, memory_bytes: int, *, keep_vectors: bool = True, factory: str = ""
) -> IndexPlan:
    """The index that finds most at the least cost within memory, or the one asked for.

    Args:
        n: Vectors, 1 at least.
        d: Their dimension.
        memory_bytes: What the index may take.
        keep_vectors: Whether float16 rows may lie beside coarse codes.
        factory: FAISS's name of the index to build, of a fixed list of kinds; empty to choose.

    Raises:
        ConfigError: Memory has no room for the middles of the lists, or `factory` is none that is built here.
    """
    if factory:
        return _asked_for(factory, n, d, keep_vectors=keep_vectors)
    nlist = list_count(n)
    lists_bytes = nlist * (d * 4 + 32)
    ivf, rotated = f"IVF{nlist}", f"RR{d},IVF{nlist}"
    rotation_bytes = 4 * d * d
    coarse = n * (-(-d // 8) + 8 + _ID_BYTES) + lists_bytes + rotation_bytes
    finer = n * (-(-d // 4) + 20 + _ID_BYTES) + lists_bytes + rotation_bytes
    bytes_8 = n * (d + _ID_BYTES) + lists_bytes
    flat = n * d * 4
    rows = 2 * n * d
    budget = format_size(memory_bytes)
    if n <= FLAT_MAX and flat <= memory_bytes:
        return IndexPlan("Flat", n, d, 0, False, flat, 1.0, f"exact, and cheap up to {FLAT_MAX:,} vectors")
    if keep_vectors and coarse + rows <= memory_bytes:
        why = f"{budget} holds the rows too, and nothing measured is faster at this recall"
        return IndexPlan(f"{rotated},RaBitQ", n, d, nlist, True, coarse, 0.99, why)
    if bytes_8 <= memory_bytes:
        why = f"the finest that {budget} holds without reading rows from disk"
        return IndexPlan(f"{ivf},SQ8", n, d, nlist, False, bytes_8, 0.99, why)
    if finer <= memory_bytes:
        recall = 0.99 if keep_vectors else 0.96
        why = f"SQ8 would take {format_size(bytes_8)} of {budget}"
        return IndexPlan(f"{rotated},RaBitQ2", n, d, nlist, keep_vectors, finer, recall, why)
    recall = 0.99 if keep_vectors else 0.9  # .93 among 200,000, .89 among a million
    if coarse <= memory_bytes:
        why = f"two bits a dimension would take {format_size(finer)} of {budget}"
        return IndexPlan(f"{rotated},RaBitQ", n, d, nlist, keep_vectors, coarse, recall, why)
    if lists_bytes + rotation_bytes > memory_bytes:
        raise ConfigError(
            f"[index] memory_budget = {budget}, {format_size(lists_bytes + rotation_bytes)} at least was needed for"
            f" the middles of {nlist:,} lists of dimension {d}; raise it"
        )
    why = f"{format_size(coarse)} is more than {budget}: its lists stay on disk"
    return IndexPlan(f"{rotated},RaBitQ", n, d, nlist, keep_vectors, coarse, recall, why)


def list_count(n: int) -> int:
    """Inverted lists for n vectors: the power of two nearest to 4·√n, each with enough vectors to train it."""
    wanted = 2 ** round(log2(4 * sqrt(n)))
    return int(max(1, min(wanted, n // _LEAST_TRAINED_BY, _LISTS_MAX)))


def _asked_for(factory: str, n: int, d: int, *, keep_vectors: bool) -> IndexPlan:
    found = _FACTORY.fullmatch(factory)
    if found is None:
        raise ConfigError(
            f"[index] factory = {factory!r}: one of Flat, HNSW32, HNSW32,SQ8 and IVF4096,CODES was needed, where CODES"
            " is Flat, SQ8, SQ6, SQ4, SQfp16, SQbf16, PQ64, PQ64x4fs, RaBitQ, RaBitQ2 and the like, IVF4096_HNSW32 is"
            " a graph over the lists, and OPQ64_256, PCA256 or RR before a comma turns the vectors first"
        )
    nlist, why = int(found["nlist"] or 0), "asked for by [index] factory"
    if nlist > n or (found["nlist"] and not nlist):
        raise ConfigError(
            f"[index] factory = {factory!r}: {nlist:,} lists of {n:,} vectors; 1 to {n:,} was needed"
        )
    coarse = found["codes"] is not None and re.match(r"PQ|RaBitQ|SQ[46]$", found["codes"]) is not None
    return IndexPlan(factory, n, d, nlist, keep_vectors and coarse, 0, 0.0, why)
