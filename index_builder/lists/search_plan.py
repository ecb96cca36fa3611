"""Whether many queries are answered list by list, or query by query: by what each would cost.

The costs are estimates in nanoseconds of one core, measured on an AMD Zen 4 with AVX-512, and good to a factor of
two on others; what is compared is their ratio.

    FAISS      scores x (what it takes to score one code)
    list-major lists x 20 µs, vectors decoded x d, scores x (d of a matrix product, and a look at the heap); where
               whole numbers rule most of it out, a product of those and little else; where few queries share a
               list, a product of each pair of a query and a row by itself

Signs, RaBitQ's bits, cost about as much to score either way, and a query that goes through its own lists, the nearest
first, has less to write down: there only reading is a reason to share.

Lists on disk are read at 2 GB/s, by the pass once; by FAISS once too where they fit into half of the memory, else
once for each query that wants them. Assigning queries to lists is the same for both and left out.
"""

from dataclasses import dataclass

_LIST_NS = 20_000.0  # per list: reading, calls
_DECODED_NS = {"flat": 0.2, "scalar": 0.15, "product": 0.15}  # per dimension of a vector
_PRODUCT_NS, _LEFT_NS = 0.006, 3.0  # per dimension of a score, and per score
_SCANNED_NS = {"flat": 0.1, "scalar": 0.12, "product": 0.07, "signs": 0.0125}  # the same by query
_SIGNS_NS = 0.016  # per dimension of a score, list by list
_BYTE_NS = 0.5  # read from disk
_MAPPED_NS = 60_000.0  # per list of a query: FAISS starts threads that bring lists in from disk, but RaBitQ's


@dataclass(frozen=True, slots=True)
class SearchPlan:
    """How queries are going to be answered, and why."""

    list_major: bool
    reason: str
    """One line for a person."""


def plan_search(
    n: int,
    d: int,
    nlist: int,
    queries: int,
    nprobe: int,
    *,
    codes: str | None,
    disk_bytes: int,
    memory_bytes: int,
    list_size: float = 0,
) -> SearchPlan:
    """Choose the way that costs less.

    Args:
        n: Vectors in the index.
        d: Their dimension.
        nlist: Inverted lists, 0 for none.
        queries: Queries asked together.
        nprobe: Lists a query.
        codes: "flat", "scalar", "product" or "signs", as a ListPass has it; None where FAISS alone can score them.
        disk_bytes: What the lists take on disk; 0 where they are in memory.
        memory_bytes: Memory of this machine.
        list_size: Vectors in a list that a query wants, on average; 0 for those of any list.
    """
    if not nlist:
        return SearchPlan(
            False, f"FAISS's batch search: the index has no lists, {queries:,} queries × {n:,} vectors"
        )
    if codes is None:
        return SearchPlan(False, "FAISS's batch search: this kind of codes is scored by FAISS alone")
    nprobe = min(nprobe, nlist)
    touched = nlist * (1 - (1 - nprobe / nlist) ** queries)
    scores = queries * nprobe * min(n, list_size or n / nlist)
    theirs = scores * d * _SCANNED_NS[codes]
    ours = touched * _LIST_NS + _scored_ns(codes, d, scores, touched * n / nlist)
    if disk_bytes:
        reads = touched if disk_bytes <= memory_bytes / 2 else queries * nprobe
        ours += touched / nlist * disk_bytes * _BYTE_NS
        theirs += reads / nlist * disk_bytes * _BYTE_NS
        theirs += queries * nprobe * _MAPPED_NS if codes != "signs" else 0
    what = (
        f"{queries:,} queries × {nprobe:,} of {nlist:,} lists{' on disk' if disk_bytes else ''}, about"
        f" {touched:,.0f} different ones with {queries * nprobe / max(touched, 1e-9):,.1f} queries each"
    )
    costs = f"estimated at {ours / 1e9:.3g} s of a core list by list, {theirs / 1e9:.3g} s query by query"
    if ours < theirs:
        return SearchPlan(True, f"list-major, each list read once: {what}; {costs}")
    way = "query by query, each through its nearest lists" if codes == "signs" else "FAISS's batch search"
    return SearchPlan(False, f"{way}: {what}; {costs}")


def _scored_ns(codes: str, d: int, scores: float, decoded: float) -> float:
    """What decoding and scoring take list by list."""
    if codes == "signs":
        return scores * d * _SIGNS_NS
    return decoded * d * _DECODED_NS[codes] + scores * (d * _PRODUCT_NS + _LEFT_NS)
