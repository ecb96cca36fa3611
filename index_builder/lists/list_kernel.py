"""Rows of inverted lists scored for all queries that want them, compiled: what costs is one product of 8-bit numbers.

Rows are taken up a panel at a time, as the CPU's cache holds them. Rounded to 8 bits, a similarity is off by a known
amount at most: with q = q' + e and v = v' + f, |q.v - q'.v'| <= |e| |v'| + |q| |f| (Cauchy and Schwarz). A row that
even with so much more is not among a query's best is left out there and then; the rest, some percent, is scored in
float32. Each pair of a query and a row is scored by itself, always in the same way: its similarity does not depend on
what else is asked, nor on how many threads ask.
"""

import math
from typing import Any

import numba
import numpy as np

from index_builder.numerics.compiled import (
    address,
    compiled,
    compiled_sums,
    larger_of,
    lowest_bit,
    smaller_of,
    whole_of,
)
from index_builder.numerics.pair_products import dot
from index_builder.numerics.panel_products import QUERIES, ROWS, laid_out, multiplied, reaching
from index_builder.numerics.rounded_vectors import round_rows

PLAIN, LEVELS, PRODUCT = 0, 1, 2
"""Kinds of codes: float32, one byte a dimension, one byte a part of the dimensions."""

_SLACK = 1e-5  # of the largest similarity there can be: what float32 rounds away, and more
_LIMIT = np.float32(2**30)  # no product of 8-bit numbers with d up to 65,536 is beyond


@compiled
def _longest(numbers: Any, count: int, d: int) -> float:
    """The longest row of 8-bit numbers that have 128 added."""
    longest = np.int32(0)
    for i in range(count):
        length = np.int32(0)
        for j in range(d):
            number = np.int32(numbers[i, j]) - 128
            length += number * number
        longest = max(longest, length)
    return math.sqrt(longest)


@compiled
def _looked_up(codes: Any, entries: Any, row: Any) -> None:
    """A row of product codes, from codebooks one below the other; both seen as words, as many an entry has."""
    words = entries.shape[1]
    if words == 1:
        for m in range(len(codes)):
            row[m] = entries[256 * m + codes[m], 0]
    elif words == 4:
        for m in range(len(codes)):
            entry, place = 256 * m + codes[m], 4 * m
            row[place], row[place + 1] = entries[entry, 0], entries[entry, 1]
            row[place + 2], row[place + 3] = entries[entry, 2], entries[entry, 3]
    else:
        for m in range(len(codes)):
            entry = 256 * m + codes[m]
            for j in range(words):
                row[words * m + j] = entries[entry, j]


@compiled_sums
def _decoded(code: Any, weights: Any, base: Any, row: Any) -> None:
    """One row of levels in float32."""
    for j in range(len(weights)):
        row[j] = base[j] + weights[j] * np.float32(np.int32(code[j]) - 128)


@compiled
def _brought_together(pairs: Any, asked: Any, first: int, stop: int, of_pairs: Any, sums: Any) -> None:
    """What `_bounded` needs of a list's pairs, one after the other: it is read for each of the list's panels."""
    _, numbers, least, added = pairs
    _, _, steps, errors, norms, own_sums, base = asked
    for p in range(first, stop):
        q, place = numbers[p], p - first
        offset = base[q] + added[p]
        of_pairs[0, place] = least[q] - offset - _SLACK * abs(offset)
        of_pairs[1, place] = errors[q] + _SLACK * norms[q]
        of_pairs[2, place] = norms[q] + _SLACK * norms[q]
        of_pairs[3, place] = 1 / steps[q]
        sums[place] = own_sums[q]


@compiled_sums
def _bounded(of_pairs: Any, sums: Any, count: int, step: Any, length: Any, error: Any, bounds: Any) -> None:
    """What a product with a row of a panel must reach at least to be of use to each pair."""
    long, off, scale = np.float32(length), np.float32(error), np.float32(1 / step)
    for place in range(count):
        margin = of_pairs[1, place] * long + of_pairs[2, place] * off
        bound = (of_pairs[0, place] - margin) * of_pairs[3, place] * scale
        bound = larger_of(-_LIMIT, smaller_of(_LIMIT, bound))
        bounds[place] = np.int32(whole_of(bound) + sums[place])


@compiled
def _screened(pairs: Any, asked: Any, room: Any, first: int, stop: int, here: int) -> int:
    """Write down which rows of a panel may be of use to which pairs, and return how many there are."""
    numbers, rounded = pairs[1], asked[1]
    _, _, panel, products, addresses, (_, _, bounds), may_pair, may_row, _, _, _ = room
    whole, stride = rounded.ctypes.data, rounded.shape[1]
    there, maybe = (np.int64(1) << here) - 1, 0
    for start in range(first, stop, QUERIES):
        some = min(QUERIES, stop - start)
        for i in range(QUERIES):
            addresses[i] = whole + numbers[start + min(i, some - 1)] * stride
        multiplied(panel, addresses, stride // 4, products)
        for i in range(some):
            bits = reaching(products.ctypes.data + 4 * ROWS * i, bounds[start + i - first]) & there
            while bits:
                may_pair[maybe], may_row[maybe] = start + i, lowest_bit(bits)
                maybe += 1
                bits &= bits - 1
    return maybe


@compiled
def score_lists(lists: Any, pairs: Any, asked: Any, codes: Any, room: Any, found: Any) -> int:
    """Score the rows of some lists for their queries.

    Args:
        lists: Of each list the addresses of its codes and of its row numbers, and how many rows; (t, 3), int64.
        pairs: Where each list's pairs begin, and where the last ones end (t + 1,); of each pair its query (p,);
            what a row must have at least to be of use to each query, -inf for anything (q,); what is added to each
            pair's products (p,).
        asked: Of the queries their vectors, the same in 8-bit numbers, of these the step, the error, the norm and
            128 times the sum, and what is added to the products of numbers.
        codes: Their kind and bytes, of LEVELS the step and middle of each dimension, of PRODUCT the codebooks one below
            the other and the same in 8-bit numbers, as words, and the largest error of these.
        room: What is worked in, see `index_builder.lists.list_scorers`.
        found: Takes the pair, row number and similarity of each row found for it; room for all.

    Returns:
        How many were found.
    """
    starts, queries = pairs[0], asked[0]
    kind, size, _, _, _, entries, grid_error = codes
    eights, panel, may_pair, may_row, eight_words = room[1], room[2], room[6], room[7], room[9]
    of_pairs, sums, bounds = room[5]
    d = queries.shape[1]
    count = 0
    for t in range(len(lists)):
        n, first, stop = lists[t, 2], starts[t], starts[t + 1]
        rows = numba.carray(address(lists[t, 1]), (n,), np.int64)
        stored = numba.carray(address(lists[t, 0]), (n, size), np.uint8)
        plain = numba.carray(address(lists[t, 0]), (n if kind == PLAIN else 0, d), np.float32)
        bits = numba.carray(address(lists[t, 0]), (n if kind == PLAIN else 0, d), np.int32)
        _brought_together(pairs, asked, first, stop, of_pairs, sums)
        for start in range(0, n, ROWS):
            here = min(ROWS, n - start)
            some = slice(start, start + here)
            maybe = 0
            # A panel takes as long for one query as for several, and for one row as for a group of them.
            if (stop - first) * here <= 4 * here + 2 * (stop - first):
                for p in range(first, stop):
                    for r in range(here):
                        may_pair[maybe], may_row[maybe] = p, r
                        maybe += 1
            else:
                if kind == PLAIN:
                    step, length, error = round_rows(plain[some], bits[some], here, eights)
                else:
                    if kind == LEVELS:
                        eights[:here, :d] = stored[some]
                    else:
                        for r in range(here):
                            _looked_up(stored[start + r], entries, eight_words[r])
                    step, length, error = 1.0, _longest(eights, here, d), grid_error
                laid_out(eights, panel, here)
                _bounded(of_pairs, sums, stop - first, step, length, error, bounds)
                maybe = _screened(pairs, asked, room, first, stop, here)
            count = _scored(
                pairs, queries, codes, room, plain[some], stored[some], rows[some], maybe, found, count
            )
    return count


@compiled
def _scored(
    pairs: Any, queries: Any, codes: Any, room: Any,
    plain: Any, stored: Any, rows: Any, maybe: int, found: Any, count: int,
) -> int:  # fmt: skip
    """Score those pairs of a panel that were written down, and keep what is of use; how many are kept by now."""
    _, numbers, least, added = pairs
    kind, _, weights, lowest, books, _, _ = codes
    vectors, may_pair, may_row, decoded, vector_words = room[0], room[6], room[7], room[8], room[10]
    found_pair, found_row, found_similarity = found
    decoded[:] = False
    for i in range(maybe):
        p, r = may_pair[i], may_row[i]
        q = numbers[p]
        if kind == PLAIN:
            similarity = dot(queries[q], plain[r])
        else:
            if not decoded[r]:
                if kind == LEVELS:
                    _decoded(stored[r], weights, lowest, vectors[r])
                else:
                    _looked_up(stored[r], books, vector_words[r])
                decoded[r] = True
            similarity = dot(queries[q], vectors[r])
        similarity += added[p]
        if similarity >= least[q]:
            found_pair[count], found_row[count], found_similarity[count] = p, rows[r], similarity
            count += 1
    return count


@compiled
def by_pair(found: Any, count: int, numbers: Any, queries: Any, rows: Any, similarities: Any) -> None:
    """What was found, pair by pair: what is kept of a query is then looked at once, not for each row.

    Args:
        found: As `score_lists` leaves it.
        count: How many were found.
        numbers: The query of each pair.
        queries: Takes them, and so do the others; (count,) each.
        rows: Row numbers.
        similarities: Similarities.
    """
    found_pair, found_row, found_similarity = found
    places = np.zeros(len(numbers) + 1, dtype=np.int64)
    for i in range(count):
        places[found_pair[i] + 1] += 1
    for p in range(len(numbers)):
        places[p + 1] += places[p]
    for i in range(count):
        p = found_pair[i]
        place = places[p]
        places[p] = place + 1
        queries[place], rows[place], similarities[place] = numbers[p], found_row[i], found_similarity[i]
