"""All queries against the inverted lists in one pass: each list is read and decoded once, for all that want it.

FAISS answers a query by going through its lists; a thousand queries make it read and decode a popular list
hundreds of times. Here the (query, list) pairs are sorted by list. A list is read once, in the order of the file, and
scored for all its queries together by a compiled kernel (`index_builder.lists.list_kernel`): by whole numbers, which
rule most of it out, the rest in float32. `index_builder.lists.best_k` keeps the best k of each query.

Source: the idea is that of `faiss.contrib.big_batch_search`.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from index_builder.lists.best_k import BestK, Similarities
from index_builder.lists.inverted_lists import InvertedList, InvertedLists, Numbers
from index_builder.lists.kept_arrays import KeptArrays, search_key
from index_builder.lists.list_codes import ListDecoder, list_decoder
from index_builder.lists.list_pairs import Pairs, Wanted, pair_up
from index_builder.lists.list_sample import Part, neighbours_in_sample, rows_of
from index_builder.lists.list_scorers import ListScorer, Piece, SignScorer, VectorScorer
from index_builder.lists.ordered_threads import mapped_in_order
from index_builder.metadata.metadata_rows import Rows
from index_builder.metadata.row_mask import RowMask
from index_builder.numerics.faiss_library import load_faiss
from index_builder.numerics.matrix_threads import alone, one_matrix_thread
from index_builder.numerics.sign_codes import SignCodes
from spine.progress import SILENT, Progress
from spine.tables import Vectors

GROWN = 16
"""Rows that pass a predicate, for each of k neighbours, that a query looks for before it goes to no further list."""

HELD_BYTES = 256 * 2**20
"""Of lists on disk with more to score than the average that are put off."""

SEGMENT_PRODUCTS, SEGMENT_BYTES = 2e13, 64 * 2**30
"""Multiplications, and bytes of lists on disk, after which what was found is kept: a minute of four cores, half a
minute of a disk that gives 2 GB/s. A pass with less is one piece."""

_SCORES = 2**16  # of pairs that a thread is given at once, unless a list's queries alone are more
_ROWS_LEAST = (
    256  # of a list that are handed out at once: what is read of the queries is read again for the next
)

_KEY = np.array([2])  # of what this version keeps of a long pass, which another one doesn't go on from


@dataclass(slots=True)
class _Share:
    """What a thread is given at once."""

    pieces: list[Piece]
    ended: int
    """How many lists end in it."""


class ListPass:
    """The list-major search over one index.

    Attributes:
        lists: The inverted lists it goes through.
        codes: What the lists hold: "flat", "scalar", "product" or "signs".
    """

    def __init__(self, index: Any, path: Path) -> None:
        """Look at an index; see `open_list_pass`."""
        faiss = load_faiss()
        self._index = index  # what its parts below belong to
        self._transforms, self._ivf = parts_of(index)
        self._l2 = index.metric_type == faiss.METRIC_L2
        codes = _codes_of(self._ivf)
        if codes is None:
            raise ValueError("FAISS alone can score these codes")
        self._codes: ListDecoder | SignCodes = codes
        self.codes = codes.kind
        self.lists = InvertedLists(self._ivf, path)

    def search(
        self,
        queries: Vectors,
        k: int,
        nprobe: int,
        mask: RowMask | None = None,
        progress: Progress = SILENT,
        keep: Path | None = None,
        wanted: int = 0,
    ) -> tuple[Similarities, Rows, Numbers]:
        """The k nearest rows of each query among its nprobe nearest lists.

        As many threads work as FAISS has. Memory holds 18 bytes for each of the q · k results, 20 for each of the
        q · nprobe pairs, HELD_BYTES of lists on disk, four stretches of the file, and some 30 MB a thread.

        Args:
            queries: Shape (q, d), float32, contiguous, finite.
            k: Neighbours a query, 1 at least.
            nprobe: Lists a query.
            mask: Rows that may be found; None for all. A query goes on to further lists until enough such rows are in
                them, or no list is left.
            progress: Told of lists gone through.
            keep: File for what is found after each SEGMENT of work; the same search goes on from there. None keeps
                nothing.
            wanted: How many rows of the mask are enough; 0 for GROWN · k.

        Returns:
            Similarities (q, k) and rows (q, k), not sorted; where fewer than k are
            found the rest is row -1 with similarity -inf. Of an l2 index 1 - distance / 2. And how many lists each
            query went through, (q,).

        Raises:
            DataError: Lists on disk can't be read.
        """
        asked = moved_by(self._transforms, queries)
        with one_matrix_thread():
            found, lists, expected = self._search(asked, k, nprobe, mask, progress, keep, wanted)
            # Where the sample promised more than there was, all rows are asked again without it.
            short = np.flatnonzero((found[0].min(axis=1) <= expected) & (expected > -np.inf))
            if len(short):
                again, _, _ = self._search(asked[short], k, nprobe, sampled=False)
                found[0][short], found[1][short] = again
        return *found, lists

    def _search(
        self,
        asked: Vectors,
        k: int,
        nprobe: int,
        mask: RowMask | None = None,
        progress: Progress = SILENT,
        keep: Path | None = None,
        wanted: int = 0,
        *,
        sampled: bool = True,
    ) -> tuple[tuple[Similarities, Rows], Numbers, Similarities]:
        """As `search`; and what a sample of the rows said that k neighbours are above, (q,), -inf without one."""
        best = BestK(len(asked), k)
        enough = Wanted(self.lists.passing(mask), wanted or GROWN * k) if mask is not None else None
        lists, start = [np.empty(0, dtype=np.int64)], 0
        expected = np.full(len(asked), -np.inf, dtype=np.float32)
        while start < len(asked):
            some = asked[start:]
            pairs = pair_up(self._ivf, self.lists.order, some, min(nprobe, int(self._ivf.nlist)), enough)
            some = some[: len(pairs.lists)]
            segments = self._segments(pairs)
            kept = None
            if keep is not None and len(segments) > 1:
                kept = KeptArrays(keep, self._key(asked, k, nprobe, mask))
            done = _restored(best, kept, start, len(segments))
            sizes = [np.count_nonzero(self.lists.sizes[pairs.numbers[segment]]) for segment in segments]
            progress.begin("search", int(sum(sizes)), "lists", done=int(sum(sizes[:done])))
            scorer = self._scorer(some)
            part = Part.ALL
            if sampled and mask is None and len(segments) == 1 and not self.lists.on_disk:
                scored = int((self.lists.sizes[pairs.numbers] * np.diff(pairs.starts)).sum())
                few = neighbours_in_sample(k, scored / len(some), scored / len(pairs.queries))
                if few:
                    part = Part.REST
                    sample = BestK(len(some), few)
                    shares = self._shares(pairs, segments[0], None, Part.SAMPLE)
                    self._offer_all(shares, scorer, 0, sample, SILENT)
                    expected[start : start + len(some)] = best.begin(start, *sample.results())
            for number in range(done, len(segments)):
                shares = self._shares(pairs, segments[number], mask, part)
                self._offer_all(shares, scorer, start, best, progress)
                if kept is not None:
                    values, rows = best.results()
                    kept.write(reached=np.array([start, number + 1]), values=values, rows=rows)
            lists.append(pairs.lists)
            start += len(some)
        return best.results(), np.concatenate(lists), expected

    def _key(self, queries: Vectors, k: int, nprobe: int, mask: RowMask | None) -> str:
        """What the result of a search depends on, as far as the index is the one that was begun with."""
        parts = [_KEY, queries, np.array([k, nprobe]), self.lists.sizes]
        return search_key(parts if mask is None else [*parts, mask.bits])

    def _segments(self, pairs: Pairs) -> list[Numbers]:
        """The lists in the order they are gone through, as places in `pairs`, cut where what was found can be kept.

        In memory those with little to score come first, since what they leave of the others need not be scored.
        """
        sizes = self.lists.sizes[pairs.numbers]
        work = sizes * np.diff(pairs.starts)
        order = np.arange(len(work)) if self.lists.on_disk else np.argsort(work, kind="stable")
        cost = work[order] * (int(self._ivf.d) / SEGMENT_PRODUCTS)
        if self.lists.on_disk:
            cost += sizes[order] * (int(self._ivf.code_size) / SEGMENT_BYTES)
        return np.split(order, np.flatnonzero(np.diff(np.floor(np.cumsum(cost)))) + 1)

    def _scorer(self, queries: Vectors) -> ListScorer:
        if isinstance(self._codes, SignCodes):
            return SignScorer(self._ivf, self._codes, queries, l2=self._l2)
        return VectorScorer(self._ivf, self._codes, queries, l2=self._l2)

    def _offer_all(
        self, shares: Iterator["_Share"], scorer: ListScorer, first: int, best: BestK, progress: Progress
    ) -> None:
        least = best.least()[first:]

        def score(share: _Share) -> int:
            queries, rows, similarities = scorer.score(share.pieces, least)
            queries += first
            best.add(queries, rows, similarities)
            return share.ended

        threads = load_faiss().omp_get_max_threads()
        for ended in mapped_in_order(score, shares, threads, alone):
            progress.advance(ended)

    def _shares(self, pairs: Pairs, segment: Numbers, mask: RowMask | None, part: Part) -> Iterator["_Share"]:
        """The work of a segment, or a part of each of its lists, in shares of a bounded number of pairs."""
        place = dict(zip(pairs.numbers[segment].tolist(), segment.tolist(), strict=True))
        share, scores = _Share([], 0), 0
        for each in self._read(pairs, segment):
            asked = rows_of(part, each.number, len(each.rows))
            codes, rows = each.codes[asked], each.rows[asked]
            if mask is not None:
                passing = np.flatnonzero(mask.has(rows))
                codes, rows = codes[passing], rows[passing]
            share.ended += 1
            i = place[each.number]
            inside = slice(int(pairs.starts[i]), int(pairs.starts[i + 1]))
            queries, middles = pairs.queries[inside], pairs.middles[inside]
            step = max(_ROWS_LEAST, _SCORES // len(queries))
            for start in range(0, len(rows), step):
                some = slice(start, start + step)
                share.pieces.append(Piece(each.number, codes[some], rows[some], queries, middles))
                scores += len(queries) * len(rows[some])
                if scores >= _SCORES:
                    yield share
                    share, scores = _Share([], 0), 0
        if share.pieces or share.ended:
            yield share

    def _read(self, pairs: Pairs, segment: Numbers) -> Iterator[InvertedList]:
        """A segment's lists; of those on disk, read in the order of the file, the first with much to score are put off.

        HELD_BYTES of them at most: what the others leave of these need not be scored, and they are read meanwhile.
        """
        numbers = pairs.numbers[segment]
        reading = self.lists.read(numbers)
        if not self.lists.on_disk or not len(numbers):
            yield from reading
            return
        amounts = self.lists.sizes[numbers] * np.diff(pairs.starts)[segment]
        work = dict(zip(numbers.tolist(), amounts.tolist(), strict=True))
        usual = amounts.mean()
        held, size_bytes = list[InvertedList](), 0
        for each in reading:
            if work[each.number] < usual:
                yield each
                continue
            held.append(each)
            size_bytes += each.codes.nbytes + each.rows.nbytes
            if size_bytes >= HELD_BYTES:
                break
        held.sort(key=lambda each: work[each.number], reverse=True)
        while held:  # from the end, so that each is let go of when it is done
            yield held.pop()
        yield from reading


def open_list_pass(index: Any, path: Path) -> ListPass | None:
    """The list-major search over an index; None for a kind that it doesn't know.

    It knows IVF indexes of plain vectors, scalar and product quantisers and RaBitQ's single bits, also behind
    transforms such as OPQ.

    Args:
        index: A FAISS index.
        path: Its file, or its folder if it stays on disk.
    """
    _, ivf = parts_of(index)
    return ListPass(index, path) if ivf is not None and _codes_of(ivf) is not None else None


def _codes_of(ivf: Any) -> ListDecoder | SignCodes | None:
    return SignCodes.of(ivf) or list_decoder(ivf)


def parts_of(index: Any) -> tuple[list[Any], Any]:
    """The transforms before an IVF index, and the index; none and None for anything else."""
    faiss, transforms = load_faiss(), []
    index = faiss.downcast_index(index)
    if isinstance(index, faiss.IndexPreTransform):
        transforms = [faiss.downcast_VectorTransform(index.chain.at(i)) for i in range(index.chain.size())]
        index = faiss.downcast_index(index.index)
    return (transforms, index) if isinstance(index, faiss.IndexIVF) else ([], None)


def moved_by(transforms: list[Any], queries: Vectors) -> Vectors:
    """Queries as the lists have them."""
    for transform in transforms:
        queries = transform.apply(queries)
    return np.ascontiguousarray(queries, dtype=np.float32)


def _restored(best: BestK, kept: KeptArrays | None, start: int, segments: int) -> int:
    """How many segments of the queries from `start` on are done already, with what they gave put back."""
    reached = kept.read() if kept is not None else None
    if reached is None:
        return 0
    query, done = reached["reached"].tolist()
    if query < start:
        return 0
    best.restore(reached["values"], reached["rows"])
    return int(done) if query == start else segments
