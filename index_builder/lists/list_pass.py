"""All queries against the inverted lists in one pass: each list is read and decoded once, for all that want it.

FAISS answers a query by going through its lists; a thousand queries make it read and decode a popular list
hundreds of times. Here the (query, list) pairs are sorted by list. A list is read once, in the order of the
file, decoded once, and scored for all its queries together: first by whole numbers, which rule most of it out
(`index_builder.lists.list_screen`), the rest in float32. FAISS's heaps keep the best k of each query.

Source: the idea is that of `faiss.contrib.big_batch_search`.
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from index_builder.lists.best_k import BestK, Offer, Similarities
from index_builder.lists.inverted_lists import InvertedList, InvertedLists
from index_builder.lists.kept_arrays import KeptArrays, search_key
from index_builder.lists.list_codes import ListDecoder, list_decoder
from index_builder.lists.list_pairs import Numbers, Pairs, Wanted, pair_up
from index_builder.lists.list_screen import SCREENED_FROM, Screen
from index_builder.lists.list_tiles import BoundedTile, Tile, TileScorer
from index_builder.lists.ordered_threads import mapped_in_order
from index_builder.lists.sign_codes import SignCodes, SignScorer
from index_builder.metadata.metadata_rows import Rows
from index_builder.metadata.row_mask import RowMask
from index_builder.numerics.faiss_library import load_faiss
from index_builder.numerics.integer_products import has_fast_integers
from index_builder.numerics.matrix_threads import alone, one_faiss_thread, one_matrix_thread, one_torch_thread
from spine.progress import SILENT, Progress
from spine.tables import Vectors

GROWN = 16
"""Rows that pass a predicate, for each of k neighbours, that a query looks for before it goes to no further list."""

HELD_BYTES = 256 * 2**20
"""Of lists on disk with more to score than the average that are put off."""

SEGMENT_PRODUCTS, SEGMENT_BYTES = 2e13, 64 * 2**30
"""Multiplications, and bytes of lists on disk, after which what was found is kept: a minute of four cores, half a
minute of a disk that gives 2 GB/s. A pass with less is one piece."""

_VECTORS, _VECTORS_LEAST = 2_048, 64  # of a list, decoded at once: 6 MB at d = 768
_SCORES = 2**20  # of them with the list's queries, unless these alone are more
_SMALL_HEAP = 128  # neighbours up to which one thread fills the heaps sooner than a team that must be woken


class ListPass:
    """The list-major search over one index.

    Attributes:
        lists: The inverted lists it goes through.
        codes: What the lists hold: "flat", "scalar", "product" or "signs".
        screens: Whether whole numbers may rule rows out, if there is enough to do.
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
        self.screens = (not self._l2 or isinstance(codes, SignCodes)) and has_fast_integers()
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

        As many threads work as FAISS has. Memory holds 12 bytes for each of the q · k results, 20 for each of the
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
            Similarities (q, k) and rows (q, k), in the order of FAISS's heaps, not sorted; where fewer than k are
            found the rest is row -1 with similarity -inf. Of an l2 index 1 - distance / 2. And how many lists each
            query went through, (q,).

        Raises:
            DataError: Lists on disk can't be read.
        """
        asked = moved_by(self._transforms, queries)
        best = BestK(len(queries), k)
        enough = Wanted(self.lists.passing(mask), wanted or GROWN * k) if mask is not None else None
        lists, start = [np.empty(0, dtype=np.int64)], 0
        with one_matrix_thread():
            while start < len(asked):
                some = asked[start:]
                pairs = pair_up(self._ivf, self.lists.order, some, min(nprobe, int(self._ivf.nlist)), enough)
                segments = self._segments(pairs)
                kept = None
                if keep is not None and len(segments) > 1:
                    kept = KeptArrays(keep, self._key(asked, k, nprobe, mask))
                done = _restored(best, kept, start, len(segments))
                sizes = [np.count_nonzero(self.lists.sizes[pairs.numbers[segment]]) for segment in segments]
                progress.begin("search", int(sum(sizes)), "lists", done=int(sum(sizes[:done])))
                self._go_through(pairs, segments, done, some, mask, start, best, kept, progress)
                lists.append(pairs.lists)
                start += len(pairs.lists)
        return *best.results(), np.concatenate(lists)

    def _key(self, queries: Vectors, k: int, nprobe: int, mask: RowMask | None) -> str:
        """What the result of a search depends on, as far as the index is the one that was begun with."""
        parts = [queries, np.array([k, nprobe]), self.lists.sizes]
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

    def _go_through(
        self,
        pairs: Pairs,
        segments: list[Numbers],
        done: int,
        queries: Vectors,
        mask: RowMask | None,
        first: int,
        best: BestK,
        kept: KeptArrays | None,
        progress: Progress,
    ) -> None:
        """Offer each pair's rows, segment by segment; `first` is the number of the first query in `best`."""
        fast = self._worth_screening(pairs)
        scorer: TileScorer | SignScorer
        if isinstance(self._codes, SignCodes):
            scorer = SignScorer(self._ivf, self._codes, queries, l2=self._l2, fast=fast)
        else:
            screen = Screen(self._codes, queries) if fast else None
            scorer = TileScorer(self._ivf, self._codes, queries, screen, l2=self._l2)
        for number in range(done, len(segments)):
            # One after the other to the end: a row's bounds, and with them the last bit of its similarity, are then
            # the same whether the segment before was gone through just now or in an earlier start.
            self._offer_all(self._tiles(pairs, segments[number], mask), scorer, fast, first, best, progress)
            if kept is not None:
                values, labels = best.state()
                kept.write(reached=np.array([first, number + 1]), values=values, labels=labels)

    def _offer_all(
        self,
        tiles: Iterator[Tile],
        scorer: TileScorer | SignScorer,
        with_torch: bool,
        first: int,
        best: BestK,
        progress: Progress,
    ) -> None:
        def with_bounds() -> Iterator[list[BoundedTile]]:
            for share in _shares(tiles, scorer.is_light):
                # Looked up as the share is handed out, so that they don't depend on what threads do meanwhile.
                yield [
                    (tile, best.least(tile.queries + first) if scorer.wants_least(tile) else None)
                    for tile in share
                ]

        def score(share: list[BoundedTile]) -> tuple[list[Offer], int]:
            # Laid out here: the one thread that fills the heaps has enough to do.
            offers = [offer for scored in scorer.score_share(share) for offer in scored.offers(first)]
            return offers, sum(tile.last for tile, _ in share)

        threads = load_faiss().omp_get_max_threads()
        with ExitStack() as stack:
            if with_torch:
                stack.enter_context(one_torch_thread())
            if best.k <= _SMALL_HEAP:
                stack.enter_context(one_faiss_thread())
            prepare = partial(alone, with_torch=with_torch)
            for offers, ended in mapped_in_order(score, with_bounds(), threads, prepare):
                for offer in offers:
                    best.add(offer)
                progress.advance(ended)

    def _worth_screening(self, pairs: Pairs) -> bool:
        """Whether whole numbers would save more than the time it takes to load what multiplies them."""
        if not self.screens:
            return False
        sizes = self.lists.sizes[pairs.numbers]
        return float(sizes @ np.diff(pairs.starts)) * int(self._ivf.d) >= SCREENED_FROM

    def _tiles(self, pairs: Pairs, segment: Numbers, mask: RowMask | None) -> Iterator[Tile]:
        """The work of a segment in pieces of a bounded number of scores."""
        place = dict(zip(pairs.numbers[segment].tolist(), segment.tolist(), strict=True))
        for each in self._read(pairs, segment):
            codes, rows = each.codes, each.rows
            if mask is not None:
                passing = np.flatnonzero(mask.has(rows))
                codes, rows = codes[passing], rows[passing]
            i = place[each.number]
            inside = slice(int(pairs.starts[i]), int(pairs.starts[i + 1]))
            queries, middles = pairs.queries[inside], pairs.middles[inside]
            step = max(_VECTORS_LEAST, min(_VECTORS, _SCORES // len(queries)))
            for start in range(0, len(rows), step):
                piece = slice(start, start + step)
                ends = start + step >= len(rows)
                yield Tile(each.number, codes[piece], rows[piece], queries, middles, ends)

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
    best.restore(reached["values"], reached["labels"])
    return int(done) if query == start else segments


def _shares(tiles: Iterator[Tile], is_light: Callable[[Tile], bool]) -> Iterator[list[Tile]]:
    """Tiles handed out together, so that small ones cost a thread no more than they are worth; all light, or none."""
    share: list[Tile] = []
    scores = rows = 0
    for tile in tiles:
        if share and (is_light(tile) != is_light(share[0]) or rows + len(tile.rows) > _VECTORS):
            yield share
            share, scores, rows = [], 0, 0
        share.append(tile)
        scores += len(tile.queries) * len(tile.rows)
        rows += len(tile.rows)
        if scores >= _SCORES // 8:
            yield share
            share, scores, rows = [], 0, 0
    if share:
        yield share
